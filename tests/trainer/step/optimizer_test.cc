#include "trainer/step/optimizer.h"

#include <gtest/gtest.h>
#include <torch/optim.h>

#include "tests/trainer/step/small_net.h"
#include "trainer/comm/threads.h"

namespace lockstep::trainer {
namespace {

using config::OptimizerConfig;
using config::OptimizerKind;

struct Case {
  const char* name;
  OptimizerConfig config;
};

// torch::optim's optimizer of the same settings, with a decay group and one without.
std::unique_ptr<torch::optim::Optimizer> Reference(const OptimizerConfig& config,
                                                   const std::vector<at::Tensor>& parameters) {
  std::vector<at::Tensor> decaying;
  std::vector<at::Tensor> rest;
  for (const at::Tensor& p : parameters) (p.dim() >= 2 ? decaying : rest).push_back(p);
  const auto groups = [&](auto options) {
    auto with = std::make_unique<decltype(options)>(options);
    with->weight_decay(config.weight_decay);
    auto without = std::make_unique<decltype(options)>(options);
    without->weight_decay(config.decay_norm_and_bias ? config.weight_decay : 0.0);
    return std::vector<torch::optim::OptimizerParamGroup>{{decaying, std::move(with)},
                                                          {rest, std::move(without)}};
  };
  const double lr = config.learning_rate;
  const auto betas = std::make_tuple(config.beta1, config.beta2);
  switch (config.kind) {
    case OptimizerKind::kSgd: {
      const auto options =
          torch::optim::SGDOptions(lr).momentum(config.momentum).nesterov(config.nesterov);
      return std::make_unique<torch::optim::SGD>(groups(options), options);
    }
    case OptimizerKind::kAdam: {
      const auto options = torch::optim::AdamOptions(lr).betas(betas).eps(config.epsilon);
      return std::make_unique<torch::optim::Adam>(groups(options), options);
    }
    case OptimizerKind::kAdamW: {
      const auto options = torch::optim::AdamWOptions(lr).betas(betas).eps(config.epsilon);
      return std::make_unique<torch::optim::AdamW>(groups(options), options);
    }
  }
  return nullptr;
}

// The same made-up gradient for both; sizes from 1e-3 to 1.
at::Tensor GradientOf(const at::Tensor& like, int64_t step, int64_t index) {
  auto generator = at::make_generator<at::CPUGeneratorImpl>(100 * step + index);
  return torch::randn(like.sizes(), generator) * std::pow(10.0, -static_cast<double>(index % 4));
}

class OptimizerTest : public ::testing::TestWithParam<Case> {
 protected:
  OptimizerTest() : communicator_(std::move(MakeThreadCommunicators(1)[0])) {}

  struct Ours {
    Ours(Communicator& communicator, const OptimizerConfig& config)
        : net(/*batch_norm=*/true),
          arena(net.Parameters(), net.Buffers(), 1, communicator),
          optimizer(config, arena) {}
    SmallNet net;
    GradientArena arena;
    Optimizer optimizer;
  };

  static void Feed(Ours& ours, int64_t step) {
    ours.arena.ZeroGradients();
    int64_t index = 0;
    for (const at::Tensor& p : ours.net.parameters()) p.grad().copy_(GradientOf(p, step, index++));
    ours.arena.Reduce(1.0);
  }

  std::unique_ptr<Communicator> communicator_;
};

TEST_P(OptimizerTest, EqualsTorchOptimOverFiftySteps) {
  const OptimizerConfig& config = GetParam().config;
  Ours ours(*communicator_, config);
  SmallNet theirs(/*batch_norm=*/true);
  const auto reference = Reference(config, theirs.parameters());
  for (int64_t step = 0; step < 50; ++step) {
    // The learning rate moves, as a schedule moves it.
    const double rate = config.learning_rate * (1.0 - 0.01 * static_cast<double>(step));
    Feed(ours, step);
    ours.optimizer.Step(at::full({}, rate, at::kFloat), ours.arena.found_nonfinite());
    int64_t index = 0;
    for (const at::Tensor& p : theirs.parameters()) {
      p.mutable_grad() = GradientOf(p, step, index++);
    }
    for (auto& group : reference->param_groups()) group.options().set_lr(rate);
    reference->step();
  }
  const auto expected = theirs.parameters();
  const auto actual = ours.net.parameters();
  SmallNet start(/*batch_norm=*/true);
  for (size_t i = 0; i < expected.size(); ++i) {
    const std::string& name = theirs.named_parameters()[i].key();
    EXPECT_LE(RelativeDifference(actual[i], expected[i]), 1e-6) << name;
    const double largest = expected[i].abs().max().item<double>();
    EXPECT_LE((actual[i] - expected[i]).abs().max().item<double>(), 2e-6 * largest) << name;
    EXPECT_GT((expected[i] - start.parameters()[i]).abs().max().item<double>(), 1e-4 * largest)
        << name << " hardly moved";
  }
}

TEST_P(OptimizerTest, GoesOnFromItsStateWithTheSameBits) {
  const OptimizerConfig& config = GetParam().config;
  const at::Tensor rate = at::full({}, config.learning_rate, at::kFloat);
  const auto steps = [&](Ours& ours, int64_t begin, int64_t end) {
    for (int64_t step = begin; step < end; ++step) {
      Feed(ours, step);
      ours.optimizer.Step(rate, ours.arena.found_nonfinite());
    }
  };
  Ours whole(*communicator_, config);
  steps(whole, 0, 10);
  Ours resumed(*communicator_, config);
  resumed.arena.parameters().copy_(whole.arena.parameters());
  const NamedTensors saved = whole.optimizer.State();
  const NamedTensors views = resumed.optimizer.State();
  ASSERT_EQ(saved.size(), views.size());
  for (size_t i = 0; i < saved.size(); ++i) {
    EXPECT_EQ(saved[i].name, views[i].name);
    views[i].tensor.copy_(saved[i].tensor);
  }
  steps(whole, 10, 20);
  steps(resumed, 10, 20);
  EXPECT_TRUE(whole.arena.parameters().equal(resumed.arena.parameters()));
  EXPECT_EQ(resumed.optimizer.State().back().tensor.item<float>(), 20.0f);
}

TEST_P(OptimizerTest, TheTrunkLearnsAtItsShareOfTheRate) {
  // With a share of zero-point-one the trunk moves as all of it would at a tenth of the rate.
  OptimizerConfig slow = GetParam().config;
  slow.backbone_ratio = 0.1;
  SmallNet net(/*batch_norm=*/true);
  ArenaOptions options;
  options.trunk = {"conv1.weight", "conv1.bias", "norm.weight"};
  GradientArena arena(net.Parameters(), net.Buffers(), 1, *communicator_, options);
  Optimizer optimizer(slow, arena);
  Ours whole(*communicator_, GetParam().config), tenth(*communicator_, GetParam().config);
  const at::Tensor rate = at::full({}, slow.learning_rate, at::kFloat);
  for (int64_t step = 0; step < 5; ++step) {
    arena.ZeroGradients();
    int64_t index = 0;
    for (const at::Tensor& p : net.parameters()) p.grad().copy_(GradientOf(p, step, index++));
    arena.Reduce(1.0);
    optimizer.Step(rate, arena.found_nonfinite());
    Feed(whole, step);
    whole.optimizer.Step(rate, whole.arena.found_nonfinite());
    Feed(tenth, step);
    tenth.optimizer.Step(rate.mul(0.1), tenth.arena.found_nonfinite());
  }
  EXPECT_EQ(arena.slices().size(), 4u);
  const auto named = net.named_parameters();
  for (size_t i = 0; i < named.size(); ++i) {
    const bool trunk = options.trunk.contains(named[i].key());
    const at::Tensor wanted = (trunk ? tenth : whole).net.parameters()[i];
    EXPECT_TRUE(named[i].value().equal(wanted)) << named[i].key();
  }
}

TEST_P(OptimizerTest, SkippedStepsDoNotCount) {
  const OptimizerConfig& config = GetParam().config;
  const at::Tensor rate = at::full({}, config.learning_rate, at::kFloat);
  Ours with(*communicator_, config);
  Ours without(*communicator_, config);
  for (int64_t step = 0; step < 6; ++step) {
    Feed(with, step);
    with.optimizer.Step(rate, at::full({}, step == 2 ? 1.0 : 0.0, at::kFloat));
    if (step == 2) continue;
    Feed(without, step);
    without.optimizer.Step(rate, at::zeros({}));
  }
  EXPECT_TRUE(with.arena.parameters().equal(without.arena.parameters()));
  EXPECT_EQ(with.optimizer.State().back().tensor.item<float>(), 5.0f);
}

TEST_P(OptimizerTest, PaddingStaysZero) {
  Ours ours(*communicator_, GetParam().config);
  for (int64_t step = 0; step < 5; ++step) {
    Feed(ours, step);
    ours.optimizer.Step(at::full({}, 0.1f), at::zeros({}));
  }
  double named = 0;
  for (const NamedTensor& view : ours.arena.Views(ours.arena.parameters(), "")) {
    named += view.tensor.abs().sum(at::kDouble).item<double>();
  }
  const double all = ours.arena.parameters().abs().sum(at::kDouble).item<double>();
  EXPECT_NEAR(named, all, 1e-9 * all);
}

OptimizerConfig Config(OptimizerKind kind, double rate, double decay) {
  OptimizerConfig config;
  config.kind = kind;
  config.learning_rate = rate;
  config.weight_decay = decay;
  return config;
}

std::vector<Case> Cases() {
  OptimizerConfig plain = Config(OptimizerKind::kSgd, 0.05, 0.0);
  plain.momentum = 0;
  OptimizerConfig nesterov = Config(OptimizerKind::kSgd, 0.05, 1e-2);
  nesterov.nesterov = true;
  OptimizerConfig everywhere = Config(OptimizerKind::kSgd, 0.05, 1e-2);
  everywhere.decay_norm_and_bias = true;
  OptimizerConfig adamw_everywhere = Config(OptimizerKind::kAdamW, 0.003, 0.1);
  adamw_everywhere.decay_norm_and_bias = true;
  return {{"SgdPlain", plain},
          {"SgdMomentum", Config(OptimizerKind::kSgd, 0.05, 1e-2)},
          {"SgdNesterov", nesterov},
          {"SgdDecayEverywhere", everywhere},
          {"Adam", Config(OptimizerKind::kAdam, 0.003, 0.0)},
          {"AdamDecay", Config(OptimizerKind::kAdam, 0.003, 0.1)},
          {"AdamW", Config(OptimizerKind::kAdamW, 0.003, 0.1)},
          {"AdamWDecayEverywhere", adamw_everywhere}};
}

INSTANTIATE_TEST_SUITE_P(Kinds, OptimizerTest, ::testing::ValuesIn(Cases()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace lockstep::trainer
