// The networks as data: published parameter counts, where the trunk ends, what a freeze means, what
// is refused.
#include "trainer/models/graph.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <stdexcept>
#include <string>
#include <vector>

namespace lockstep::trainer {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

config::ModelConfig Named(const std::string& name, int num_classes = 1000) {
  config::ModelConfig config;
  config.name = name;
  config.num_classes = num_classes;
  return config;
}

Graph At(const std::string& name, int size, int num_classes = 1000) {
  return BuildGraph(Named(name, num_classes), {3, size, size});
}

int64_t Parameters(const Graph& graph, int begin, int end) {
  int64_t count = 0;
  for (int i = begin; i < end; ++i) {
    for (const TensorSpec& spec : TensorsOf(graph, i)) {
      if (spec.is_parameter()) count += spec.numel();
    }
  }
  return count;
}
int64_t Parameters(const Graph& graph) {
  return Parameters(graph, 0, static_cast<int>(graph.operations.size()));
}

// The first operation that is not frozen, by the name of its tensors.
std::string FirstTrained(const Graph& graph, const std::string& freeze) {
  return graph.operations[static_cast<size_t>(FrozenOperations(graph, freeze))].name;
}

std::string Refusal(const config::ModelConfig& config, const InputShape& input) {
  try {
    BuildGraph(config, input);
  } catch (const std::invalid_argument& error) {
    return error.what();
  }
  return "accepted";
}

std::string FreezeRefusal(const Graph& graph, const std::string& freeze) {
  try {
    FrozenOperations(graph, freeze);
  } catch (const std::invalid_argument& error) {
    return error.what();
  }
  return "accepted";
}

struct Published {
  const char* name;
  int64_t parameters;
  int64_t features;  // Values per picture that leave the trunk.
};

class Zoo : public ::testing::TestWithParam<Published> {};

TEST_P(Zoo, HasThePublishedParametersAndFeatures) {
  const Published& model = GetParam();
  const Graph graph = At(model.name, std::string(model.name) == "inception_v3" ? 299 : 224);
  EXPECT_EQ(Parameters(graph), model.parameters);
  const auto features = static_cast<size_t>(graph.features);
  EXPECT_EQ(graph.operations[features].kind, OpKind::kFlatten);
  EXPECT_EQ(graph.shapes[features].numel(), model.features);
  EXPECT_EQ(graph.shapes[static_cast<size_t>(graph.output)].numel(), 1000);
}

// The counts are those of torchvision's documentation.
INSTANTIATE_TEST_SUITE_P(
    Models, Zoo,
    ::testing::Values(
        Published{"resnet18", 11'689'512, 512}, Published{"resnet34", 21'797'672, 512},
        Published{"resnet50", 25'557'032, 2048}, Published{"resnet101", 44'549'160, 2048},
        Published{"resnet152", 60'192'808, 2048}, Published{"vgg11", 132'863'336, 25088},
        Published{"vgg13", 133'047'848, 25088}, Published{"vgg16", 138'357'544, 25088},
        Published{"vgg19", 143'667'240, 25088}, Published{"vgg11_bn", 132'868'840, 25088},
        Published{"vgg13_bn", 133'053'736, 25088}, Published{"vgg16_bn", 138'365'992, 25088},
        Published{"vgg19_bn", 143'678'248, 25088}, Published{"inception_v3", 27'161'264, 2048},
        Published{"mobilenet_v2", 3'504'872, 1280}),
    [](const auto& info) { return std::string(info.param.name); });

TEST(GraphTest, TheTrunkOfVgg16HasThePublishedParameters) {
  const Graph graph = At("vgg16", 224);
  EXPECT_EQ(Parameters(graph, 0, FrozenOperations(graph, "backbone")), 14'714'688);
}

TEST(GraphTest, WithoutItsLossTheAuxiliaryHeadIsNotThere) {
  config::ModelConfig config = Named("inception_v3");
  config.auxiliary_loss_weight = 0;
  const Graph graph = BuildGraph(config, {3, 299, 299});
  EXPECT_EQ(graph.auxiliary, -1);
  EXPECT_EQ(Parameters(graph), 23'834'568);
}

TEST(GraphTest, ADenseHeadReplacesTheOwnAndAveragesTheTrunk) {
  for (const char* name : {"vgg16", "resnet50", "inception_v3", "mobilenet_v2", "cnn"}) {
    SCOPED_TRACE(name);
    config::ModelConfig config = Named(name, 7);
    config.cnn.blocks = {{.filters = 20}};
    config.head.replace = true;
    config.head.dense = {30, 40};
    config.head.dropout = 0.5;
    const Graph graph = BuildGraph(config, {3, 299, 299});
    const int64_t channels = graph.shapes[static_cast<size_t>(graph.features)].numel();
    EXPECT_EQ(channels, graph.shapes[static_cast<size_t>(graph.features - 2)].channels);
    std::vector<std::string> names;
    for (size_t i = static_cast<size_t>(graph.features) + 1; i < graph.operations.size(); ++i) {
      if (!graph.operations[i].name.empty()) names.push_back(graph.operations[i].name);
    }
    EXPECT_THAT(names, ElementsAre("head.0", "head.1", "head.classifier"));
    EXPECT_EQ(Parameters(graph, graph.features, static_cast<int>(graph.operations.size())),
              channels * 30 + 30 + 30 * 40 + 40 + 40 * 7 + 7);
  }
}

TEST(GraphTest, FreezingCountsLayersWithTheirNorms) {
  const Graph graph = At("resnet18", 32);
  EXPECT_EQ(FrozenOperations(graph, "none"), 0);
  EXPECT_EQ(FrozenOperations(graph, "backbone"), graph.features + 1);
  EXPECT_EQ(FirstTrained(graph, "1 layers"), "layer1.0.conv1");
  EXPECT_EQ(FirstTrained(graph, "2 layers"), "layer1.0.conv2");
  EXPECT_EQ(FirstTrained(graph, "7 layers"), "layer2.0.downsample.0");
  EXPECT_EQ(FirstTrained(graph, "20 layers"), "fc");  // 17 convolutions and 3 downsamplings.
  EXPECT_THAT(
      FreezeRefusal(graph, "21 layers"),
      AllOf(HasSubstr("nothing to train"), HasSubstr("21 layers"), HasSubstr("at most 20")));
  EXPECT_THAT(FreezeRefusal(graph, "all"), HasSubstr("none, backbone"));
}

TEST(GraphTest, AnAuxiliaryHeadIsNotCountedAndFrozenWithWhatFeedsIt) {
  const Graph with = At("inception_v3", 299);
  config::ModelConfig config = Named("inception_v3");
  config.auxiliary_loss_weight = 0;
  const Graph without = BuildGraph(config, {3, 299, 299});
  EXPECT_LT(with.auxiliary, with.features);
  int layers = 0;
  while (FirstTrained(without, std::to_string(++layers) + " layers") !=
         "Mixed_7a.branch3x3_1.conv") {
    ASSERT_LT(layers, 100);
  }
  const std::string text = std::to_string(layers) + " layers";
  EXPECT_EQ(FirstTrained(with, text), "Mixed_7a.branch3x3_1.conv");
  EXPECT_GT(FrozenOperations(with, text), with.auxiliary);
  EXPECT_LT(FrozenOperations(with, std::to_string(layers - 1) + " layers"), with.auxiliary);
}

TEST(GraphTest, ShapesFollowThePicture) {
  EXPECT_EQ(At("vgg16", 64).shapes[static_cast<size_t>(At("vgg16", 64).features)].numel(), 25088);
  const Graph resnet = BuildGraph(Named("resnet50"), {3, 224, 160});
  // The last value before the average: 32 times smaller.
  const ValueShape& last = resnet.shapes[static_cast<size_t>(resnet.features - 2)];
  EXPECT_EQ(last.channels, 2048);
  EXPECT_EQ(last.height, 7);
  EXPECT_EQ(last.width, 5);
}

TEST(GraphTest, PicturesThatAreTooSmallAreRefused) {
  EXPECT_EQ(Refusal(Named("vgg11"), {3, 32, 32}), "accepted");
  EXPECT_THAT(Refusal(Named("vgg11"), {3, 31, 32}),
              AllOf(HasSubstr("vgg11"), HasSubstr("32x32"), HasSubstr("31x32")));
  EXPECT_THAT(Refusal(Named("mobilenet_v2"), {3, 32, 8}), HasSubstr("mobilenet_v2"));
  EXPECT_THAT(Refusal(Named("inception_v3"), {3, 298, 299}),
              AllOf(HasSubstr("auxiliary"), HasSubstr("299x299"),
                    HasSubstr("model.auxiliary_loss_weight: 0")));
  config::ModelConfig plain = Named("inception_v3");
  plain.auxiliary_loss_weight = 0;
  EXPECT_EQ(Refusal(plain, {3, 75, 75}), "accepted");
  EXPECT_THAT(Refusal(plain, {3, 74, 75}), AllOf(HasSubstr("75x75"), HasSubstr("74x75")));
}

TEST(GraphTest, BlocksOfACnnHaveTheirOwnPoolsAndActivations) {
  config::ModelConfig config = Named("cnn", 3);
  config.cnn.activation = config::Activation::kGelu;
  config.cnn.blocks = {
      {.filters = 4,
       .pool = config::Pool::kAverage,
       .pool_size = 3,
       .activation = config::BlockActivation::kNone},
      {.filters = 5, .batch_norm = false, .activation = config::BlockActivation::kTanh},
      {.filters = 6, .pool = config::Pool::kMax, .pool_size = 4}};
  const Graph graph = BuildGraph(config, {3, 30, 40});
  std::vector<OpKind> kinds;
  for (const Operation& operation : graph.operations) kinds.push_back(operation.kind);
  EXPECT_THAT(kinds,
              ElementsAre(OpKind::kInput, OpKind::kConv2d, OpKind::kBatchNorm, OpKind::kAvgPool,
                          OpKind::kConv2d, OpKind::kTanh, OpKind::kConv2d, OpKind::kBatchNorm,
                          OpKind::kGelu, OpKind::kMaxPool, OpKind::kFlatten, OpKind::kLinear));
  // 30x40 / 3 = 10x13; / 4 = 2x3.
  EXPECT_EQ(graph.shapes[static_cast<size_t>(graph.features)].numel(), 6 * 2 * 3);
}

}  // namespace
}  // namespace lockstep::trainer
