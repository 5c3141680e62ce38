// The table of a model: its totals are the published ones, its rows are those of the graph.
#include "trainer/models/describe.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>

namespace lockstep::trainer {
namespace {

using ::testing::HasSubstr;

ModelDescription Of(const std::string& name, int size, double auxiliary_weight = 0) {
  config::ModelConfig config;
  config.name = name;
  config.num_classes = 1000;
  config.auxiliary_loss_weight = auxiliary_weight;
  return DescribeModel(BuildGraph(config, {3, size, size}));
}

// torchvision's documentation gives these as GFLOPS; they are multiply-adds.
TEST(DescribeTest, MultiplyAddsAreThePublishedOnes) {
  const auto giga = [](const std::string& name, int size) {
    return static_cast<double>(Of(name, size).total.multiply_adds) / 1e9;
  };
  EXPECT_NEAR(giga("resnet18", 224), 1.81, 0.01);
  EXPECT_NEAR(giga("resnet50", 224), 4.09, 0.01);
  EXPECT_NEAR(giga("resnet152", 224), 11.51, 0.01);
  EXPECT_NEAR(giga("vgg16", 224), 15.47, 0.01);
  EXPECT_NEAR(giga("inception_v3", 299), 5.71, 0.01);
  EXPECT_NEAR(giga("mobilenet_v2", 224), 0.30, 0.01);
}

TEST(DescribeTest, TrunkHeadAndAuxiliaryHeadAddUp) {
  const ModelDescription vgg = Of("vgg16", 224);
  EXPECT_EQ(vgg.trunk.parameters, 14'714'688);
  EXPECT_EQ(vgg.head.parameters, 138'357'544 - 14'714'688);
  EXPECT_EQ(vgg.features, 25088);
  EXPECT_EQ(vgg.weights_bytes, 4 * 138'357'544ll);
  const ModelDescription inception = Of("inception_v3", 299, 0.4);
  EXPECT_EQ(inception.total.parameters, 27'161'264);
  EXPECT_EQ(inception.auxiliary.parameters, 27'161'264 - 23'834'568);
  EXPECT_EQ(inception.trunk.parameters + inception.head.parameters, 23'834'568);
}

TEST(DescribeTest, AStepCostsTheForwardPassAndTwiceWhatIsTrained) {
  config::ModelConfig config;
  config.name = "vgg16";
  config.num_classes = 10;
  const Graph graph = BuildGraph(config, {3, 64, 64});
  const ModelDescription vgg = DescribeModel(graph);
  const int64_t trunk = vgg.trunk.multiply_adds, head = vgg.head.multiply_adds;
  EXPECT_EQ(StepMultiplyAdds(graph, 0, false), 3 * (trunk + head));
  const int backbone = FrozenOperations(graph, "backbone");
  EXPECT_EQ(StepMultiplyAdds(graph, backbone, false), trunk + 3 * head);
  EXPECT_EQ(StepMultiplyAdds(graph, backbone, true), 3 * head);
  const int64_t first = vgg.layers[0].multiply_adds;
  EXPECT_EQ(StepMultiplyAdds(graph, FrozenOperations(graph, "1 layers"), false),
            3 * (trunk + head) - 2 * first);
}

TEST(DescribeTest, RowsTellKindShapeAndCost) {
  const ModelDescription resnet = Of("resnet18", 224);
  const LayerDescription& stem = resnet.layers[0];
  EXPECT_EQ(stem.name, "conv1");
  EXPECT_EQ(stem.kind, "convolution 7x7 / 2");
  EXPECT_EQ(stem.output.channels, 64);
  EXPECT_EQ(stem.output.height, 112);
  EXPECT_EQ(stem.parameters, 9408);
  EXPECT_EQ(stem.multiply_adds, 9408 * 112 * 112);
  EXPECT_EQ(resnet.layers[1].kind, "batch norm, relu");
  EXPECT_EQ(resnet.layers[2].kind, "max pool 3x3 / 2");
  EXPECT_EQ(Of("mobilenet_v2", 224).layers[2].kind, "convolution 3x3, 32 groups");
}

TEST(DescribeTest, TextAndJsonSayTheSame) {
  const ModelDescription resnet = Of("resnet50", 224);
  const std::string text = ToText(resnet);
  EXPECT_THAT(text, HasSubstr("25,557,032"));
  EXPECT_THAT(text, HasSubstr("8.18 G"));
  EXPECT_THAT(text, HasSubstr("2048 features"));
  const nlohmann::json json = nlohmann::json::parse(ToJson(resnet));
  EXPECT_EQ(json["totals"]["all"]["parameters"], 25'557'032);
  EXPECT_EQ(json["totals"]["all"]["flops"], 2 * resnet.total.multiply_adds);
  EXPECT_EQ(json["layers"].size(), resnet.layers.size());
  EXPECT_EQ(json["layers"][0]["output"], nlohmann::json({64, 112, 112}));
}

}  // namespace
}  // namespace lockstep::trainer
