#include "trainer/models/cnn.h"

#include <ATen/ops/adaptive_avg_pool2d.h>
#include <ATen/ops/avg_pool2d.h>
#include <ATen/ops/dropout.h>
#include <ATen/ops/max_pool2d.h>

#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "trainer/models/layers.h"

namespace lockstep::trainer {
namespace {

struct Block {
  Conv2d conv;
  std::optional<BatchNorm2d> norm;
  config::Pool pool = config::Pool::kNone;
  double dropout = 0;
};

// Channels and pixels between two blocks.
struct Extent {
  int channels = 0;
  int64_t height = 0;
  int64_t width = 0;
};

std::string Pixels(const Extent& extent) {
  return absl::StrCat(extent.height, "x", extent.width);
}

// The size after the block; throws when nothing would be left of the picture.
Extent After(const config::ConvBlockConfig& block, int padding, const Extent& in, size_t index) {
  Extent out;
  out.channels = block.filters;
  out.height = (in.height + 2 * padding - block.kernel) / block.stride + 1;
  out.width = (in.width + 2 * padding - block.kernel) / block.stride + 1;
  if (in.height + 2 * padding < block.kernel || in.width + 2 * padding < block.kernel) {
    throw std::invalid_argument(absl::StrCat("model.cnn.blocks[", index, "]: a ", block.kernel, "x",
                                             block.kernel, " kernel with padding ", padding,
                                             " does not fit the ", Pixels(in),
                                             " pixels that are left; use fewer pools or strides, "
                                             "a smaller kernel, or a larger data.image_size."));
  }
  if (block.pool != config::Pool::kNone) {
    if (out.height < 2 || out.width < 2) {
      throw std::invalid_argument(
          absl::StrCat("model.cnn.blocks[", index, "]: a 2x2 pool does not fit the ", Pixels(out),
                       " pixels that are left; use fewer pools or a larger data.image_size."));
    }
    out.height /= 2;
    out.width /= 2;
  }
  return out;
}

class Cnn : public LayeredModel {
 public:
  Cnn(const config::ModelConfig& config, const InputShape& input, uint64_t seed,
      Communicator* communicator)
      : LayeredModel(seed, communicator),
        activation_(config.cnn.activation),
        global_pool_(config.cnn.global_pool),
        dropout_(config.cnn.dropout) {
    const WeightInit init{WeightInit::Kind::kNormalFanIn, ActivationGain(activation_)};
    Extent extent{input.channels, input.height, input.width};
    for (size_t i = 0; i < config.cnn.blocks.size(); ++i) {
      extent = AddBlock(config.cnn.blocks[i], extent, i, init);
    }
    int64_t features = extent.channels;
    if (!global_pool_) features *= extent.height * extent.width;
    for (size_t i = 0; i < config.cnn.dense.size(); ++i) {
      dense_.push_back(
          tensors_.AddLinear(absl::StrCat("dense.", i), {features, config.cnn.dense[i]}, init));
      features = config.cnn.dense[i];
    }
    classifier_ = tensors_.AddLinear("classifier", {features, config.num_classes},
                                     {.kind = WeightInit::Kind::kUniformLinear});
  }

  at::Tensor Forward(const at::Tensor& images) override {
    at::Tensor x = images;
    for (const Block& block : blocks_) {
      x = block.conv(x);
      if (block.norm) x = (*block.norm)(x, training_);
      x = Activate(activation_, x);
      if (block.pool == config::Pool::kMax) x = at::max_pool2d(x, 2, 2);
      if (block.pool == config::Pool::kAverage) x = at::avg_pool2d(x, 2, 2);
      if (training_ && block.dropout > 0) x = at::dropout(x, block.dropout, true);
    }
    if (global_pool_) x = at::adaptive_avg_pool2d(x, {1, 1});
    x = x.flatten(1);
    for (const Linear& layer : dense_) x = Activate(activation_, layer(Drop(x)));
    return classifier_(Drop(x));
  }

 private:
  Extent AddBlock(const config::ConvBlockConfig& config, const Extent& in, size_t index,
                  WeightInit init) {
    const int padding = config.padding < 0 ? config.kernel / 2 : config.padding;
    const Extent out = After(config, padding, in, index);
    const std::string name = absl::StrCat("blocks.", index);
    Block block;
    block.conv = tensors_.AddConv2d(name + ".conv",
                                    {.in = in.channels,
                                     .out = config.filters,
                                     .kernel = config.kernel,
                                     .stride = config.stride,
                                     .padding = padding,
                                     .bias = !config.batch_norm},
                                    init);
    if (config.batch_norm) block.norm = tensors_.AddBatchNorm2d(name + ".norm", config.filters);
    block.pool = config.pool;
    block.dropout = config.dropout;
    blocks_.push_back(std::move(block));
    return out;
  }

  at::Tensor Drop(const at::Tensor& x) const {
    return training_ && dropout_ > 0 ? at::dropout(x, dropout_, true) : x;
  }

  config::Activation activation_;
  bool global_pool_;
  double dropout_;
  std::vector<Block> blocks_;
  std::vector<Linear> dense_;
  Linear classifier_;
};

}  // namespace

std::unique_ptr<Model> MakeCnn(const config::ModelConfig& config, const InputShape& input,
                               uint64_t seed, Communicator* communicator) {
  return std::make_unique<Cnn>(config, input, seed, communicator);
}

}  // namespace lockstep::trainer
