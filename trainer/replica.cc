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

// The operation that a tensor belongs to: "layer1.0.conv1" of "layer1.0.conv1.weight".
std::string OperationOf(const std::string& tensor) {
  return tensor.substr(0, tensor.rfind('.'));
}

at::Tensor Placed(const at::Tensor& tensor, at::Device device) {
  const at::Tensor there = tensor.detach().to(device);
  return there.dim() == 4 ? there.contiguous(at::MemoryFormat::ChannelsLast) : there;
}

}  // namespace

Replica::Replica(const config::RunConfig& config, const InputShape& input, int frozen,
                 const Device& device, Communicator& communicator)
    : config_(config),
      device_(device.torch()),
      overlap_(device.is_gpu() && communicator.size() > 1),
      communicator_(communicator),
      model_(MakeModel(config.model, input, config.seed, &communicator)),
      loss_scale_(config.training.precision, device.torch()) {
  CheckSameLayout(Layout(model_->Parameters()) + Layout(model_->Buffers()), communicator);
  model_->Freeze(frozen);
  // Drawn on the host, so that a seed means the same weights everywhere. The arena moves what
  // trains; the rest follows, or a captured step would leave it behind.
  const at::NoGradGuard no_grad;
  for (const NamedTensors& tensors : {model_->Parameters(), model_->Buffers()}) {
    for (const NamedTensor& t : tensors) t.tensor.set_data(Placed(t.tensor, device_));
  }
  MakeArena();
}

std::unordered_set<std::string> Replica::TrunkNames() const {
  const Graph& graph = model_->graph();
  std::unordered_set<std::string> operations;
  for (const int i : Needed(graph, {graph.features})) {
    operations.insert(graph.operations[static_cast<size_t>(i)].name);
  }
  std::unordered_set<std::string> names;
  for (const NamedTensor& parameter : model_->Parameters()) {
    if (operations.contains(OperationOf(parameter.name))) names.insert(parameter.name);
  }
  return names;
}

void Replica::MakeArena() {
  NamedTensors parameters, buffers;
  std::unordered_set<std::string> frozen;
  for (NamedTensor& parameter : model_->Parameters()) {
    if (parameter.tensor.requires_grad()) {
      parameters.push_back(std::move(parameter));
    } else {
      frozen.insert(OperationOf(parameter.name));
    }
  }
  for (NamedTensor& buffer : model_->Buffers()) {
    if (!frozen.contains(OperationOf(buffer.name))) buffers.push_back(std::move(buffer));
  }
  ArenaOptions options;
  options.overlap = overlap_;
  if (config_.optimizer.backbone_ratio != 1) options.trunk = TrunkNames();
  // The old one goes last: the new one copies out of its memory.
  const std::unique_ptr<GradientArena> old = std::move(arena_);
  arena_ = std::make_unique<GradientArena>(
      parameters, buffers, Agreement::VectorSize(communicator_.size()), communicator_, options);
  optimizer_ = std::make_unique<Optimizer>(config_.optimizer, *arena_);
  if (config_.training.ema_decay > 0) average_ = arena_->parameters().clone();
}

void Replica::Unfreeze() {
  const at::NoGradGuard no_grad;
  const NamedTensors before =
      averages() ? arena_->Views(average_, "") : NamedTensors();  // Keeps the old memory.
  model_->Freeze(0);
  MakeArena();
  if (!averages()) return;
  for (const NamedTensor& now : arena_->Views(average_, "")) {
    for (const NamedTensor& then : before) {
      if (then.name == now.name) now.tensor.copy_(then.tensor);
    }
  }
}

void Replica::Average(const at::Tensor& weight) {
  if (!averages()) return;
  const at::NoGradGuard no_grad;
  average_.lerp_(arena_->parameters(), weight);
}

void Replica::RestartAverage() {
  if (averages()) average_.copy_(arena_->parameters());
}

NamedTensors Replica::Weights() const {
  NamedTensors weights = averages() ? arena_->Views(average_, "") : NamedTensors();
  for (NamedTensor& parameter : model_->Parameters()) {
    if (!averages() || !parameter.tensor.requires_grad()) weights.push_back(std::move(parameter));
  }
  for (NamedTensor& buffer : model_->Buffers()) weights.push_back(std::move(buffer));
  return weights;
}

NamedTensors Replica::OptimizerState() const {
  NamedTensors state = optimizer_->State();
  for (NamedTensor& tensor : loss_scale_.State()) state.push_back(std::move(tensor));
  if (!averages()) return state;
  for (NamedTensor& view : arena_->Views(arena_->parameters(), "raw.")) {
    state.push_back(std::move(view));
  }
  return state;
}

void Replica::Broadcast() {
  at::NoGradGuard no_grad;
  for (const NamedTensors& group : {Weights(), OptimizerState()}) {
    for (const NamedTensor& t : group) {
      const at::Tensor copy = t.tensor.detach().contiguous();
      communicator_.Broadcast(copy, 0);
      if (copy.data_ptr() != t.tensor.data_ptr()) t.tensor.copy_(copy);
    }
  }
}

AveragedWeights::AveragedWeights(Replica& replica) : replica_(replica) {
  if (!replica.averages()) return;
  const at::NoGradGuard no_grad;
  trained_ = replica.arena().parameters().clone();
  replica.arena().parameters().copy_(replica.average_);
}

AveragedWeights::~AveragedWeights() {
  if (!trained_.defined()) return;
  const at::NoGradGuard no_grad;
  replica_.arena().parameters().copy_(trained_);
}

}  // namespace lockstep::trainer
