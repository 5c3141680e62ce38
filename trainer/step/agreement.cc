#include "trainer/step/agreement.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/isfinite.h>

#include <algorithm>
#include <cmath>

namespace lockstep::trainer {
namespace {

// Places in the vector.
constexpr int kLoss = 0;
constexpr int kCorrect = 1;
constexpr int kSamples = 2;
constexpr int kNonfinite = 3;
constexpr int kVotes = 4;
constexpr int kArrivals = kVotes + kVoteCount;

}  // namespace

Agreement::Agreement(int world_size, int rank) : world_size_(world_size), rank_(rank) {
  // fetch_or in a signal handler is only allowed when it takes no lock.
  static_assert(std::atomic<uint32_t>::is_always_lock_free);
  static_assert(kVoteCount <= 32);
}

int64_t Agreement::VectorSize(int world_size) {
  return kArrivals + world_size;
}

void Agreement::Cast(Vote vote) noexcept {
  pending_.fetch_or(1u << static_cast<int>(vote));
}

void Agreement::Fill(const at::Tensor& vector, const at::Tensor& loss_sum,
                     const at::Tensor& correct, int64_t samples, double arrival_seconds) {
  const at::NoGradGuard no_grad;  // A loss that still carries its graph is welcome.
  const uint32_t votes = pending_.exchange(0);
  at::Tensor mine = at::empty({VectorSize(world_size_)}, at::kFloat);
  auto* values = mine.mutable_data_ptr<float>();
  std::fill_n(values, mine.numel(), 0.0f);
  values[kSamples] = static_cast<float>(samples);
  for (int i = 0; i < kVoteCount; ++i) values[kVotes + i] = static_cast<float>(votes >> i & 1u);
  values[kArrivals + rank_] = static_cast<float>(arrival_seconds);
  vector.copy_(mine);
  // These three may still be under way on the device.
  vector.select(0, kLoss).copy_(loss_sum);
  vector.select(0, kCorrect).copy_(correct);
  vector.select(0, kNonfinite).copy_(at::isfinite(loss_sum).logical_not());
}

StepSummary Agreement::Exchange(const at::Tensor& reduced_vector, int64_t step,
                                const at::Tensor& found_nonfinite) {
  StepSummary previous = newest_step_ < 0 ? StepSummary{} : Decode(newest_, newest_step_);
  // The arena's vector is filled anew in the next step, so this is a copy in every case.
  at::Tensor copy = reduced_vector.clone();
  if (found_nonfinite.defined()) copy.select(0, kNonfinite).add_(found_nonfinite);
  newest_ = copy.to(at::kCPU, at::kFloat, /*non_blocking=*/true);
  newest_step_ = step;
  return previous;
}

StepSummary Agreement::Drain() {
  StepSummary summary = newest_step_ < 0 ? StepSummary{} : Decode(newest_, newest_step_);
  newest_step_ = -1;
  return summary;
}

StepSummary Agreement::Decode(const at::Tensor& vector, int64_t step) const {
  const auto* values = vector.const_data_ptr<float>();
  StepSummary summary;
  summary.step = step;
  summary.samples = values[kSamples];
  summary.loss = summary.samples > 0 ? values[kLoss] / summary.samples : 0.0;
  summary.correct = values[kCorrect];
  // Not `> 0`: a sum that is itself NaN must count.
  summary.nonfinite = !(values[kNonfinite] == 0.0f) || !std::isfinite(values[kLoss]);
  for (int i = 0; i < kVoteCount; ++i) summary.votes[i] = values[kVotes + i] > 0.0f;
  summary.arrival_seconds.assign(values + kArrivals, values + kArrivals + world_size_);
  const auto slowest =
      std::max_element(summary.arrival_seconds.begin(), summary.arrival_seconds.end());
  summary.slowest_rank = static_cast<int>(slowest - summary.arrival_seconds.begin());
  return summary;
}

}  // namespace lockstep::trainer
