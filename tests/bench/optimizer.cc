// R2: one optimizer step over the parameters of ResNet-18 (11.2 million). Ours over the arena,
// torch::optim over separate tensors, and the bound: moving five floats a parameter (SGD with
// momentum reads parameter, gradient and momentum and writes the first and the last back).
//
//   bench-optimizer --optimizer sgd|adam|adamw [--threads 1] [--rounds 7] [--steps 10]
#include <torch/optim/adam.h>
#include <torch/optim/adamw.h>
#include <torch/optim/sgd.h>
// After torch: its logging macros are not to replace these.
#include <ATen/Parallel.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "tests/bench/measure.h"
#include "trainer/comm/threads.h"
#include "trainer/models/model.h"
#include "trainer/step/gradient_arena.h"
#include "trainer/step/optimizer.h"

namespace lockstep::bench {
namespace {

struct Options {
  std::string optimizer = "sgd";
  int threads = 1;
  int rounds = 7;
  int steps = 10;
};

config::OptimizerConfig ConfigOf(const Options& options) {
  config::OptimizerConfig config;
  config.learning_rate = 1e-3;
  if (options.optimizer == "adam") config.kind = config::OptimizerKind::kAdam;
  if (options.optimizer == "adamw") config.kind = config::OptimizerKind::kAdamW;
  return config;
}

std::unique_ptr<torch::optim::Optimizer> TorchOptimizer(const Options& options,
                                                        const std::vector<at::Tensor>& parameters) {
  if (options.optimizer == "adam") {
    return std::make_unique<torch::optim::Adam>(parameters, torch::optim::AdamOptions(1e-3));
  }
  if (options.optimizer == "adamw") {
    return std::make_unique<torch::optim::AdamW>(parameters,
                                                 torch::optim::AdamWOptions(1e-3).weight_decay(0));
  }
  return std::make_unique<torch::optim::SGD>(parameters,
                                             torch::optim::SGDOptions(1e-3).momentum(0.9));
}

// Separate tensors of the same shapes and layout, with gradients, as a model outside Lockstep has.
std::vector<at::Tensor> SeparateCopies(const trainer::NamedTensors& parameters) {
  std::vector<at::Tensor> copies;
  for (const trainer::NamedTensor& parameter : parameters) {
    at::Tensor copy = parameter.tensor.detach().clone();
    copy.set_requires_grad(true);
    copy.mutable_grad() = at::full_like(copy, 1e-4);
    copies.push_back(copy);
  }
  return copies;
}

class FiveFloats {
 public:
  explicit FiveFloats(int64_t elements)
      : parameter_(at::zeros({elements})),
        gradient_(at::zeros({elements})),
        momentum_(at::zeros({elements})) {}

  void Move() {
    float* __restrict p = parameter_.mutable_data_ptr<float>();
    const float* __restrict g = gradient_.const_data_ptr<float>();
    float* __restrict m = momentum_.mutable_data_ptr<float>();
    at::parallel_for(0, parameter_.numel(), 1 << 15, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        m[i] = m[i] + g[i];
        p[i] = p[i] + m[i];
      }
    });
  }

 private:
  at::Tensor parameter_, gradient_, momentum_;
};

int Run(const Options& options) {
  at::set_num_threads(options.threads);
  config::ModelConfig model_config;
  model_config.name = "resnet18";
  model_config.num_classes = 10;
  const auto model = trainer::MakeModel(model_config, {}, 1);
  const std::vector<at::Tensor> separate = SeparateCopies(model->Parameters());
  const auto communicators = trainer::MakeThreadCommunicators(1);
  trainer::GradientArena arena(model->Parameters(), {}, 8, *communicators[0]);
  arena.gradients().fill_(1e-4);
  trainer::Optimizer mine(ConfigOf(options), arena);
  const at::Tensor learning_rate = at::full({}, 1e-3);
  const at::Tensor found = at::zeros({});
  const auto theirs = TorchOptimizer(options, separate);
  FiveFloats floats(arena.parameters().numel());

  const auto ours = [&] { mine.Step(learning_rate, found); };
  const auto torch = [&] { theirs->step(); };
  const auto bound = [&] { floats.Move(); };
  for (int i = 0; i < 2; ++i) {
    ours();
    torch();
    bound();
  }
  Samples samples;
  for (int round = 0; round < options.rounds; ++round) {
    samples["ours"].push_back(MedianOf(options.steps, ours));
    samples["torch"].push_back(MedianOf(options.steps, torch));
    if (options.optimizer == "sgd") samples["bound"].push_back(MedianOf(options.steps, bound));
  }
  std::vector<std::vector<int64_t>> shapes;
  for (const at::Tensor& tensor : separate) shapes.push_back(tensor.sizes().vec());
  const nlohmann::json out = {{"samples", samples},
                              {"threads", options.threads},
                              {"optimizer", options.optimizer},
                              {"parameters", arena.parameters().numel()},
                              {"shapes", shapes}};
  std::printf("%s\n", out.dump().c_str());
  return 0;
}

}  // namespace
}  // namespace lockstep::bench

int main(int argc, char** argv) {
  lockstep::bench::Options options;
  CLI::App app{"R2: one optimizer step over ResNet-18's parameters"};
  app.add_option("--optimizer", options.optimizer)->check(CLI::IsMember({"sgd", "adam", "adamw"}));
  app.add_option("--threads", options.threads);
  app.add_option("--rounds", options.rounds);
  app.add_option("--steps", options.steps);
  CLI11_PARSE(app, argc, argv);
  return lockstep::bench::Run(options);
}
