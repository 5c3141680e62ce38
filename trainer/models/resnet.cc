#include "trainer/models/resnet.h"

#include <ATen/ops/adaptive_avg_pool2d.h>
#include <ATen/ops/max_pool2d.h>
#include <ATen/ops/relu.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "trainer/models/layers.h"

namespace lockstep::trainer {
namespace {

struct ConvNorm {
  Conv2d conv;
  BatchNorm2d norm;
  at::Tensor operator()(const at::Tensor& x, bool training) const {
    return norm(conv(x), training);
  }
};

struct Block {
  std::vector<ConvNorm> convs;
  std::optional<ConvNorm> downsample;  // Where the shortcut changes size or channels.
};

// The stem for small pictures keeps their resolution, as the paper's section 4.2 does for CIFAR-10.
bool UsesCifarStem(const config::ModelConfig& config, const InputShape& input) {
  if (config.stem == "cifar") return true;
  if (config.stem == "imagenet") return false;
  if (config.stem == "auto") return std::max(input.height, input.width) <= 64;
  throw std::invalid_argument(absl::StrCat("model.stem: unknown stem '", config.stem,
                                           "'; expected auto, imagenet or cifar."));
}

class ResNet : public LayeredModel {
 public:
  ResNet(const ResNetDesign& design, const config::ModelConfig& config, const InputShape& input,
         uint64_t seed, Communicator* communicator)
      : LayeredModel(seed, communicator),
        bottleneck_(design.block == ResNetDesign::Block::kBottleneck),
        cifar_stem_(UsesCifarStem(config, input)) {
    // Three stages halve the picture; the stem for large pictures divides it by four before them.
    const int smallest = cifar_stem_ ? 8 : 32;
    if (input.height < smallest || input.width < smallest) {
      throw std::invalid_argument(absl::StrCat(
          "model.name: ", design.name, " with the ", cifar_stem_ ? "cifar" : "imagenet",
          " stem needs pictures of at least ", smallest, "x", smallest, " pixels, not ",
          input.height, "x", input.width, "; use a larger data.image_size",
          cifar_stem_ ? "." : " or model.stem: cifar."));
    }
    stem_ = cifar_stem_ ? AddConvNorm("conv1", "bn1", {input.channels, 64, 3, 1, 1})
                        : AddConvNorm("conv1", "bn1", {input.channels, 64, 7, 2, 3});
    int channels = 64;
    for (int stage = 0; stage < 4; ++stage) {
      for (int i = 0; i < design.blocks[stage]; ++i) {
        const int stride = stage > 0 && i == 0 ? 2 : 1;
        channels =
            AddBlock(absl::StrCat("layer", stage + 1, ".", i), channels, 64 << stage, stride);
      }
    }
    fc_ = tensors_.AddLinear("fc", {channels, config.num_classes},
                             {.kind = WeightInit::Kind::kUniformLinear});
  }

  at::Tensor Forward(const at::Tensor& images) override {
    at::Tensor x = at::relu(stem_(images, training_));
    if (!cifar_stem_) x = at::max_pool2d(x, 3, 2, 1);
    for (const Block& block : blocks_) {
      const at::Tensor shortcut = block.downsample ? (*block.downsample)(x, training_) : x;
      for (size_t i = 0; i + 1 < block.convs.size(); ++i)
        x = at::relu(block.convs[i](x, training_));
      x = at::relu(block.convs.back()(x, training_).add_(shortcut));
    }
    return fc_(at::adaptive_avg_pool2d(x, {1, 1}).flatten(1));
  }

 private:
  ConvNorm AddConvNorm(const std::string& conv_name, const std::string& norm_name,
                       const ConvShape& shape) {
    ConvNorm layer;
    layer.conv =
        tensors_.AddConv2d(conv_name, shape, {WeightInit::Kind::kNormalFanOut, std::sqrt(2.0)});
    layer.norm = tensors_.AddBatchNorm2d(norm_name, shape.out);
    return layer;
  }

  // Returns the channels that leave the block.
  int AddBlock(const std::string& name, int in, int channels, int stride) {
    const int out = bottleneck_ ? 4 * channels : channels;
    const std::vector<ConvShape> shapes =
        bottleneck_
            ? std::vector<ConvShape>{{in, channels, 1, 1, 0},
                                     {channels, channels, 3, stride, 1},
                                     {channels, out, 1, 1, 0}}
            : std::vector<ConvShape>{{in, channels, 3, stride, 1}, {channels, channels, 3, 1, 1}};
    Block block;
    for (size_t i = 0; i < shapes.size(); ++i) {
      block.convs.push_back(AddConvNorm(absl::StrCat(name, ".conv", i + 1),
                                        absl::StrCat(name, ".bn", i + 1), shapes[i]));
    }
    if (stride != 1 || in != out) {
      block.downsample =
          AddConvNorm(name + ".downsample.0", name + ".downsample.1", {in, out, 1, stride, 0});
    }
    blocks_.push_back(std::move(block));
    return out;
  }

  bool bottleneck_;
  bool cifar_stem_;
  ConvNorm stem_;
  std::vector<Block> blocks_;
  Linear fc_;
};

}  // namespace

std::unique_ptr<Model> MakeResNet(const ResNetDesign& design, const config::ModelConfig& config,
                                  const InputShape& input, uint64_t seed,
                                  Communicator* communicator) {
  return std::make_unique<ResNet>(design, config, input, seed, communicator);
}

}  // namespace lockstep::trainer
