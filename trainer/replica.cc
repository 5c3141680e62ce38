#include "trainer/replica.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <c10/util/Exception.h>

#include <cstring>
#include <sstream>
#include <stdexcept>
#include <string>

namespace lockstep::trainer {

namespace {

// "name dtype [sizes]", a line each: what every rank must have alike.
std::string Layout(const NamedTensors& tensors) {
  std::ostringstream text;
  for (const NamedTensor& t : tensors) {
    text << t.name << ' ' << t.tensor.dtype().name() << ' ' << t.tensor.sizes() << '\n';
  }
  return text.str();
}

void CheckSameLayout(const std::string& mine, Communicator& communicator) {
  at::Tensor length = at::empty({1}, at::kLong);
  length.data_ptr<int64_t>()[0] = static_cast<int64_t>(mine.size());
  communicator.Broadcast(length, 0);
  at::Tensor text = at::empty({length.data_ptr<int64_t>()[0]}, at::kByte);
  if (communicator.rank() == 0) std::memcpy(text.data_ptr(), mine.data(), mine.size());
  communicator.Broadcast(text, 0);
  const std::string first(static_cast<const char*>(text.data_ptr()),
                          static_cast<size_t>(text.numel()));
  if (first == mine) return;
  std::istringstream a(first), b(mine);
  std::string line_a, line_b;
  while (true) {
    const bool more_a = static_cast<bool>(std::getline(a, line_a));
    const bool more_b = static_cast<bool>(std::getline(b, line_b));
    if (line_a != line_b || more_a != more_b) break;
  }
  throw std::runtime_error("rank " + std::to_string(communicator.rank()) +
                           " built another model than rank 0: it has '" + line_b +
                           "' where rank 0 has '" + line_a +
                           "'. All ranks must run the same program with the same run.yaml");
}

}  // namespace

Replica::Replica(const config::RunConfig& config, const InputShape& input, const Device& device,
                 Communicator& communicator)
    : model_(MakeModel(config.model, input, config.seed, &communicator)),
      loss_scale_(config.training.precision, device.torch()) {
  const NamedTensors parameters = model_->Parameters();
  CheckSameLayout(Layout(parameters) + Layout(model_->Buffers()), communicator);
  ArenaOptions options;
  options.overlap = device.is_gpu() && communicator.size() > 1;
  arena_ = std::make_unique<GradientArena>(parameters, model_->Buffers(),
                                           Agreement::VectorSize(communicator.size()), communicator,
                                           options);
  // Drawn on the host, so that a seed means the same weights everywhere. The arena has moved what
  // is float32; the counters follow, or a captured step would leave them behind.
  for (const NamedTensor& buffer : model_->Buffers()) {
    if (!buffer.tensor.is_floating_point()) {
      buffer.tensor.set_data(buffer.tensor.to(device.torch()));
    }
  }
  optimizer_ = std::make_unique<Optimizer>(config.optimizer, *arena_);
}

NamedTensors Replica::Weights() const {
  NamedTensors weights = model_->Parameters();
  for (NamedTensor& buffer : model_->Buffers()) weights.push_back(std::move(buffer));
  return weights;
}

NamedTensors Replica::OptimizerState() const {
  NamedTensors state = optimizer_->State();
  for (NamedTensor& tensor : loss_scale_.State()) state.push_back(std::move(tensor));
  return state;
}

void Replica::Broadcast(Communicator& communicator) {
  at::NoGradGuard no_grad;
  for (const NamedTensors& group : {Weights(), OptimizerState()}) {
    for (const NamedTensor& t : group) {
      const at::Tensor copy = t.tensor.detach().contiguous();
      communicator.Broadcast(copy, 0);
      if (copy.data_ptr() != t.tensor.data_ptr()) t.tensor.copy_(copy);
    }
  }
}

}  // namespace lockstep::trainer
