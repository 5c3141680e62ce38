#include "trainer/step/gradient_arena.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>
#include <c10/core/ScalarType.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/function_hook.h>
#include <torch/csrc/autograd/variable.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>
#include <stdexcept>
#include <unordered_set>
#include <utility>

namespace lockstep::trainer {
namespace {

constexpr int64_t kAlignment = 16;  // Floats: one cache line, and what vector loads like.

int64_t Align(int64_t elements) {
  return (elements + kAlignment - 1) / kAlignment * kAlignment;
}

// Convolution weights lie channels_last, as the convolutions want them; everything else contiguous.
std::vector<int64_t> StridesFor(at::IntArrayRef sizes) {
  if (sizes.size() == 4) {
    return {sizes[1] * sizes[2] * sizes[3], 1, sizes[3] * sizes[1], sizes[1]};
  }
  std::vector<int64_t> strides(sizes.size(), 1);
  for (int i = static_cast<int>(sizes.size()) - 2; i >= 0; --i) {
    strides[i] = strides[i + 1] * std::max<int64_t>(1, sizes[i + 1]);
  }
  return strides;
}

void RequireUsable(const NamedTensors& parameters) {
  std::unordered_set<const c10::TensorImpl*> seen;
  for (const NamedTensor& parameter : parameters) {
    const at::Tensor& tensor = parameter.tensor;
    const auto refuse = [&](const std::string& why) {
      throw std::invalid_argument("parameter " + parameter.name + ": " + why);
    };
    if (tensor.scalar_type() != at::kFloat) {
      refuse(std::string("expected float32, got ") + c10::toString(tensor.scalar_type()));
    }
    if (!tensor.is_leaf() || !tensor.requires_grad()) refuse("expected a leaf that requires grad");
    if (!seen.insert(tensor.unsafeGetTensorImpl()).second) refuse("given twice");
  }
}

at::Tensor ExactNorm(const at::Tensor& flat) {
  return at::linalg_vector_norm(flat, 2, at::OptionalIntArrayRef{}, /*keepdim=*/false, at::kDouble);
}

// L2 norm as 0-dim float64, not finite exactly when some element is not. ATen's float32 norm sums
// all squares in a few float32 lanes: of 11 million it has three good digits left, and elements
// above 1.8e19 overflow. Its float64 norm is exact enough and twenty times slower on the CPU. So:
// float32 norms of short rows, and the float64 norm of those. Only where that is not finite is it
// worth asking again whether the gradients are.
at::Tensor NormOf(const at::Tensor& flat) {
  constexpr int64_t kRow = 16384;
  if (!flat.is_cpu() || flat.numel() < kRow) return ExactNorm(flat);
  const int64_t whole = flat.numel() / kRow * kRow;
  const at::Tensor rows = at::linalg_vector_norm(flat.narrow(0, 0, whole).view({-1, kRow}), 2, {1});
  const at::Tensor rest = ExactNorm(flat.narrow(0, whole, flat.numel() - whole));
  const at::Tensor norm = ExactNorm(at::cat({rows.to(at::kDouble), rest.view({1})}));
  return std::isfinite(norm.const_data_ptr<double>()[0]) ? norm : ExactNorm(flat);
}

// Calls a function when a parameter's gradient has been added to.
class AccumulatedHook : public torch::autograd::FunctionPostHook {
 public:
  explicit AccumulatedHook(std::function<void()> call) : call_(std::move(call)) {}
  torch::autograd::variable_list operator()(const torch::autograd::variable_list& outputs,
                                            const torch::autograd::variable_list&) override {
    call_();
    return outputs;
  }

 private:
  std::function<void()> call_;
};

}  // namespace

struct GradientArena::Impl {
  // Parameters whose gradients are reduced together.
  struct Bucket {
    int64_t begin = 0;  // Elements of the region.
    int64_t end = 0;
    size_t last_ready = 0;  // Least position, in the caller's order, of its parameters.
    int parameters = 0;
    int waiting = 0;  // Parameters whose gradient is still to come in this backward.
  };
  struct Hook {
    std::shared_ptr<torch::autograd::Node> accumulator;  // Autograd holds it only weakly.
    uintptr_t key = 0;
  };

  Impl(const NamedTensors& named_parameters, const NamedTensors& named_buffers,
       int64_t step_vector_size, Communicator& communicator, ArenaOptions options);
  ~Impl();

  void LayOut(const NamedTensors& named_parameters);
  void TakeOverParameters();
  void TakeOverBuffers(const NamedTensors& named_buffers);
  void MakeBuckets();
  void AddHooks();
  void Accumulated(size_t bucket);
  void SendReady(bool all);
  void LearnOrder();
  void JudgeStep();

  Communicator& communicator;
  ArenaOptions options;
  std::vector<at::Tensor> tensors;  // By entry.
  std::vector<size_t> positions;    // By entry: place in the caller's list.
  std::vector<Entry> entries;
  std::vector<ArenaSlice> slices;
  int64_t elements = 0;  // Of all parameters, padding included.

  at::Tensor region;  // [gradients | buffers | step vector]
  at::Tensor parameters;
  at::Tensor gradients;
  at::Tensor region_buffers;
  at::Tensor step_vector;
  at::Tensor buffers;           // What the modules see.
  at::Tensor previous_buffers;  // As they were before this step.

  at::Tensor norm;   // 0-dim float32.
  at::Tensor found;  // 0-dim float32.

  std::vector<Bucket> buckets;
  std::vector<int64_t> order;   // Buckets as they are sent, which is the same on all ranks.
  std::vector<int64_t> filled;  // Buckets as the first backward filled them; then not kept.
  bool learned = false;
  std::vector<Hook> hooks;
  size_t sent = 0;         // Buckets sent in this step.
  bool rest_sent = false;  // What lies behind the gradients went with the last of them.
  bool last_backward = false;
};

GradientArena::Impl::Impl(const NamedTensors& named_parameters, const NamedTensors& named_buffers,
                          int64_t step_vector_size, Communicator& communicator,
                          ArenaOptions options)
    : communicator(communicator), options(options) {
  const at::NoGradGuard no_grad;
  RequireUsable(named_parameters);
  LayOut(named_parameters);
  int64_t buffer_elements = 0;
  for (const NamedTensor& buffer : named_buffers) {
    if (buffer.tensor.is_floating_point()) buffer_elements += Align(buffer.tensor.numel());
  }
  region = communicator.Allocate(elements + buffer_elements + step_vector_size);
  gradients = region.narrow(0, 0, elements);
  region_buffers = region.narrow(0, elements, buffer_elements);
  step_vector = region.narrow(0, elements + buffer_elements, step_vector_size);
  parameters = at::zeros({elements}, region.options());
  buffers = at::zeros({buffer_elements}, region.options());
  norm = at::zeros({}, region.options());
  found = at::zeros({}, region.options());
  TakeOverParameters();
  TakeOverBuffers(named_buffers);
  previous_buffers = buffers.clone();
  MakeBuckets();
  if (options.overlap) AddHooks();
}

GradientArena::Impl::~Impl() {
  for (const Hook& hook : hooks) hook.accumulator->del_post_hook(hook.key);
}

void GradientArena::Impl::LayOut(const NamedTensors& named_parameters) {
  // Those that decay first, then the trunk's, each group in the caller's order.
  positions.resize(named_parameters.size());
  std::iota(positions.begin(), positions.end(), size_t{0});
  const auto decays = [&](size_t i) { return named_parameters[i].tensor.dim() >= 2; };
  const auto of_trunk = [&](size_t i) { return options.trunk.contains(named_parameters[i].name); };
  std::stable_partition(positions.begin(), positions.end(), of_trunk);
  std::stable_partition(positions.begin(), positions.end(), decays);
  for (const size_t position : positions) {
    const NamedTensor& parameter = named_parameters[position];
    tensors.push_back(parameter.tensor);
    entries.push_back({.name = parameter.name,
                       .sizes = parameter.tensor.sizes().vec(),
                       .strides = StridesFor(parameter.tensor.sizes()),
                       .offset = elements});
    const int64_t size = Align(parameter.tensor.numel());
    const bool decay = decays(position), trunk = of_trunk(position);
    if (slices.empty() || slices.back().decay != decay || slices.back().trunk != trunk) {
      slices.push_back({.offset = elements, .size = 0, .decay = decay, .trunk = trunk});
    }
    slices.back().size += size;
    elements += size;
  }
}

void GradientArena::Impl::TakeOverParameters() {
  for (size_t i = 0; i < entries.size(); ++i) {
    const Entry& entry = entries[i];
    const at::Tensor value = parameters.as_strided(entry.sizes, entry.strides, entry.offset);
    value.copy_(tensors[i]);
    tensors[i].set_data(value);
    tensors[i].mutable_grad() = gradients.as_strided(entry.sizes, entry.strides, entry.offset);
  }
}

void GradientArena::Impl::TakeOverBuffers(const NamedTensors& named_buffers) {
  int64_t offset = 0;
  for (const NamedTensor& buffer : named_buffers) {
    if (!buffer.tensor.is_floating_point()) continue;
    if (buffer.tensor.scalar_type() != at::kFloat) {
      throw std::invalid_argument("buffer " + buffer.name + ": expected float32, got " +
                                  c10::toString(buffer.tensor.scalar_type()));
    }
    const at::Tensor view =
        buffers.as_strided(buffer.tensor.sizes(), StridesFor(buffer.tensor.sizes()), offset);
    view.copy_(buffer.tensor);
    buffer.tensor.set_data(view);
    offset += Align(buffer.tensor.numel());
  }
}

// Walks each slice from its end, since backward fills the last layers first. In the first step
// buckets are sent in the order in which backward is expected to complete them: a bucket is
// complete with the gradient of the parameter that forward used first.
void GradientArena::Impl::MakeBuckets() {
  int64_t limit = options.first_bucket_bytes / int64_t{sizeof(float)};
  size_t next = entries.size();
  for (auto slice = slices.rbegin(); slice != slices.rend(); ++slice) {
    int64_t end = slice->offset + slice->size;
    while (end > slice->offset) {
      Bucket bucket{.begin = end, .end = end, .last_ready = positions.size()};
      do {
        --next;
        bucket.begin = entries[next].offset;
        bucket.last_ready = std::min(bucket.last_ready, positions[next]);
        ++bucket.parameters;
      } while (bucket.begin > slice->offset && bucket.end - bucket.begin < limit);
      end = bucket.begin;
      limit = options.bucket_bytes / int64_t{sizeof(float)};
      buckets.push_back(bucket);
    }
  }
  std::stable_sort(buckets.begin(), buckets.end(),
                   [](const Bucket& a, const Bucket& b) { return a.last_ready > b.last_ready; });
  order.resize(buckets.size());
  std::iota(order.begin(), order.end(), int64_t{0});
}

void GradientArena::Impl::AddHooks() {
  for (size_t b = 0; b < buckets.size(); ++b) {
    for (size_t i = 0; i < entries.size(); ++i) {
      if (entries[i].offset < buckets[b].begin || entries[i].offset >= buckets[b].end) continue;
      Hook hook{.accumulator = torch::autograd::impl::grad_accumulator(tensors[i])};
      hook.key = hook.accumulator->add_post_hook(
          std::make_unique<AccumulatedHook>([this, b] { Accumulated(b); }));
      hooks.push_back(std::move(hook));
    }
  }
}

void GradientArena::Impl::Accumulated(size_t bucket) {
  if (!last_backward) return;
  if (--buckets[bucket].waiting == 0 && !learned) filled.push_back(static_cast<int64_t>(bucket));
  SendReady(/*all=*/false);
}

// A bucket is sent when it and all before it are complete, so that every rank sends them in one
// order. `all` also sends those whose parameters this backward did not reach. What lies behind the
// gradients rides with the last bucket where that ends there, as the one with the norms does:
// backward is over by then, and a sum less is begun.
void GradientArena::Impl::SendReady(bool all) {
  while (sent < order.size()) {
    const Bucket& bucket = buckets[static_cast<size_t>(order[sent])];
    const bool carries_rest = sent + 1 == order.size() && bucket.end == elements;
    if (!all && (bucket.waiting > 0 || carries_rest)) return;
    ++sent;
    const int64_t end = carries_rest ? region.numel() : bucket.end;
    communicator.AllReduce(region.narrow(0, bucket.begin, end - bucket.begin));
    rest_sent = carries_rest;
  }
}

// What rank 0 saw in its first backward is how every rank sends from then on. Buckets that this
// backward did not reach come last.
void GradientArena::Impl::LearnOrder() {
  for (const int64_t bucket : order) {
    if (std::find(filled.begin(), filled.end(), bucket) == filled.end()) filled.push_back(bucket);
  }
  const at::Tensor shared =
      at::from_blob(filled.data(), {static_cast<int64_t>(filled.size())}, at::kLong);
  communicator.Broadcast(shared, 0);
  order = std::exchange(filled, {});
  learned = true;
}

// Norm and verdict from the reduced region, on every rank the same bits.
void GradientArena::Impl::JudgeStep() {
  const at::Tensor exact = NormOf(gradients);
  // A loss that is not finite counts like a gradient that is not, and so do statistics. Sums in
  // float64: finite float32 terms cannot overflow there, a NaN or infinity always shows.
  const at::Tensor rest = region.narrow(0, elements, region.numel() - elements).sum(at::kDouble);
  found.copy_(at::isfinite(exact.add(rest)).logical_not());
  norm.copy_(exact);
  if (buffers.numel() > 0) {
    buffers.copy_(at::where(found.gt(0), previous_buffers, region_buffers));
  }
}

GradientArena::GradientArena(const NamedTensors& parameters, const NamedTensors& buffers,
                             int64_t step_vector_size, Communicator& communicator,
                             ArenaOptions options)
    : impl_(std::make_unique<Impl>(parameters, buffers, step_vector_size, communicator, options)) {}
GradientArena::~GradientArena() = default;

const at::Tensor& GradientArena::parameters() const {
  return impl_->parameters;
}
const at::Tensor& GradientArena::gradients() const {
  return impl_->gradients;
}
const at::Tensor& GradientArena::buffers() const {
  return impl_->buffers;
}
const at::Tensor& GradientArena::step_vector() const {
  return impl_->step_vector;
}
const std::vector<ArenaSlice>& GradientArena::slices() const {
  return impl_->slices;
}
const std::vector<GradientArena::Entry>& GradientArena::entries() const {
  return impl_->entries;
}
const at::Tensor& GradientArena::found_nonfinite() const {
  return impl_->found;
}
const at::Tensor& GradientArena::gradient_norm() const {
  return impl_->norm;
}

int64_t GradientArena::reduced_bytes() const {
  return impl_->region.numel() * int64_t{sizeof(float)};
}

NamedTensors GradientArena::Views(const at::Tensor& flat, const std::string& prefix) const {
  NamedTensors views;
  for (const Entry& entry : impl_->entries) {
    views.push_back({.name = prefix + entry.name,
                     .tensor = flat.as_strided(entry.sizes, entry.strides,
                                               flat.storage_offset() + entry.offset)});
  }
  return views;
}

void GradientArena::ZeroGradients() {
  const at::NoGradGuard no_grad;
  impl_->gradients.zero_();
  // What a step that turns out not to be finite goes back to, also when a checkpoint was read
  // into the buffers since the last one.
  impl_->previous_buffers.copy_(impl_->buffers);
  impl_->sent = 0;
  impl_->rest_sent = false;
  impl_->last_backward = false;
}

void GradientArena::BeginLastBackward() {
  if (!impl_->options.overlap) return;
  for (Impl::Bucket& bucket : impl_->buckets) bucket.waiting = bucket.parameters;
  impl_->last_backward = true;
}

void GradientArena::Reduce(double share, const at::Tensor& inverse_loss_scale) {
  const at::NoGradGuard no_grad;
  Impl& impl = *impl_;
  at::mul_out(impl.region_buffers, impl.buffers, share);
  if (impl.options.overlap) {
    impl.last_backward = false;
    impl.SendReady(/*all=*/true);
    if (!impl.rest_sent) {
      impl.communicator.AllReduce(
          impl.region.narrow(0, impl.elements, impl.region.numel() - impl.elements));
    }
  } else {
    // Nothing to hide it behind: one sum costs fewer barriers than a sum for each bucket.
    impl.communicator.AllReduce(impl.region);
  }
  impl.communicator.Wait();
  if (impl.options.overlap && !impl.learned) impl.LearnOrder();
  if (inverse_loss_scale.defined()) impl.gradients.mul_(inverse_loss_scale);
  impl.JudgeStep();
}

void GradientArena::ClipNorm(double max_norm) {
  const at::NoGradGuard no_grad;
  const at::Tensor coefficient =
      impl_->norm.to(at::kDouble).add(1e-6).reciprocal().mul(max_norm).clamp_max(1.0);
  // On the host the answer is there already, and a pass over all gradients is worth saving.
  if (coefficient.is_cpu() && coefficient.const_data_ptr<double>()[0] == 1.0) return;
  impl_->gradients.mul_(coefficient.to(at::kFloat));
}

}  // namespace lockstep::trainer
