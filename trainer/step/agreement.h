// How ranks decide anything: one small vector, summed with the gradients of every step, read one
// step late.
//
// Layout (float32): [loss sum, score sum, samples, non-finite, one counter per vote, arrival
// seconds of each rank]. A rank never acts alone: it casts a vote (its own signal, an order from
// the coordinator, a full disk), the vote travels with the next reduce, and every rank sees the
// same sums at the same step. Reading one step late means that no rank ever waits for its device in
// order to decide.
#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <vector>

#include "trainer/comm/communicator.h"
#include "trainer/device/device.h"

namespace lockstep::trainer {

enum class Vote : int { kPause, kHold, kResume, kCheckpoint, kStop, kTimeUp, kDiskFull };
inline constexpr int kVoteCount = 7;

// What all ranks know of one step.
struct StepSummary {
  int64_t step = -1;  // The step these sums are of; -1 = nothing was reduced yet.
  double loss = 0;    // Mean over the global batch.
  double score = 0;   // Sum over the samples (trainer/objective/loss.h says of what).
  double samples = 0;
  bool nonfinite = false;    // The loss or a gradient.
  double gradient_norm = 0;  // L2, before clipping.
  bool votes[kVoteCount] = {};
  std::vector<double> arrival_seconds;  // Per rank: what it told Prepare().
  int slowest_rank = -1;                // Largest arrival; -1 where all came together.

  bool Has(Vote vote) const { return votes[static_cast<int>(vote)]; }
};

// What the arena's reduction gave, on its device. The two scalars, 0-dim float32, may be missing.
struct Reduced {
  at::Tensor vector;             // float32 [VectorSize]
  at::Tensor found_nonfinite{};  // A gradient can be NaN where every loss is finite.
  at::Tensor gradient_norm{};
};

class Agreement {
 public:
  /// Both must outlive this.
  Agreement(Communicator& communicator, Device& device);

  static int64_t VectorSize(int world_size);

  /// From any thread or signal-safe context: kept until the next Prepare().
  void Cast(Vote vote) noexcept;

  /// The host's part of a step, before its kernels: this rank's votes, its samples, and how long it
  /// took to get from the end of one reduce to the next (of an earlier step, the newest known;
  /// below 0: not known, and the summary tells all ranks as equal).
  void Prepare(int64_t samples, double arrival_seconds);

  /// The device's part: writes what Prepare() said and this rank's sums (0-dim, over its samples)
  /// into `vector` (float32 [VectorSize]). Waits for nothing, so a graph may hold it.
  void Fill(const at::Tensor& vector, const at::Tensor& loss_sum, const at::Tensor& score_sum);

  /// Takes what was reduced in `step` away (a copy that does not wait) and returns the summary of
  /// the step before it, for which it may wait.
  StepSummary Exchange(const Reduced& reduced, int64_t step);

  /// Waits for the newest copy and returns its summary; the next Exchange() then returns step -1.
  /// For evaluation, checkpoint and the end.
  StepSummary Drain();

  /// Sums the votes alone, right now: for the times when no step is being made. Collective. The
  /// summary's step is 0.
  StepSummary VoteNow();

 private:
  // Alternating, so that one is still being copied to or from the device while the host uses the
  // other.
  struct Turn {
    at::Tensor mine;   // Host: this rank's part.
    at::Tensor all;    // Host: the reduced vector with the two scalars behind it.
    EventHandle read;  // `all` is there.
  };
  void WriteMine(const at::Tensor& mine, int64_t samples, double arrival_seconds);
  StepSummary Decode(const at::Tensor& all, int64_t step) const;

  Communicator& communicator_;
  Device& device_;
  std::atomic<uint32_t> pending_{0};
  std::array<Turn, 2> turns_;
  size_t prepared_ = 0;  // Index of the turn that Prepare() used last.
  size_t newest_ = 0;    // Index of the turn that Exchange() used last.
  int64_t newest_step_ = -1;
  at::Tensor incoming_;  // Device: what Prepare() said.
};

}  // namespace lockstep::trainer
