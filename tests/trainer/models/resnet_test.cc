// ResNet against the published facts: torchvision's names, shapes and first values.
#include "trainer/models/model.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/ones.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

namespace lockstep::trainer {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr InputShape kLarge{3, 224, 224};
constexpr InputShape kSmall{3, 32, 32};

config::ModelConfig Config(int num_classes, const std::string& stem = "auto") {
  config::ModelConfig config;
  config.name = "resnet18";
  config.num_classes = num_classes;
  config.stem = stem;
  return config;
}

TEST(ResNetTest, NamesAndShapesAreTorchvisions) {
  const auto model = MakeModel(Config(1000), kLarge, 1);
  std::map<std::string, std::vector<int64_t>> shapes;
  for (const NamedTensors& tensors : {model->Parameters(), model->Buffers()}) {
    for (const NamedTensor& tensor : tensors) shapes[tensor.name] = tensor.tensor.sizes().vec();
  }
  EXPECT_EQ(model->Parameters().size(), 62u);
  EXPECT_EQ(model->Buffers().size(), 60u);  // Twenty batch norms, three each.
  EXPECT_EQ(shapes.size(), 122u);
  EXPECT_THAT(shapes["conv1.weight"], ElementsAre(64, 3, 7, 7));
  EXPECT_THAT(shapes["bn1.running_var"], ElementsAre(64));
  EXPECT_THAT(shapes["layer1.0.conv1.weight"], ElementsAre(64, 64, 3, 3));
  EXPECT_THAT(shapes["layer2.0.conv1.weight"], ElementsAre(128, 64, 3, 3));
  EXPECT_THAT(shapes["layer2.0.downsample.0.weight"], ElementsAre(128, 64, 1, 1));
  EXPECT_THAT(shapes["layer2.0.downsample.1.bias"], ElementsAre(128));
  EXPECT_THAT(shapes["layer3.1.bn2.weight"], ElementsAre(256));
  EXPECT_THAT(shapes["layer4.0.downsample.1.num_batches_tracked"], ElementsAre());
  EXPECT_THAT(shapes["layer4.1.conv2.weight"], ElementsAre(512, 512, 3, 3));
  EXPECT_THAT(shapes["fc.weight"], ElementsAre(1000, 512));
  EXPECT_THAT(shapes["fc.bias"], ElementsAre(1000));
  EXPECT_EQ(shapes.count("layer1.0.downsample.0.weight"), 0u);
  EXPECT_EQ(shapes.count("conv1.bias"), 0u);
}

TEST(ResNetTest, TheStemFollowsTheConfigOrTheImageSize) {
  const auto kernel = [](const config::ModelConfig& config, const InputShape& input) {
    return MakeModel(config, input, 1)->Parameters()[0].tensor.size(2);
  };
  EXPECT_EQ(kernel(Config(10), kSmall), 3);
  EXPECT_EQ(kernel(Config(10), {3, 64, 64}), 3);
  EXPECT_EQ(kernel(Config(10), {3, 65, 64}), 7);
  EXPECT_EQ(kernel(Config(10, "imagenet"), kSmall), 7);
  EXPECT_EQ(kernel(Config(10, "cifar"), kLarge), 3);
}

TEST(ResNetTest, LogitsHaveOneColumnPerClass) {
  const auto small = MakeModel(Config(7), kSmall, 1);
  EXPECT_THAT(small->Forward(at::ones({2, 3, 32, 32})).logits.sizes(), ElementsAre(2, 7));
  const auto large = MakeModel(Config(5), {3, 96, 80}, 1);
  EXPECT_THAT(large->Forward(at::ones({2, 3, 96, 80})).logits.sizes(), ElementsAre(2, 5));
}

TEST(ResNetTest, ConvolutionsStartAsHeNormalOverFanOut) {
  for (const NamedTensor& parameter : MakeModel(Config(10), kSmall, 3)->Parameters()) {
    if (parameter.tensor.dim() != 4) continue;
    const at::Tensor& weight = parameter.tensor;
    const double expected = std::sqrt(2.0 / static_cast<double>(weight.numel() / weight.size(1)));
    // The standard deviation of n normal values is itself known to 1 / sqrt(2 n).
    const double tolerance = 5.0 / std::sqrt(2.0 * static_cast<double>(weight.numel()));
    EXPECT_NEAR(weight.std().item<double>() / expected, 1.0, tolerance) << parameter.name;
  }
}

TEST(ResNetTest, ChannelsLastInputAndWeightsGiveTheSameLogits) {
  const auto model = MakeModel(Config(10), kSmall, 3);
  model->SetTraining(false);
  const at::Tensor images = at::ones({2, 3, 32, 32}).cumsum(3).mul(0.1).sin();
  const at::Tensor plain = model->Forward(images).logits;
  for (const NamedTensor& parameter : model->Parameters()) {
    at::Tensor tensor = parameter.tensor;
    if (tensor.dim() == 4) {
      tensor.set_data(tensor.detach().contiguous(at::MemoryFormat::ChannelsLast));
    }
  }
  const at::Tensor last = model->Forward(images.contiguous(at::MemoryFormat::ChannelsLast)).logits;
  EXPECT_TRUE(plain.allclose(last, 1e-3, 1e-4));
}

TEST(ResNetTest, RefusesPicturesSmallerThanItsStrides) {
  const auto refusal = [](const config::ModelConfig& config, const InputShape& input) {
    try {
      MakeModel(config, input, 1);
    } catch (const std::invalid_argument& error) {
      return std::string(error.what());
    }
    return std::string("accepted");
  };
  EXPECT_EQ(refusal(Config(10), {3, 8, 8}), "accepted");
  EXPECT_THAT(refusal(Config(10), {3, 7, 8}), AllOf(HasSubstr("8x8"), HasSubstr("7x8")));
  EXPECT_THAT(refusal(Config(10, "imagenet"), {3, 31, 31}),
              AllOf(HasSubstr("32x32"), HasSubstr("model.stem: cifar")));
  EXPECT_THAT(refusal(Config(10, "vgg"), kSmall), HasSubstr("unknown stem 'vgg'"));
}

TEST(ResNetTest, TrainingOnASingleValuePerChannelIsRefusedInsteadOfGivingNan) {
  const auto model = MakeModel(Config(10), {3, 8, 8}, 1);
  EXPECT_THROW(model->Forward(at::ones({1, 3, 8, 8})), std::invalid_argument);
  model->SetTraining(false);
  EXPECT_TRUE(model->Forward(at::ones({1, 3, 8, 8})).logits.isfinite().all().item<bool>());
}

}  // namespace
}  // namespace lockstep::trainer
