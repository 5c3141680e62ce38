#include "trainer/data/sample_order.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <stdexcept>
#include <string>
#include <utility>

#include "trainer/data/counter_rng.h"

namespace lockstep::trainer {

Share ShareOf(int64_t batch, int rank, int world_size) {
  if (batch < 0 || world_size < 1 || rank < 0 || rank >= world_size) {
    throw std::invalid_argument("share of batch " + std::to_string(batch) + " for rank " +
                                std::to_string(rank) + " of " + std::to_string(world_size));
  }
  return {batch * rank / world_size, batch * (rank + 1) / world_size};
}

SampleOrder::SampleOrder(uint64_t seed, int64_t dataset_size, int64_t global_batch)
    : seed_(seed), dataset_size_(dataset_size), global_batch_(global_batch) {
  if (dataset_size < 1 || dataset_size > std::numeric_limits<uint32_t>::max()) {
    throw std::invalid_argument("sample order over " + std::to_string(dataset_size) +
                                " samples; expected 1 to 2^32 - 1");
  }
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
    cached.order.resize(static_cast<size_t>(dataset_size_));
    std::iota(cached.order.begin(), cached.order.end(), 0u);
    CounterRng rng(seed_, RandomPurpose::kSampleOrder, static_cast<uint32_t>(epoch));
    for (uint32_t i = static_cast<uint32_t>(dataset_size_) - 1; i > 0; --i) {  // Fisher-Yates.
      std::swap(cached.order[i], cached.order[rng.Below(i + 1)]);
    }
    cached.epoch = epoch;
  }
  return cached.order;
}

}  // namespace lockstep::trainer
