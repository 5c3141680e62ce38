// How ranks decide anything: one small vector, summed with the gradients of every step, read one
// step late.
//
// Layout (float32): [loss sum, correct, samples, non-finite, one counter per vote, arrival seconds
// of each rank]. A rank never acts alone: it casts a vote (its own signal, an order from the
// coordinator, a full disk), the vote travels with the next reduce, and every rank sees the same
// sums at the same step. Reading one step late means that no rank ever waits for its device in
// order to decide.
#pragma once

#include <ATen/core/Tensor.h>

#include <atomic>
#include <cstdint>
#include <vector>

namespace lockstep::trainer {

enum class Vote : int { kPause, kHold, kResume, kCheckpoint, kStop, kTimeUp, kDiskFull };
inline constexpr int kVoteCount = 7;

// What all ranks know of one step.
struct StepSummary {
  int64_t step = -1;   // The step these sums are of; -1 = nothing was reduced yet.
  double loss = 0;     // Mean over the global batch.
  double correct = 0;  // Samples whose top-1 prediction was right.
  double samples = 0;
  bool nonfinite = false;
  bool votes[kVoteCount] = {};
  std::vector<double>
      arrival_seconds;   // Per rank: time from the end of the last reduce to entering this one.
  int slowest_rank = 0;  // Largest arrival.

  bool Has(Vote vote) const { return votes[static_cast<int>(vote)]; }
};

class Agreement {
 public:
  explicit Agreement(int world_size, int rank);

  static int64_t VectorSize(int world_size);

  /// From any thread or signal-safe context: kept until the next Fill().
  void Cast(Vote vote) noexcept;

  /// Writes this rank's part into `vector` (float32 [VectorSize], device of the arena). `loss_sum`
  /// and `correct` are 0-dim tensors on that device, so no sync is needed. loss_sum is over this
  /// rank's samples.
  void Fill(const at::Tensor& vector, const at::Tensor& loss_sum, const at::Tensor& correct,
            int64_t samples, double arrival_seconds);

  /// Takes the reduced vector of `step` away (a copy that does not wait) and returns the summary of
  /// the step before it. `found_nonfinite` (0-dim, e.g. the arena's; the same on all ranks) is
  /// added to that step's non-finite count: a gradient can be NaN where every loss is finite.
  StepSummary Exchange(const at::Tensor& reduced_vector, int64_t step,
                       const at::Tensor& found_nonfinite = {});

  /// Waits for the newest copy and returns its summary; the next Exchange() then returns step -1.
  /// For evaluation, checkpoint and the end.
  StepSummary Drain();

 private:
  StepSummary Decode(const at::Tensor& vector, int64_t step) const;
  int world_size_;
  int rank_;
  std::atomic<uint32_t> pending_{0};
  at::Tensor newest_;
  int64_t newest_step_ = -1;
};

}  // namespace lockstep::trainer
