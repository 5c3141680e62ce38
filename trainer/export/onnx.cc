#include "trainer/export/onnx.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "trainer/export/half.h"
#include "trainer/export/onnx_graph.h"
#include "trainer/export/onnx_preprocessing.h"

namespace lockstep::trainer {
namespace {

using Shape = std::vector<int64_t>;

std::string ShapeText(const Shape& shape) {
  return absl::StrCat("[", absl::StrJoin(shape, ", "), "]");
}

// Puts the network's operations into the graph, in their order.
class Network {
 public:
  Network(const Graph& network, std::span<const TensorBytes> weights, bool half, OnnxGraph& graph)
      : network_(network), half_(half), graph_(graph), names_(network.operations.size()) {
    for (const TensorBytes& tensor : weights) weights_[tensor.name] = &tensor;
  }

  /// From the input's value to the logits'.
  absl::StatusOr<std::string> Add(const std::string& input) {
    const std::set<int> needed = Needed();
    names_[0] = input;
    for (int index : needed) {
      if (index == 0) continue;
      AddOperation(index);
      if (!status_.ok()) return status_;
    }
    return names_[static_cast<size_t>(network_.output)];
  }

 private:
  // The operations that the logits depend on.
  std::set<int> Needed() const {
    std::set<int> needed;
    std::vector<int> open = {network_.output};
    while (!open.empty()) {
      const int index = open.back();
      open.pop_back();
      if (!needed.insert(index).second) continue;
      for (const int input : Operation(index).inputs) open.push_back(input);
    }
    return needed;
  }
  const trainer::Operation& Operation(int index) const {
    return network_.operations[static_cast<size_t>(index)];
  }
  const ValueShape& ShapeOf(int index) const { return network_.shapes[static_cast<size_t>(index)]; }
  OnnxType type() const { return half_ ? OnnxType::kFloat16 : OnnxType::kFloat; }

  std::string Weight(const std::string& name, const Shape& shape, bool may_be_half = true);
  void CheckWeight(const TensorBytes& tensor, const Shape& shape);
  void AddOperation(int index);
  std::string AddConv(const trainer::Operation& op, const std::string& in, int in_channels);
  std::string AddBatchNorm(const trainer::Operation& op, const std::string& in, int64_t channels);
  std::string AddPool(const trainer::Operation& op, const std::string& in);
  std::string AddAdaptivePool(const trainer::Operation& op, const std::string& in,
                              const ValueShape& from);
  std::string AddGelu(const std::string& in);
  std::string Averaging(int from, int to, bool transposed);

  const Graph& network_;
  const bool half_;
  OnnxGraph& graph_;
  std::vector<std::string> names_;  // Of each operation's value.
  std::map<std::string, const TensorBytes*> weights_;
  absl::Status status_;
};

void Network::CheckWeight(const TensorBytes& tensor, const Shape& shape) {
  if (tensor.dtype != "F32") {
    status_.Update(absl::InvalidArgumentError(
        absl::StrCat(tensor.name, " is ", tensor.dtype, "; weights are float32 (F32)")));
  } else if (tensor.shape != shape) {
    status_.Update(absl::InvalidArgumentError(
        absl::StrCat(tensor.name, " has the shape ", ShapeText(tensor.shape),
                     ", the model's configuration asks for ", ShapeText(shape))));
  }
}

std::string Network::Weight(const std::string& name, const Shape& shape, bool may_be_half) {
  if (graph_.HasWeight(name)) return name;
  const auto found = weights_.find(name);
  if (found == weights_.end()) {
    status_.Update(absl::InvalidArgumentError(absl::StrCat("there is no tensor ", name)));
    return name;
  }
  const TensorBytes& tensor = *found->second;
  CheckWeight(tensor, shape);
  if (!status_.ok()) return name;
  if (!half_ || !may_be_half) {
    graph_.Weight(name, OnnxType::kFloat, shape, tensor.bytes);
    return name;
  }
  const size_t count = tensor.bytes.size() / sizeof(float);
  std::string bytes(count * sizeof(uint16_t), '\0');
  for (size_t i = 0; i < count; ++i) {
    float value = 0;
    std::memcpy(&value, tensor.bytes.data() + i * sizeof(float), sizeof(float));
    if (std::abs(value) > kLargestHalf) {
      status_.Update(absl::InvalidArgumentError(
          absl::StrCat(name, " holds ", value, ", more than float16 can; export without --fp16")));
      return name;
    }
    const uint16_t half = HalfBits(value);
    std::memcpy(bytes.data() + i * sizeof(half), &half, sizeof(half));
  }
  graph_.OwnedWeight(name, OnnxType::kFloat16, shape, std::move(bytes));
  return name;
}

std::string Network::AddConv(const trainer::Operation& op, const std::string& in, int in_channels) {
  std::vector<std::string> inputs = {
      in, Weight(op.name + ".weight",
                 {op.out, in_channels / op.groups, op.kernel.height, op.kernel.width})};
  if (op.bias) inputs.push_back(Weight(op.name + ".bias", {op.out}));
  return graph_.Add(
      "Conv", inputs,
      {{"kernel_shape", Shape{op.kernel.height, op.kernel.width}},
       {"strides", Shape{op.stride.height, op.stride.width}},
       {"pads", Shape{op.padding.height, op.padding.width, op.padding.height, op.padding.width}},
       {"group", int64_t{op.groups}}});
}

std::string Network::AddBatchNorm(const trainer::Operation& op, const std::string& in,
                                  int64_t channels) {
  // Running variances can be beyond float16. ONNX lets scale and statistics have a type of their
  // own, but few runtimes take that; so the norm itself is float32, whatever is around it.
  const std::string from =
      half_ ? graph_.Add("Cast", {in}, {{"to", static_cast<int64_t>(OnnxType::kFloat)}}) : in;
  const Shape shape = {channels};
  const std::string normalized = graph_.Add(
      "BatchNormalization",
      {from, Weight(op.name + ".weight", shape, false), Weight(op.name + ".bias", shape, false),
       Weight(op.name + ".running_mean", shape, false),
       Weight(op.name + ".running_var", shape, false)},
      {{"epsilon", static_cast<float>(op.epsilon)}});
  return half_ ? graph_.Add("Cast", {normalized}, {{"to", static_cast<int64_t>(type())}})
               : normalized;
}

std::string Network::AddPool(const trainer::Operation& op, const std::string& in) {
  std::vector<OnnxAttribute> attributes = {
      {"kernel_shape", Shape{op.kernel.height, op.kernel.width}},
      {"strides", Shape{op.stride.height, op.stride.width}},
      {"pads", Shape{op.padding.height, op.padding.width, op.padding.height, op.padding.width}}};
  if (op.kind == OpKind::kMaxPool) return graph_.Add("MaxPool", {in}, attributes);
  attributes.push_back({"count_include_pad", int64_t{1}});
  return graph_.Add("AveragePool", {in}, attributes);
}

// A matrix that averages `from` places into `to`, each over floor(i * from / to) up to
// ceil((i + 1) * from / to): the rule of PyTorch's adaptive pools.
std::string Network::Averaging(int from, int to, bool transposed) {
  std::vector<double> matrix(static_cast<size_t>(from) * static_cast<size_t>(to), 0.0);
  for (int i = 0; i < to; ++i) {
    const int first = i * from / to;
    const int end = ((i + 1) * from + to - 1) / to;
    for (int j = first; j < end; ++j) {
      const int place = transposed ? j * to + i : i * from + j;
      matrix[static_cast<size_t>(place)] = 1.0 / (end - first);
    }
  }
  const Shape shape = transposed ? Shape{from, to} : Shape{to, from};
  return graph_.Constant(type(), shape, matrix);
}

std::string Network::AddAdaptivePool(const trainer::Operation& op, const std::string& in,
                                     const ValueShape& from) {
  const Extent2d to = op.pool_to;
  if (to == Extent2d{1, 1}) return graph_.Add("GlobalAveragePool", {in});
  if (from.height == to.height && from.width == to.width) return in;
  const std::string across = graph_.Add(
      "MatMul", {in, Averaging(static_cast<int>(from.width), to.width, /*transposed=*/true)});
  return graph_.Add(
      "MatMul",
      {Averaging(static_cast<int>(from.height), to.height, /*transposed=*/false), across});
}

// x / 2 * (1 + erf(x / sqrt(2))): the operator itself came with a later set.
std::string Network::AddGelu(const std::string& in) {
  const auto number = [&](double value) { return graph_.Scalar(type(), value); };
  const std::string error = graph_.Add("Erf", {graph_.Add("Mul", {in, number(M_SQRT1_2)})});
  const std::string factor = graph_.Add("Add", {error, number(1)});
  return graph_.Add("Mul", {graph_.Add("Mul", {in, number(0.5)}), factor});
}

void Network::AddOperation(int index) {
  const trainer::Operation& op = Operation(index);
  const int before = op.inputs.front();
  const std::string& in = names_[static_cast<size_t>(before)];
  std::string& out = names_[static_cast<size_t>(index)];
  std::vector<std::string> all;
  for (const int input : op.inputs) all.push_back(names_[static_cast<size_t>(input)]);
  switch (op.kind) {
    case OpKind::kInput:
      break;
    case OpKind::kConv2d:
      out = AddConv(op, in, static_cast<int>(ShapeOf(before).channels));
      break;
    case OpKind::kBatchNorm:
      out = AddBatchNorm(op, in, ShapeOf(before).channels);
      break;
    case OpKind::kLinear:
      out = graph_.Add("Gemm",
                       {in, Weight(op.name + ".weight", {op.out, ShapeOf(before).numel()}),
                        Weight(op.name + ".bias", {op.out})},
                       {{"transB", int64_t{1}}});
      break;
    case OpKind::kRelu:
      out = graph_.Add("Relu", {in});
      break;
    case OpKind::kRelu6:
      out = graph_.Add("Clip", {in, graph_.Scalar(type(), 0), graph_.Scalar(type(), 6)});
      break;
    case OpKind::kLeakyRelu:
      out = graph_.Add("LeakyRelu", {in}, {{"alpha", 0.01f}});
      break;
    case OpKind::kGelu:
      out = AddGelu(in);
      break;
    case OpKind::kSilu:
      out = graph_.Add("Mul", {in, graph_.Add("Sigmoid", {in})});
      break;
    case OpKind::kTanh:
      out = graph_.Add("Tanh", {in});
      break;
    case OpKind::kMaxPool:
    case OpKind::kAvgPool:
      out = AddPool(op, in);
      break;
    case OpKind::kAdaptiveAvgPool:
      out = AddAdaptivePool(op, in, ShapeOf(before));
      break;
    case OpKind::kFlatten:
      out = graph_.Add("Flatten", {in}, {{"axis", int64_t{1}}});
      break;
    case OpKind::kDropout:
      out = in;
      break;
    case OpKind::kAdd:
      out = graph_.Add("Add", all);
      break;
    case OpKind::kConcat:
      out = graph_.Add("Concat", all, {{"axis", int64_t{1}}});
      break;
  }
}

// What people read off: probabilities or numbers.
void AddAnswer(OnnxGraph& graph, const ModelCard& card, int64_t outputs) {
  const std::vector<OnnxDimension> shape = {std::string("batch"), outputs};
  graph.Output("logits", OnnxType::kFloat, shape);
  if (card.loss == config::LossKind::kCrossEntropy) {
    graph.Add("Softmax", {"logits"}, {{"axis", int64_t{1}}}, "probabilities");
    graph.Output("probabilities", OnnxType::kFloat, shape);
  } else if (card.loss == config::LossKind::kBinaryCrossEntropy) {
    graph.Add("Sigmoid", {"logits"}, {}, "probabilities");
    graph.Output("probabilities", OnnxType::kFloat, shape);
  } else {
    std::vector<double> mean, std;
    for (const Target& target : card.targets) {
      mean.push_back(target.mean);
      std.push_back(target.std);
    }
    const std::string scaled =
        graph.Add("Mul", {"logits", graph.Constant(OnnxType::kFloat, {outputs}, std)});
    graph.Add("Add", {scaled, graph.Constant(OnnxType::kFloat, {outputs}, mean)}, {}, "values");
    graph.Output("values", OnnxType::kFloat, shape);
  }
}

absl::Status CheckFit(const Graph& graph, const ModelCard& card) {
  const int64_t outputs = graph.shapes[static_cast<size_t>(graph.output)].numel();
  const size_t named = std::max(card.classes.size(), card.targets.size());
  if (outputs != static_cast<int64_t>(named)) {
    return absl::InvalidArgumentError(
        absl::StrCat("the model has ", outputs, " outputs, but its card names ", named));
  }
  const Preprocessing& p = card.preprocessing;
  if (p.channels != graph.input.channels || p.height != graph.input.height ||
      p.width != graph.input.width || p.mean.size() != static_cast<size_t>(p.channels) ||
      p.std.size() != static_cast<size_t>(p.channels)) {
    return absl::InvalidArgumentError(
        absl::StrCat("the card's preprocessing makes ", p.channels, " x ", p.height, " x ", p.width,
                     ", the model takes ", graph.input.channels, " x ", graph.input.height, " x ",
                     graph.input.width));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<ProtobufWriter> MakeOnnx(const Graph& graph, std::span<const TensorBytes> weights,
                                        const ModelCard& card, const OnnxOptions& options) {
  if (absl::Status fits = CheckFit(graph, card); !fits.ok()) return fits;
  OnnxGraph onnx;
  onnx.Input("pixels", OnnxType::kUint8,
             {std::string("batch"), std::string("height"), std::string("width"), int64_t{3}});
  std::string value = AddPreprocessing(onnx, "pixels", card.preprocessing);
  if (options.half) {
    value = onnx.Add("Cast", {value}, {{"to", static_cast<int64_t>(OnnxType::kFloat16)}});
  }
  auto logits = Network(graph, weights, options.half, onnx).Add(value);
  if (!logits.ok()) return logits.status();
  // A cast to float32 that is none where it is float32 already.
  onnx.Add("Cast", {*logits}, {{"to", static_cast<int64_t>(OnnxType::kFloat)}}, "logits");
  AddAnswer(onnx, card, graph.shapes[static_cast<size_t>(graph.output)].numel());

  const auto json = nlohmann::json::parse(card.ToJson());
  ProtobufWriter model = onnx.Finish(options.name, options.producer_version,
                                     {{"classes", json.at("classes").dump()},
                                      {"targets", json.at("targets").dump()},
                                      {"loss", json.at("loss").get<std::string>()},
                                      {"preprocessing", json.at("preprocessing").dump()},
                                      {"run_yaml", card.run_yaml}});
  if (model.size() > std::numeric_limits<int32_t>::max()) {
    return absl::ResourceExhaustedError(
        absl::StrCat("the model takes ", model.size() >> 20,
                     " MiB, and a file of ONNX holds at most 2047; export with --fp16, or as "
                     "safetensors"));
  }
  return model;
}

}  // namespace lockstep::trainer
