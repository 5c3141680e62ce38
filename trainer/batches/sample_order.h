// Which samples are in a global batch: a pure function of (seed, data set size, batch size, step),
// the same for any world size.
//
// The training samples form one endless sequence: a permutation of all samples per epoch, one after
// another. Step s takes positions [s*B, (s+1)*B) of it, so every batch is full, every sample comes
// once per epoch, and a position is all the state a resume needs. A batch may straddle two epochs.
// Rank r of N takes the r-th of N nearly equal parts of the batch, in order.
//
// Where samples are stored in runs (tar archives), a permutation of everything would read all over
// the disk. Then an epoch is the runs in a random order, one after another, shuffled within windows
// of kOrderWindow samples that begin at a random place: a window is read from a few runs, each from
// its beginning to its end. It is what a stream with a shuffle buffer gives, without its state.
#pragma once

#include <cstdint>
#include <vector>

namespace lockstep::trainer {

inline constexpr int64_t kOrderWindow = 16384;  // Samples. Sets up to this are shuffled as a whole.

struct SampleRef {
  int64_t index = 0;  // In the data set.
  int64_t epoch = 0;  // Its epoch: seeds the augmentation together with the index.
};

struct Share {
  int64_t begin = 0;  // Within the global batch.
  int64_t end = 0;
};

/// Part of `rank` of [0, batch): sizes differ by at most one.
Share ShareOf(int64_t batch, int rank, int world_size);

class SampleOrder {
 public:
  /// run_ends: where each run of samples that are stored together ends, the last one at
  /// dataset_size; empty: they are not stored in runs.
  SampleOrder(uint64_t seed, int64_t dataset_size, int64_t global_batch,
              std::vector<int64_t> run_ends = {});
  /// Samples at positions [begin, end) of global batch `step`. Not thread-safe: keeps the
  /// permutations of two epochs.
  std::vector<SampleRef> Slice(int64_t step, int64_t begin, int64_t end);
  double steps_per_epoch() const;

 private:
  const std::vector<uint32_t>& Permutation(int64_t epoch);
  std::vector<uint32_t> RunsInRandomOrder(int64_t epoch) const;
  uint64_t seed_;
  int64_t dataset_size_;
  int64_t global_batch_;
  std::vector<int64_t> run_ends_;
  struct Cached {
    int64_t epoch = -1;
    std::vector<uint32_t> order;
  };
  Cached cache_[2];
};

}  // namespace lockstep::trainer
