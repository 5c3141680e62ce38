#include "trainer/step/agreement.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>

namespace lockstep::trainer {
namespace {

// Places in the vector.
constexpr int kLoss = 0;
constexpr int kScore = 1;
constexpr int kSamples = 2;
constexpr int kNonfinite = 3;
constexpr int kVotes = 4;
constexpr int kArrivals = kVotes + kVoteCount;
// Behind it, in the copy for the host.
constexpr int kScalars = 2;  // Found non-finite, gradient norm.

}  // namespace

Agreement::Agreement(Communicator& communicator, Device& device)
    : communicator_(communicator), device_(device) {
  // fetch_or in a signal handler is only allowed when it takes no lock.
  static_assert(std::atomic<uint32_t>::is_always_lock_free);
  static_assert(kVoteCount <= 32);
  const int64_t size = VectorSize(communicator.size());
  // Pinned, or a copy to or from the device would wait for it.
  const auto host = at::TensorOptions().dtype(at::kFloat).pinned_memory(device.is_gpu());
  for (Turn& turn : turns_) {
    turn = {at::zeros({size}, host), at::zeros({size + kScalars}, host), device.NewEvent()};
  }
  incoming_ = at::zeros({size}, at::TensorOptions().dtype(at::kFloat).device(device.torch()));
}

int64_t Agreement::VectorSize(int world_size) {
  return kArrivals + world_size;
}

void Agreement::Cast(Vote vote) noexcept {
  pending_.fetch_or(1u << static_cast<int>(vote));
}

void Agreement::WriteMine(const at::Tensor& mine, int64_t samples, double arrival_seconds) {
  const uint32_t votes = pending_.exchange(0);
  auto* values = mine.mutable_data_ptr<float>();
  std::fill_n(values, mine.numel(), 0.0f);
  values[kSamples] = static_cast<float>(samples);
  for (int i = 0; i < kVoteCount; ++i) values[kVotes + i] = static_cast<float>(votes >> i & 1u);
  values[kArrivals + communicator_.rank()] = static_cast<float>(arrival_seconds);
}

void Agreement::Prepare(int64_t samples, double arrival_seconds) {
  // The device has read what this turn held two steps ago: Exchange() waited for the step after it.
  prepared_ = 1 - prepared_;
  const at::Tensor& mine = turns_[prepared_].mine;
  WriteMine(mine, samples, arrival_seconds);
  incoming_.copy_(mine, /*non_blocking=*/true);
}

void Agreement::Fill(const at::Tensor& vector, const at::Tensor& loss_sum,
                     const at::Tensor& score_sum) {
  const at::NoGradGuard no_grad;  // A loss that still carries its graph is welcome.
  vector.copy_(incoming_);
  vector.select(0, kLoss).copy_(loss_sum);
  vector.select(0, kScore).copy_(score_sum);
  vector.select(0, kNonfinite).copy_(at::isfinite(loss_sum).logical_not());
}

StepSummary Agreement::Exchange(const Reduced& reduced, int64_t step) {
  const at::Tensor missing = at::zeros({1}, reduced.vector.options());
  const auto scalar = [&](const at::Tensor& t) { return t.defined() ? t.view({1}) : missing; };
  const size_t turn = 1 - newest_;
  turns_[turn].all.copy_(
      at::cat({reduced.vector, scalar(reduced.found_nonfinite), scalar(reduced.gradient_norm)}),
      /*non_blocking=*/true);
  device_.Record(turns_[turn].read, device_.CurrentStream());
  StepSummary previous = Drain();
  newest_ = turn;
  newest_step_ = step;
  return previous;
}

StepSummary Agreement::Drain() {
  if (newest_step_ < 0) return {};
  communicator_.Await(turns_[newest_].read);
  const int64_t step = newest_step_;
  newest_step_ = -1;
  return Decode(turns_[newest_].all, step);
}

StepSummary Agreement::VoteNow() {
  const at::Tensor all = at::zeros({VectorSize(communicator_.size()) + kScalars}, at::kFloat);
  const at::Tensor mine = all.narrow(0, 0, VectorSize(communicator_.size()));
  WriteMine(mine, 0, 0.0);
  communicator_.AllReduce(mine);
  communicator_.Wait();
  return Decode(all, 0);
}

StepSummary Agreement::Decode(const at::Tensor& all, int64_t step) const {
  const int world_size = communicator_.size();
  const auto* values = all.const_data_ptr<float>();
  const float* scalars = values + VectorSize(world_size);
  StepSummary summary;
  summary.step = step;
  summary.samples = values[kSamples];
  summary.loss = summary.samples > 0 ? values[kLoss] / summary.samples : 0.0;
  summary.score = values[kScore];
  // Not `> 0`: a sum that is itself NaN must count.
  summary.nonfinite =
      !(values[kNonfinite] == 0.0f) || !std::isfinite(values[kLoss]) || !(scalars[0] == 0.0f);
  summary.gradient_norm = scalars[1];
  for (int i = 0; i < kVoteCount; ++i) summary.votes[i] = values[kVotes + i] > 0.0f;
  summary.arrival_seconds.assign(values + kArrivals, values + kArrivals + world_size);
  // Against one that is not known the others would all be late.
  const auto unknown = [](double arrival) { return arrival < 0; };
  if (std::any_of(summary.arrival_seconds.begin(), summary.arrival_seconds.end(), unknown)) {
    summary.arrival_seconds.assign(static_cast<size_t>(world_size), 0);
  }
  const auto [first, last] =
      std::minmax_element(summary.arrival_seconds.begin(), summary.arrival_seconds.end());
  if (*first < *last) {
    summary.slowest_rank = static_cast<int>(last - summary.arrival_seconds.begin());
  }
  return summary;
}

}  // namespace lockstep::trainer
