// A small convolutional net, its made-up data, and one rank's training step as the step loop does
// it.
#pragma once

#include <ATen/CPUGeneratorImpl.h>
#include <torch/nn.h>

#include <memory>
#include <string>

#include "trainer/comm/communicator.h"
#include "trainer/step/agreement.h"
#include "trainer/step/gradient_arena.h"
#include "trainer/step/optimizer.h"

namespace lockstep::trainer {

inline constexpr int64_t kGlobalBatch = 24;

struct SmallNet : torch::nn::Module {
  explicit SmallNet(bool batch_norm) {
    conv1 =
        register_module("conv1", torch::nn::Conv2d(torch::nn::Conv2dOptions(3, 8, 3).padding(1)));
    if (batch_norm) norm = register_module("norm", torch::nn::BatchNorm2d(8));
    conv2 =
        register_module("conv2", torch::nn::Conv2d(torch::nn::Conv2dOptions(8, 12, 3).stride(2)));
    dense = register_module("dense", torch::nn::Linear(12 * 3 * 3, 5));
    // From a generator of its own: torch's default one is shared by the threads that are ranks
    // here.
    auto generator = at::make_generator<at::CPUGeneratorImpl>(7);
    const at::NoGradGuard no_grad;
    for (const at::Tensor& p : parameters()) {
      p.copy_(torch::randn(p.sizes(), generator) * 0.15 + (p.dim() == 1 ? 0.5 : 0.0));
    }
  }

  at::Tensor forward(const at::Tensor& pictures) {
    at::Tensor x = conv1->forward(pictures);
    if (norm) x = norm->forward(x);
    return dense->forward(conv2->forward(x.relu()).relu().flatten(1));
  }

  NamedTensors Parameters() const { return List(named_parameters()); }
  NamedTensors Buffers() const { return List(named_buffers()); }

  torch::nn::Conv2d conv1{nullptr}, conv2{nullptr};
  torch::nn::BatchNorm2d norm{nullptr};
  torch::nn::Linear dense{nullptr};

 private:
  static NamedTensors List(const torch::OrderedDict<std::string, at::Tensor>& items) {
    NamedTensors list;
    for (const auto& item : items) list.push_back({item.key(), item.value()});
    return list;
  }
};

struct SmallBatch {
  at::Tensor pictures;
  at::Tensor labels;
  int64_t size() const { return labels.size(0); }
  SmallBatch Slice(int64_t begin, int64_t end) const {
    return {pictures.slice(0, begin, end), labels.slice(0, begin, end)};
  }
};

// The global batch of a step, from a generator of its own: the same in every thread.
inline SmallBatch BatchOf(int64_t step) {
  auto generator = at::make_generator<at::CPUGeneratorImpl>(1000 + step);
  SmallBatch batch;
  batch.pictures = torch::randn({kGlobalBatch, 3, 8, 8}, generator);
  batch.labels = torch::randint(0, 5, {kGlobalBatch}, generator, torch::kLong);
  return batch;
}

struct ReplicaOptions {
  bool batch_norm = false;
  config::OptimizerConfig optimizer;
  ArenaOptions arena;
  int micro_batches = 1;
  double clip = 0;
};

// One rank: model, arena, optimizer, and a step of them.
class Replica {
 public:
  Replica(Communicator& communicator, const ReplicaOptions& options)
      : communicator_(communicator),
        options_(options),
        net(std::make_shared<SmallNet>(options.batch_norm)),
        arena(net->Parameters(), net->Buffers(), Agreement::VectorSize(communicator.size()),
              communicator, options.arena),
        agreement(communicator, *device),
        optimizer(options.optimizer, arena) {}

  SmallBatch Share(const SmallBatch& global) const {
    const int64_t rank = communicator_.rank();
    const int64_t size = communicator_.size();
    return global.Slice(global.size() * rank / size, global.size() * (rank + 1) / size);
  }

  void Step(int64_t step) { Step(step, Share(BatchOf(step))); }

  void Step(int64_t step, const SmallBatch& mine) {
    const at::Tensor loss = Gradients(mine);
    agreement.Prepare(mine.size(), 0.0);
    agreement.Fill(arena.step_vector(), loss, at::zeros({}));
    arena.Reduce(static_cast<double>(mine.size()) / kGlobalBatch);
    Update();
    last = agreement.Exchange({arena.step_vector(), arena.found_nonfinite(), arena.gradient_norm()},
                              step);
  }

  // Sum of the losses of this rank's samples; gradients are in the arena.
  at::Tensor Gradients(const SmallBatch& mine) {
    arena.ZeroGradients();
    at::Tensor total = at::zeros({});
    const int64_t parts = options_.micro_batches;
    for (int64_t part = 0; part < parts; ++part) {
      const SmallBatch micro =
          mine.Slice(mine.size() * part / parts, mine.size() * (part + 1) / parts);
      const at::Tensor loss = torch::nn::functional::cross_entropy(
          net->forward(micro.pictures), micro.labels,
          torch::nn::functional::CrossEntropyFuncOptions().reduction(torch::kSum));
      if (part + 1 == parts) arena.BeginLastBackward();
      (loss / static_cast<double>(kGlobalBatch)).backward();
      total += loss.detach();
    }
    return total;
  }

  void Update() {
    if (options_.clip > 0) arena.ClipNorm(options_.clip);
    optimizer.Step(at::full({}, options_.optimizer.learning_rate, at::kFloat),
                   arena.found_nonfinite());
  }

 private:
  Communicator& communicator_;
  ReplicaOptions options_;

 public:
  std::shared_ptr<SmallNet> net;
  GradientArena arena;
  std::unique_ptr<Device> device = OpenCpu();
  Agreement agreement;
  Optimizer optimizer;
  StepSummary last;
};

inline double RelativeDifference(const at::Tensor& a, const at::Tensor& b) {
  const at::Tensor reference = b.to(at::kDouble);
  return ((a.to(at::kDouble) - reference).norm() / reference.norm()).item<double>();
}

}  // namespace lockstep::trainer
