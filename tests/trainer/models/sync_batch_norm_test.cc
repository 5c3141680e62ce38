// N ranks on shards are one rank on the whole batch: forward, gradients, running statistics.
#include "trainer/models/sync_batch_norm.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/autocast_mode.h>
#include <ATen/ops/batch_norm.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/trainer/comm/run_ranks.h"
#include "trainer/models/model.h"

namespace lockstep::trainer {
namespace {

constexpr double kTolerance = 1e-5;

// From a generator of its own: the default one is shared by the threads that are ranks here.
at::Tensor Random(at::IntArrayRef sizes, uint64_t seed) {
  return at::randn(sizes, at::make_generator<at::CPUGeneratorImpl>(seed));
}

double Difference(const at::Tensor& a, const at::Tensor& b) {
  if (a.sizes() != b.sizes()) return 1e9;
  if (a.numel() == 0) return 0;
  return a.detach().to(at::kDouble).sub(b.detach().to(at::kDouble)).abs().max().item().toDouble();
}

// One layer's tensors, and what came out of it.
struct Layer {
  explicit Layer(int64_t channels)
      : weight(Random({channels}, 1).add_(1.5)),
        bias(Random({channels}, 2)),
        running_mean(Random({channels}, 3)),
        running_var(Random({channels}, 4).abs_().add_(0.1)) {
    weight.set_requires_grad(true);
    bias.set_requires_grad(true);
  }
  at::Tensor weight, bias, running_mean, running_var;
  at::Tensor output, input_gradient;

  // The loss is sum(output x cotangent).
  template <typename Norm>
  void Run(const at::Tensor& input, const at::Tensor& cotangent, const Norm& norm) {
    const at::Tensor leaf = input.detach().clone().set_requires_grad(true);
    output = norm(leaf);
    output.to(at::kFloat).mul(cotangent).sum().backward();
    input_gradient = leaf.grad();
  }
};

Layer OnOneRank(const at::Tensor& input, const at::Tensor& cotangent) {
  Layer layer(input.size(1));
  layer.Run(input, cotangent, [&](const at::Tensor& x) {
    return at::batch_norm(x, layer.weight, layer.bias, layer.running_mean, layer.running_var,
                          /*training=*/true, 0.1, 1e-5, /*cudnn_enabled=*/false);
  });
  return layer;
}

// `shares`: samples of each rank.
std::vector<Layer> OnRanks(const at::Tensor& input, const at::Tensor& cotangent,
                           const std::vector<int64_t>& shares) {
  std::vector<Layer> layers;
  std::vector<int64_t> begins;
  int64_t begin = 0;
  for (const int64_t share : shares) {
    layers.emplace_back(input.size(1));
    begins.push_back(begin);
    begin += share;
  }
  EXPECT_EQ(begin, input.size(0));
  RunRanks(static_cast<int>(shares.size()), [&](Communicator& communicator) {
    const auto rank = static_cast<size_t>(communicator.rank());
    Layer& layer = layers[rank];
    layer.Run(input.narrow(0, begins[rank], shares[rank]),
              cotangent.narrow(0, begins[rank], shares[rank]), [&](const at::Tensor& x) {
                return SyncBatchNorm(x, layer.weight, layer.bias, layer.running_mean,
                                     layer.running_var, communicator);
              });
  });
  return layers;
}

at::Tensor Join(const std::vector<Layer>& layers, at::Tensor Layer::*what) {
  std::vector<at::Tensor> parts;
  for (const Layer& layer : layers) parts.push_back(layer.*what);
  return at::cat(parts);
}

at::Tensor AddUp(const std::vector<Layer>& layers, at::Tensor Layer::*what) {
  const at::Tensor sum = at::zeros({layers[0].weight.size(0)});
  for (const Layer& layer : layers) sum.add_((layer.*what).grad());
  return sum;
}

const std::vector<std::vector<int64_t>> kShares = {{12},       {6, 6},     {4, 4, 4}, {7, 5},
                                                   {1, 10, 1}, {12, 0, 0}, {0, 12}};

void ExpectAsOnOneRank(const at::Tensor& input, double tolerance) {
  const at::Tensor cotangent = Random(input.sizes(), 9);
  const Layer whole = OnOneRank(input, cotangent);
  for (const std::vector<int64_t>& shares : kShares) {
    SCOPED_TRACE(std::to_string(shares.size()) + " ranks, the first with " +
                 std::to_string(shares[0]) + " samples");
    const std::vector<Layer> layers = OnRanks(input, cotangent, shares);
    EXPECT_LT(Difference(Join(layers, &Layer::output), whole.output), tolerance);
    EXPECT_LT(Difference(Join(layers, &Layer::input_gradient), whole.input_gradient), tolerance);
    EXPECT_LT(Difference(AddUp(layers, &Layer::weight), whole.weight.grad()), 10 * tolerance);
    EXPECT_LT(Difference(AddUp(layers, &Layer::bias), whole.bias.grad()), 10 * tolerance);
    for (const Layer& layer : layers) {
      EXPECT_LT(Difference(layer.running_mean, whole.running_mean), tolerance);
      EXPECT_LT(Difference(layer.running_var, whole.running_var), tolerance);
      // The same bits on every rank.
      EXPECT_TRUE(at::equal(layer.running_mean, layers[0].running_mean));
      EXPECT_TRUE(at::equal(layer.running_var, layers[0].running_var));
      EXPECT_EQ(layer.output.scalar_type(), input.scalar_type());
      if (layer.output.numel() == 0) continue;
      EXPECT_EQ(layer.output.suggest_memory_format(), input.suggest_memory_format());
    }
  }
}

TEST(SyncBatchNorm, RanksOnShardsAreOneRankOnTheWholeBatch) {
  ExpectAsOnOneRank(Random({12, 5, 4, 3}, 7), kTolerance);
}

TEST(SyncBatchNorm, ChannelsLastStaysChannelsLast) {
  ExpectAsOnOneRank(Random({12, 5, 4, 3}, 7).contiguous(at::MemoryFormat::ChannelsLast),
                    kTolerance);
}

// Sums of squares would lose all digits of the deviation here.
TEST(SyncBatchNorm, AMeanFarAboveTheDeviationLosesNoDigits) {
  const at::Tensor offset = Random({1, 5, 1, 1}, 8).mul_(1000);
  const at::Tensor input = Random({12, 5, 4, 3}, 7).add_(offset);
  // float32 holds about 6e-5 of a value of 1000, whatever the rest does.
  ExpectAsOnOneRank(input, 1e-3);
}

TEST(SyncBatchNorm, RanksWhoseMeansDifferAndWhoHaveASingleValue) {
  at::Tensor input = Random({12, 3, 1, 1}, 5);
  input.narrow(0, 0, 6).add_(3);
  ExpectAsOnOneRank(input, kTolerance);
}

TEST(SyncBatchNorm, UnderAutocastHalfPrecisionComesOut) {
  const at::Tensor input = Random({12, 5, 4, 3}, 7);
  const at::Tensor cotangent = Random(input.sizes(), 9);
  const Layer whole = OnOneRank(input.to(at::kBFloat16).to(at::kFloat), cotangent);
  std::vector<Layer> layers;
  layers.emplace_back(5);
  layers.emplace_back(5);
  RunRanks(2, [&](Communicator& communicator) {
    Layer& layer = layers[static_cast<size_t>(communicator.rank())];
    const int64_t begin = 6 * communicator.rank();
    at::autocast::set_autocast_dtype(at::kCPU, at::kBFloat16);  // Of this thread.
    at::autocast::set_autocast_enabled(at::kCPU, true);
    layer.Run(input.narrow(0, begin, 6), cotangent.narrow(0, begin, 6), [&](const at::Tensor& x) {
      const at::Tensor out = SyncBatchNorm(x.to(at::kBFloat16), layer.weight, layer.bias,
                                           layer.running_mean, layer.running_var, communicator);
      EXPECT_EQ(out.scalar_type(), at::kBFloat16);
      return out;
    });
  });
  // bfloat16 has eight bits: outputs of up to 8 are off by up to 1/64.
  EXPECT_LT(Difference(Join(layers, &Layer::output), whole.output), 0.05);
  EXPECT_LT(Difference(Join(layers, &Layer::input_gradient), whole.input_gradient), 0.05);
  EXPECT_LT(Difference(layers[1].running_mean, whole.running_mean), kTolerance);
  EXPECT_LT(Difference(layers[1].running_var, whole.running_var), kTolerance);
}

config::ModelConfig ModelNamed(const std::string& name) {
  config::ModelConfig config;
  config.name = name;
  config.num_classes = 5;
  config.sync_batch_norm = true;
  config.cnn.blocks = {{.filters = 6, .pool = config::Pool::kMax},
                       {.filters = 8, .kernel = 5, .pool = config::Pool::kAverage}};
  config.cnn.dense = {10};
  return config;
}

struct Trained {
  double loss = 0;
  std::vector<at::Tensor> gradients;
  std::vector<at::Tensor> buffers;
};

Trained Train(Model& model, const at::Tensor& images, const at::Tensor& labels, int64_t whole) {
  model.SetTraining(true);
  const at::Tensor loss =
      at::cross_entropy_loss(model.Forward(images).logits, labels, {}, /*reduction=sum*/ 2)
          .div(static_cast<double>(whole));
  loss.backward();
  Trained trained;
  trained.loss = loss.item().toDouble();
  for (const NamedTensor& parameter : model.Parameters()) {
    trained.gradients.push_back(parameter.tensor.grad());
  }
  for (const NamedTensor& buffer : model.Buffers()) trained.buffers.push_back(buffer.tensor);
  return trained;
}

class WholeModels : public ::testing::TestWithParam<const char*> {};

// A rank whose micro-batch is empty takes part all the same.
TEST_P(WholeModels, TrainOnShardsAsOnTheWholeBatch) {
  const InputShape shape{3, 8, 8};
  const config::ModelConfig config = ModelNamed(GetParam());
  const at::Tensor images = Random({6, 3, 8, 8}, 20).contiguous(at::MemoryFormat::ChannelsLast);
  const at::Tensor labels = at::randint(0, 5, {6}, at::make_generator<at::CPUGeneratorImpl>(21),
                                        at::TensorOptions().dtype(at::kLong));
  const auto alone = MakeModel(config, shape, 3);
  const Trained whole = Train(*alone, images, labels, 6);
  for (const std::vector<int64_t>& shares :
       {std::vector<int64_t>{3, 3}, {2, 2, 2}, {4, 2}, {1, 5}, {6, 0}, {0, 4, 2}}) {
    SCOPED_TRACE(std::to_string(shares.size()) + " ranks, the first with " +
                 std::to_string(shares[0]) + " samples");
    std::vector<Trained> parts(shares.size());
    RunRanks(static_cast<int>(shares.size()), [&](Communicator& communicator) {
      const auto rank = static_cast<size_t>(communicator.rank());
      int64_t begin = 0;
      for (size_t r = 0; r < rank; ++r) begin += shares[r];
      const auto model = MakeModel(config, shape, 3, &communicator);
      parts[rank] = Train(*model, images.narrow(0, begin, shares[rank]),
                          labels.narrow(0, begin, shares[rank]), 6);
    });
    double loss = 0;
    for (const Trained& part : parts) loss += part.loss;
    EXPECT_NEAR(loss, whole.loss, kTolerance);
    for (size_t i = 0; i < whole.gradients.size(); ++i) {
      const at::Tensor sum = at::zeros(whole.gradients[i].sizes());
      for (const Trained& part : parts) {
        if (part.gradients[i].defined()) sum.add_(part.gradients[i]);
      }
      EXPECT_LT(Difference(sum, whole.gradients[i]), 1e-4) << "parameter " << i;
    }
    for (const Trained& part : parts) {
      for (size_t i = 0; i < whole.buffers.size(); ++i) {
        EXPECT_LT(Difference(part.buffers[i], whole.buffers[i]), kTolerance) << "buffer " << i;
      }
    }
  }
}

TEST_P(WholeModels, DifferFromOrdinaryBatchNormOnShards) {
  // The test above would pass vacuously if batch norm did not matter.
  config::ModelConfig config = ModelNamed(GetParam());
  config.sync_batch_norm = false;
  const at::Tensor images = Random({6, 3, 8, 8}, 20);
  const at::Tensor labels = at::zeros({6}, at::kLong);
  const auto alone = MakeModel(config, {3, 8, 8}, 3);
  const Trained whole = Train(*alone, images, labels, 6);
  std::vector<Trained> parts(2);
  RunRanks(2, [&](Communicator& communicator) {
    const int rank = communicator.rank();
    const auto model = MakeModel(config, {3, 8, 8}, 3, &communicator);
    parts[static_cast<size_t>(rank)] =
        Train(*model, images.narrow(0, 3 * rank, 3), labels.narrow(0, 3 * rank, 3), 6);
  });
  EXPECT_GT(Difference(parts[0].gradients[0].add(parts[1].gradients[0]), whole.gradients[0]), 1e-3);
}

INSTANTIATE_TEST_SUITE_P(SyncBatchNorm, WholeModels, ::testing::Values("cnn", "resnet18"));

}  // namespace
}  // namespace lockstep::trainer
