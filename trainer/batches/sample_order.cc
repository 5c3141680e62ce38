#include "trainer/batches/sample_order.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>

#include "trainer/pictures/counter_rng.h"

namespace lockstep::trainer {

namespace {

// Fisher-Yates.
void Shuffle(std::span<uint32_t> items, CounterRng& rng) {
  for (size_t i = items.size(); i > 1; --i) {
    std::swap(items[i - 1], items[rng.Below(static_cast<uint32_t>(i))]);
  }
}

}  // namespace

Share ShareOf(int64_t batch, int rank, int world_size) {
  if (batch < 0 || world_size < 1 || rank < 0 || rank >= world_size) {
    throw std::invalid_argument("share of batch " + std::to_string(batch) + " for rank " +
                                std::to_string(rank) + " of " + std::to_string(world_size));
  }
  return {batch * rank / world_size, batch * (rank + 1) / world_size};
}

SampleOrder::SampleOrder(uint64_t seed, int64_t dataset_size, int64_t global_batch,
                         std::vector<int64_t> run_ends)
    : seed_(seed),
      dataset_size_(dataset_size),
      global_batch_(global_batch),
      run_ends_(std::move(run_ends)) {
  if (dataset_size < 1 || dataset_size > std::numeric_limits<uint32_t>::max()) {
    throw std::invalid_argument("sample order over " + std::to_string(dataset_size) +
                                " samples; expected 1 to 2^32 - 1");
  }
  const bool whole = run_ends_.empty() || (run_ends_.back() == dataset_size &&
                                           std::is_sorted(run_ends_.begin(), run_ends_.end()));
  if (!whole) throw std::invalid_argument("sample order over runs that do not make the data set");
  if (global_batch < 1) {
    throw std::invalid_argument("sample order with a global batch of " +
                                std::to_string(global_batch) + "; expected at least 1");
  }
}

std::vector<SampleRef> SampleOrder::Slice(int64_t step, int64_t begin, int64_t end) {
  if (step < 0 || begin < 0 || begin > end || end > global_batch_) {
    throw std::invalid_argument("samples [" + std::to_string(begin) + ", " + std::to_string(end) +
                                ") of step " + std::to_string(step) + " with a global batch of " +
                                std::to_string(global_batch_));
  }
  std::vector<SampleRef> refs;
  refs.reserve(static_cast<size_t>(end - begin));
  int64_t epoch = (step * global_batch_ + begin) / dataset_size_;
  int64_t offset = (step * global_batch_ + begin) % dataset_size_;
  for (int64_t remaining = end - begin; remaining > 0; ++epoch, offset = 0) {
    const std::vector<uint32_t>& order = Permutation(epoch);
    const int64_t stop = std::min(dataset_size_, offset + remaining);
    remaining -= stop - offset;
    for (int64_t i = offset; i < stop; ++i) {
      refs.push_back({order[static_cast<size_t>(i)], epoch});
    }
  }
  return refs;
}

double SampleOrder::steps_per_epoch() const {
  return static_cast<double>(dataset_size_) / static_cast<double>(global_batch_);
}

// Neighbouring epochs differ in parity, so loader threads on both sides of a border between epochs
// do not evict each other's permutation.
const std::vector<uint32_t>& SampleOrder::Permutation(int64_t epoch) {
  Cached& cached = cache_[epoch & 1];
  if (cached.epoch != epoch) {
    CounterRng rng(seed_, RandomPurpose::kSampleOrder, static_cast<uint32_t>(epoch));
    if (run_ends_.size() < 2 || dataset_size_ <= kOrderWindow) {
      cached.order.resize(static_cast<size_t>(dataset_size_));
      std::iota(cached.order.begin(), cached.order.end(), 0u);
      Shuffle(cached.order, rng);
    } else {
      cached.order = RunsInRandomOrder(epoch);
      const std::span<uint32_t> all(cached.order);
      size_t begin = 0;
      size_t end = rng.Below(kOrderWindow) + size_t{1};
      while (begin < all.size()) {
        end = std::min(end, all.size());
        Shuffle(all.subspan(begin, end - begin), rng);
        begin = end;
        end += kOrderWindow;
      }
    }
    cached.epoch = epoch;
  }
  return cached.order;
}

std::vector<uint32_t> SampleOrder::RunsInRandomOrder(int64_t epoch) const {
  constexpr uint32_t kRuns = 1;  // Keeps the stream apart from the samples'.
  std::vector<uint32_t> runs(run_ends_.size());
  std::iota(runs.begin(), runs.end(), 0u);
  CounterRng rng(seed_, RandomPurpose::kSampleOrder, static_cast<uint32_t>(epoch), kRuns);
  Shuffle(runs, rng);
  std::vector<uint32_t> order;
  order.reserve(static_cast<size_t>(dataset_size_));
  for (const uint32_t run : runs) {
    const int64_t begin = run == 0 ? 0 : run_ends_[run - 1];
    for (int64_t i = begin; i < run_ends_[run]; ++i) order.push_back(static_cast<uint32_t>(i));
  }
  return order;
}

}  // namespace lockstep::trainer
