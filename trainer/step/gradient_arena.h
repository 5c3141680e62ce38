// All parameters in one flat tensor, all gradients in another; each parameter and each `.grad` is a
// view of them.
//
// Hides: order and alignment, buckets, autograd hooks, batch-norm statistics, the step vector's
// place, overlap of the all-reduce with backward. What it buys: an all-reduce without copies, one
// norm for clipping, one optimizer call, one hash per replica.
//
// The reduced region of one step is [ gradients | float buffers | step vector ], in memory the
// communicator allocated. Buckets are slices of it. Gradients are sums, not means: the loss of each
// rank is already divided by the *global* batch, so the sum over ranks and micro-batches is the
// gradient of the mean over the global batch, however the samples are shared out.
//
// Batch-norm statistics (float buffers) travel too: each rank's are weighted by its share of the
// samples, so after every step all replicas hold the same merged statistics: evaluation and
// checkpoints need no merging of their own, and a pause at any step resumes with the same bits.
// When the step is not finite they keep their old values.
//
// Use, once a step: ZeroGradients(); for each micro-batch forward + backward; fill step_vector();
// Reduce(share).
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <unordered_set>
#include <vector>

#include "trainer/comm/communicator.h"
#include "trainer/step/named_tensor.h"

namespace lockstep::trainer {

struct ArenaOptions {
  int64_t first_bucket_bytes = 1 << 20;
  int64_t bucket_bytes = 25 << 20;
  // Send buckets as backward fills them, in the order seen in the first step. Off on CPU, where it
  // hides nothing (PERFORMANCE: one busy core per rank).
  bool overlap = false;
  // Names of parameters that get slices of their own, because their learning rate is another one.
  std::unordered_set<std::string> trunk;
};

// A run of parameters that share one optimizer setting: elements [offset, offset + size) of the
// flat tensors.
struct ArenaSlice {
  int64_t offset = 0;
  int64_t size = 0;
  bool decay = false;  // Weight decay applies (parameters of two dimensions and more).
  bool trunk = false;  // Of the parameters named in ArenaOptions::trunk.
};

class GradientArena {
 public:
  /// Takes over storage of `parameters` (leaf float32 tensors; values are kept) and of the
  /// floating-point ones among `buffers`. Collective. `step_vector_size` floats are appended to the
  /// reduced region.
  GradientArena(const NamedTensors& parameters, const NamedTensors& buffers,
                int64_t step_vector_size, Communicator& communicator, ArenaOptions options = {});
  ~GradientArena();
  GradientArena(const GradientArena&) = delete;
  GradientArena& operator=(const GradientArena&) = delete;

  const at::Tensor& parameters() const;  // [n] float32, padding included (padding is zero).
  const at::Tensor& gradients() const;   // [n] float32.
  const at::Tensor& buffers() const;     // [m] float32, the replicated batch-norm statistics.
  const at::Tensor& step_vector()
      const;  // [step_vector_size] float32; after Reduce() the sum over ranks.

  /// At most four: with and without weight decay, of the trunk or not. They cover every parameter
  /// once.
  const std::vector<ArenaSlice>& slices() const;

  struct Entry {
    std::string name;
    std::vector<int64_t> sizes;
    std::vector<int64_t> strides;
    int64_t offset = 0;
  };
  const std::vector<Entry>& entries() const;  // Parameters, by offset.

  /// A view of `flat` ([n], laid out as parameters(), e.g. optimizer state) per parameter, named
  /// `prefix` + parameter name.
  NamedTensors Views(const at::Tensor& flat, const std::string& prefix) const;

  void ZeroGradients();

  /// Call before the last micro-batch's backward, so that buckets may leave while it runs (overlap
  /// only).
  void BeginLastBackward();

  /// Sums the region over the ranks; what is enqueued afterwards sees the sums. `share` = this
  /// rank's samples / global batch. `inverse_loss_scale` (0-dim float32, may be missing) takes a
  /// loss scale out of the gradients.
  void Reduce(double share, const at::Tensor& inverse_loss_scale = {});

  /// 0-dim float32: 1 when any reduced gradient is not finite, else 0. Valid after Reduce(). No
  /// host sync.
  const at::Tensor& found_nonfinite() const;
  /// 0-dim float32: L2 norm of the reduced gradients. Valid after Reduce().
  const at::Tensor& gradient_norm() const;

  /// Scales gradients so that their norm is at most `max_norm`. No host sync.
  void ClipNorm(double max_norm);

  int64_t reduced_bytes() const;  // Per step.

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace lockstep::trainer
