// The structure of exported models, read back from the bytes. What they compute is compared with
// ONNX Runtime in tests/bench/onnx_test.py, where that is installed.
#include "trainer/export/onnx.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <deque>
#include <set>

#include "tests/trainer/export/wire_reader.h"

namespace lockstep::trainer {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::IsSupersetOf;
using ::testing::Not;

// Convolution, batch norm, ReLU, pool, and a linear layer; beside it an auxiliary head.
class OnnxTest : public ::testing::Test {
 protected:
  OnnxTest() {
    graph_.input = {3, 8, 8};
    Add(Make(OpKind::kInput, {}), {3, 8, 8});
    Operation conv = Make(OpKind::kConv2d, {0}, "conv", 4);
    conv.kernel = {3, 3};
    conv.padding = {1, 1};
    conv.bias = true;
    Add(conv, {4, 8, 8});
    Add(Make(OpKind::kBatchNorm, {1}, "bn"), {4, 8, 8});
    Add(Make(OpKind::kRelu, {2}), {4, 8, 8});
    Add(Make(OpKind::kAdaptiveAvgPool, {3}), {4, 1, 1});
    Add(Make(OpKind::kFlatten, {4}), {4, 1, 1});
    Add(Make(OpKind::kDropout, {5}), {4, 1, 1});
    Add(Make(OpKind::kLinear, {6}, "fc", 2), {2, 1, 1});
    graph_.output = 7;
    Add(Make(OpKind::kLinear, {5}, "aux", 2), {2, 1, 1});
    graph_.auxiliary = 8;
    Weight("conv.weight", {4, 3, 3, 3});
    Weight("conv.bias", {4});
    for (const char* name : {"weight", "bias", "running_mean", "running_var"}) {
      Weight(std::string("bn.") + name, {4});
    }
    Weight("fc.weight", {2, 4});
    Weight("fc.bias", {2});
    Weight("aux.weight", {2, 4});
    Weight("aux.bias", {2});
    card_.run_yaml = "name: demo\n";
    card_.classes = {"cat", "dog"};
    card_.preprocessing.height = card_.preprocessing.width = card_.preprocessing.shorter_side = 8;
    card_.preprocessing.mean = {0.5, 0.5, 0.5};
    card_.preprocessing.std = {0.25, 0.25, 0.25};
  }

  static Operation Make(OpKind kind, std::vector<int> inputs, const std::string& name = "",
                        int out = 0) {
    Operation operation;
    operation.kind = kind;
    operation.inputs = std::move(inputs);
    operation.name = name;
    operation.out = out;
    return operation;
  }
  void Add(Operation operation, ValueShape shape) {
    graph_.operations.push_back(std::move(operation));
    graph_.shapes.push_back(shape);
  }
  void Weight(const std::string& name, const std::vector<int64_t>& shape, float value = 0.5f) {
    int64_t count = 1;
    for (const int64_t size : shape) count *= size;
    std::vector<float>& values = memory_.emplace_back(static_cast<size_t>(count), value);
    weights_.push_back({name, "F32", shape, std::as_bytes(std::span(values))});
  }
  TensorBytes& Tensor(const std::string& name) {
    return *std::find_if(weights_.begin(), weights_.end(),
                         [&](const TensorBytes& one) { return one.name == name; });
  }
  absl::Status Error(bool half = false) {
    OnnxOptions options;
    options.half = half;
    return MakeOnnx(graph_, weights_, card_, options).status();
  }
  // The fields of ModelProto's graph.
  std::vector<WireField> GraphFields(bool half = false) {
    OnnxOptions options;
    options.half = half;
    const auto model = MakeOnnx(graph_, weights_, card_, options);
    EXPECT_TRUE(model.ok()) << model.status();
    model_ = ReadMessage(Join(*model));
    return ReadMessage(TextOf(model_, 7));
  }
  static std::vector<std::string> Operators(const std::vector<WireField>& graph) {
    std::vector<std::string> types;
    for (const std::string& node : AllOf(graph, 1)) types.push_back(TextOf(ReadMessage(node), 4));
    return types;
  }

  Graph graph_;
  std::deque<std::vector<float>> memory_;
  std::vector<TensorBytes> weights_;
  ModelCard card_;
  std::vector<WireField> model_;
};

TEST_F(OnnxTest, SaysWhichFormatAndOperatorsItIsOf) {
  GraphFields();
  EXPECT_EQ(IntegerOf(model_, 1), 8u);
  EXPECT_EQ(IntegerOf(ReadMessage(TextOf(model_, 8)), 2), 18u);
  EXPECT_EQ(TextOf(model_, 2), "lockstep");
}

TEST_F(OnnxTest, EveryValueIsMadeBeforeItIsUsed) {
  const auto graph = GraphFields();
  std::set<std::string> known = {"pixels"};
  for (const std::string& tensor : AllOf(graph, 5)) known.insert(TextOf(ReadMessage(tensor), 8));
  for (const std::string& bytes : AllOf(graph, 1)) {
    const auto node = ReadMessage(bytes);
    for (const std::string& input : AllOf(node, 1)) EXPECT_TRUE(known.count(input)) << input;
    for (const std::string& output : AllOf(node, 2)) {
      EXPECT_TRUE(known.insert(output).second) << output << " is made twice";
    }
  }
  for (const std::string& output : AllOf(graph, 12)) {
    EXPECT_TRUE(known.count(TextOf(ReadMessage(output), 1)));
  }
}

TEST_F(OnnxTest, HoldsTheWeightsAsTheyAreAndNoneOfTheAuxiliaryHead) {
  const auto graph = GraphFields();
  std::map<std::string, std::vector<WireField>> tensors;
  for (const std::string& bytes : AllOf(graph, 5)) {
    const auto tensor = ReadMessage(bytes);
    tensors[TextOf(tensor, 8)] = tensor;
  }
  EXPECT_EQ(tensors.count("aux.weight"), 0u);
  ASSERT_EQ(tensors.count("conv.weight"), 1u);
  EXPECT_EQ(TextOf(tensors["conv.weight"], 1), std::string("\4\3\3\3"));  // Dimensions.
  EXPECT_EQ(IntegerOf(tensors["conv.weight"], 2), 1u);                    // FLOAT
  EXPECT_EQ(TextOf(tensors["conv.weight"], 9).size(), 4u * 27u * 4u);
}

TEST_F(OnnxTest, TakesPicturesOfAnySizeAndDropsDropout) {
  const auto graph = GraphFields();
  const auto input = ReadMessage(TextOf(graph, 11));
  EXPECT_EQ(TextOf(input, 1), "pixels");
  EXPECT_THAT(TextOf(input, 2), HasSubstr("height"));
  EXPECT_THAT(Operators(graph), Not(Contains("Dropout")));
  EXPECT_THAT(Operators(graph), IsSupersetOf({"Conv", "BatchNormalization", "GlobalAveragePool",
                                              "Gemm", "Softmax", "MatMul", "ArgMax"}));
}

TEST_F(OnnxTest, TheLossDecidesWhatElseComesOut) {
  const auto outputs = [&] {
    std::vector<std::string> names;
    for (const std::string& one : AllOf(GraphFields(), 12)) {
      names.push_back(TextOf(ReadMessage(one), 1));
    }
    return names;
  };
  EXPECT_EQ(outputs(), (std::vector<std::string>{"logits", "probabilities"}));
  card_.classes.clear();
  card_.targets = {{"price", 100, 20}, {"age", 5, 2}};
  card_.loss = config::LossKind::kMse;
  EXPECT_EQ(outputs(), (std::vector<std::string>{"logits", "values"}));
  card_.loss = config::LossKind::kBinaryCrossEntropy;
  EXPECT_EQ(outputs(), (std::vector<std::string>{"logits", "probabilities"}));
  EXPECT_THAT(Operators(GraphFields()), Contains("Sigmoid"));
}

TEST_F(OnnxTest, CarriesItsCard) {
  GraphFields();
  std::map<std::string, std::string> metadata;
  for (const std::string& entry : AllOf(model_, 14)) {
    metadata[TextOf(ReadMessage(entry), 1)] = TextOf(ReadMessage(entry), 2);
  }
  EXPECT_EQ(metadata["classes"], R"(["cat","dog"])");
  EXPECT_THAT(metadata["preprocessing"], HasSubstr("\"mean\":[0.5,0.5,0.5]"));
  EXPECT_EQ(metadata["run_yaml"], "name: demo\n");
}

TEST_F(OnnxTest, InFloat16WeightsAreHalfAsLargeAndNormsStayFloat32) {
  for (const std::string& bytes : AllOf(GraphFields(/*half=*/true), 5)) {
    const auto tensor = ReadMessage(bytes);
    if (TextOf(tensor, 8) == "conv.weight") {
      EXPECT_EQ(IntegerOf(tensor, 2), 10u);                                 // FLOAT16
      EXPECT_EQ(TextOf(tensor, 9).substr(0, 2), std::string("\0\x38", 2));  // 0.5
    }
    if (TextOf(tensor, 8) == "bn.running_var") {
      EXPECT_EQ(IntegerOf(tensor, 2), 1u);
    }
  }
}

TEST_F(OnnxTest, AWeightThatFloat16CannotHoldIsNamed) {
  Weight("large", {2}, 70000.0f);
  Tensor("fc.bias").bytes = Tensor("large").bytes;
  const absl::Status error = Error(/*half=*/true);
  EXPECT_TRUE(absl::IsInvalidArgument(error));
  EXPECT_THAT(std::string(error.message()), HasSubstr("fc.bias holds 70000"));
  EXPECT_TRUE(Error(/*half=*/false).ok());
}

TEST_F(OnnxTest, AMissingOrMisshapenTensorIsNamed) {
  Tensor("fc.weight").shape = {4, 2};
  EXPECT_THAT(std::string(Error().message()), HasSubstr("fc.weight has the shape [4, 2]"));
  Tensor("fc.weight").dtype = "F64";
  EXPECT_THAT(std::string(Error().message()), HasSubstr("fc.weight is F64"));
  Tensor("fc.weight").name = "other";
  EXPECT_THAT(std::string(Error().message()), HasSubstr("no tensor fc.weight"));
}

TEST_F(OnnxTest, ACardOfAnotherModelIsRefused) {
  card_.classes.push_back("emu");
  EXPECT_THAT(std::string(Error().message()), HasSubstr("2 outputs, but its card names 3"));
  card_.classes.pop_back();
  card_.preprocessing.height = 16;
  EXPECT_THAT(std::string(Error().message()), HasSubstr("3 x 16 x 8"));
}

}  // namespace
}  // namespace lockstep::trainer
