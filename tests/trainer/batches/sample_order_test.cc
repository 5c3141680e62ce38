#include "trainer/batches/sample_order.h"

#include <gtest/gtest.h>

#include <map>
#include <set>
#include <stdexcept>
#include <utility>
#include <vector>

namespace lockstep::trainer {
namespace {

using Place = std::pair<int64_t, int64_t>;  // Epoch, index.

std::vector<Place> Places(const std::vector<SampleRef>& refs) {
  std::vector<Place> places;
  places.reserve(refs.size());
  for (const SampleRef& ref : refs) places.emplace_back(ref.epoch, ref.index);
  return places;
}

// What `world_size` ranks, each with a loader of its own, read from `first` up to `last`.
std::vector<Place> Visit(int64_t samples, int64_t batch, int world_size, int64_t first,
                         int64_t last) {
  std::vector<SampleOrder> orders(static_cast<size_t>(world_size), SampleOrder(11, samples, batch));
  std::vector<Place> visited;
  for (int64_t step = first; step < last; ++step) {
    for (int rank = 0; rank < world_size; ++rank) {
      const Share share = ShareOf(batch, rank, world_size);
      const auto part =
          Places(orders[static_cast<size_t>(rank)].Slice(step, share.begin, share.end));
      visited.insert(visited.end(), part.begin(), part.end());
    }
  }
  return visited;
}

TEST(ShareOf, PartsCoverTheBatchInOrderAndDifferByAtMostOne) {
  for (const int64_t batch : {0, 1, 3, 7, 64, 1000}) {
    for (const int world_size : {1, 2, 3, 4, 7}) {
      int64_t end = 0;
      for (int rank = 0; rank < world_size; ++rank) {
        const Share share = ShareOf(batch, rank, world_size);
        EXPECT_EQ(share.begin, end);
        const int64_t size = share.end - share.begin;
        EXPECT_GE(size, batch / world_size);
        EXPECT_LE(size, (batch + world_size - 1) / world_size);
        end = share.end;
      }
      EXPECT_EQ(end, batch);
    }
  }
  EXPECT_THROW(ShareOf(8, 2, 2), std::invalid_argument);
  EXPECT_THROW(ShareOf(8, 0, 0), std::invalid_argument);
}

TEST(SampleOrder, EverySampleComesOnceInEveryEpoch) {
  // 10 does not divide 103: batches straddle the epochs.
  const std::vector<Place> visited = Visit(103, 10, 1, 0, 103);  // 1,030 samples: 10 epochs.
  ASSERT_EQ(visited.size(), 1030u);
  std::map<int64_t, std::set<int64_t>> seen;
  int64_t epoch = 0;
  for (const auto& [in_epoch, index] : visited) {
    EXPECT_GE(in_epoch, epoch);
    epoch = in_epoch;
    EXPECT_TRUE(index >= 0 && index < 103) << index;
    EXPECT_TRUE(seen[in_epoch].insert(index).second) << index << " twice in epoch " << in_epoch;
  }
  EXPECT_EQ(seen.size(), 10u);
  for (const auto& [number, samples] : seen) EXPECT_EQ(samples.size(), 103u) << number;
}

TEST(SampleOrder, EpochsAndSeedsHaveDifferentOrders) {
  SampleOrder order(1, 100, 100);
  SampleOrder other(2, 100, 100);
  const auto indices = [](const std::vector<SampleRef>& refs) {
    std::vector<int64_t> result;
    result.reserve(refs.size());
    for (const SampleRef& ref : refs) result.push_back(ref.index);
    return result;
  };
  const auto first = indices(order.Slice(0, 0, 100));
  EXPECT_NE(first, indices(order.Slice(1, 0, 100)));
  EXPECT_NE(first, indices(other.Slice(0, 0, 100)));
  EXPECT_EQ(first, indices(SampleOrder(1, 100, 100).Slice(0, 0, 100)));
}

TEST(SampleOrder, AnyWorldSizeReadsTheSameGlobalBatches) {
  const auto alone = Visit(103, 10, 1, 0, 60);
  for (const int world_size : {2, 3, 4}) {
    EXPECT_EQ(Visit(103, 10, world_size, 0, 60), alone) << world_size << " ranks";
  }
}

TEST(SampleOrder, ResumingOnAnotherWorldSizeReadsExactlyTheRest) {
  const auto undisturbed = Visit(103, 10, 4, 0, 40);
  for (const int64_t resume : {0, 1, 10, 11, 37}) {
    for (const int world_size : {1, 2, 3}) {
      auto visited = Visit(103, 10, 4, 0, resume);
      const auto rest = Visit(103, 10, world_size, resume, 40);
      visited.insert(visited.end(), rest.begin(), rest.end());
      EXPECT_EQ(visited, undisturbed) << "resumed at step " << resume << " on " << world_size;
    }
  }
}

TEST(SampleOrder, ABatchLargerThanTheDataSetSpansManyEpochs) {
  SampleOrder order(5, 4, 10);
  const auto refs = order.Slice(1, 0, 10);  // Positions 10 to 19: epochs 2 (half), 3, 4.
  ASSERT_EQ(refs.size(), 10u);
  EXPECT_EQ(refs.front().epoch, 2);
  EXPECT_EQ(refs.back().epoch, 4);
  EXPECT_EQ(Places(order.Slice(0, 0, 10)), Places(SampleOrder(5, 4, 10).Slice(0, 0, 10)));
  std::set<int64_t> epoch3;
  for (const SampleRef& ref : refs) {
    if (ref.epoch == 3) epoch3.insert(ref.index);
  }
  EXPECT_EQ(epoch3.size(), 4u);
}

TEST(SampleOrder, PermutationsAreUnbiased) {
  // Where sample 0 of 4 lands in 4,000 epochs: 1,000 times at each place, standard deviation 27.
  SampleOrder order(9, 4, 4);
  int counts[4] = {};
  for (int64_t epoch = 0; epoch < 4000; ++epoch) {
    const auto refs = order.Slice(epoch, 0, 4);
    for (int place = 0; place < 4; ++place) {
      if (refs[static_cast<size_t>(place)].index == 0) ++counts[place];
    }
  }
  for (const int count : counts) EXPECT_NEAR(count, 1000, 137);
}

TEST(SampleOrder, RunsAreReadOneAfterAnotherInARandomOrder) {
  constexpr int64_t kRun = 5000;
  constexpr int64_t kSamples = 40 * kRun;
  std::vector<int64_t> ends;
  for (int64_t end = kRun; end <= kSamples; end += kRun) ends.push_back(end);
  SampleOrder order(3, kSamples, kSamples, ends);
  std::vector<std::vector<int64_t>> first_runs;
  for (int64_t epoch = 0; epoch < 2; ++epoch) {
    const std::vector<SampleRef> refs = order.Slice(epoch, 0, kSamples);
    std::set<int64_t> seen;
    std::vector<int64_t> first_run;
    size_t shuffled = 0;
    std::map<int64_t, std::pair<size_t, size_t>> spans;  // First and last place of each run.
    for (size_t place = 0; place < refs.size(); ++place) {
      seen.insert(refs[place].index);
      const auto [at, is_new] = spans.try_emplace(refs[place].index / kRun, place, place);
      if (is_new) first_run.push_back(at->first);
      at->second.second = place;
      if (place > 0 && refs[place].index != refs[place - 1].index + 1) ++shuffled;
    }
    EXPECT_EQ(seen.size(), static_cast<size_t>(kSamples));
    EXPECT_GT(shuffled, refs.size() * 9 / 10);
    for (const auto& [run, span] : spans) {
      EXPECT_LT(static_cast<int64_t>(span.second - span.first), kRun + 2 * kOrderWindow) << run;
    }
    first_runs.push_back(first_run);
  }
  EXPECT_NE(first_runs[0], first_runs[1]);
  EXPECT_EQ(Places(order.Slice(1, 77, 99)),
            Places(SampleOrder(3, kSamples, kSamples, ends).Slice(1, 77, 99)));
}

TEST(SampleOrder, FewSamplesInRunsAreShuffledAsAWhole) {
  EXPECT_EQ(Places(SampleOrder(1, 100, 100, {30, 100}).Slice(0, 0, 100)),
            Places(SampleOrder(1, 100, 100).Slice(0, 0, 100)));
}

TEST(SampleOrder, StepsPerEpochMayBeAFraction) {
  EXPECT_DOUBLE_EQ(SampleOrder(1, 103, 10).steps_per_epoch(), 10.3);
}

TEST(SampleOrder, NonsenseIsRefused) {
  EXPECT_THROW(SampleOrder(1, 0, 10), std::invalid_argument);
  EXPECT_THROW(SampleOrder(1, 10, 0), std::invalid_argument);
  EXPECT_THROW(SampleOrder(1, int64_t{1} << 33, 10), std::invalid_argument);
  EXPECT_THROW(SampleOrder(1, 10, 1, {5, 9}), std::invalid_argument);
  EXPECT_THROW(SampleOrder(1, 10, 1, {5, 3, 10}), std::invalid_argument);
  SampleOrder order(1, 10, 5);
  EXPECT_THROW(order.Slice(-1, 0, 5), std::invalid_argument);
  EXPECT_THROW(order.Slice(0, 0, 6), std::invalid_argument);
  EXPECT_TRUE(order.Slice(0, 2, 2).empty());
}

}  // namespace
}  // namespace lockstep::trainer
