// The arithmetic of an all-reduce in shared memory: one rank's slice, summed over all ranks'
// buffers in rank order.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace lockstep::trainer {

/// Elements [begin, end) of `buffers[0] + buffers[1] + …`, added in that order, written back to
/// every buffer. Nobody else touches those elements meanwhile.
template <typename T>
void SumToAll(const std::vector<T*>& buffers, int64_t begin, int64_t end);

/// The same, written to buffers[0] only.
template <typename T>
void SumToFirst(const std::vector<T*>& buffers, int64_t begin, int64_t end);

/// The part of `count` elements that belongs to `index` of `parts`: cut at multiples of 16
/// elements, so that two ranks never write to one cache line.
struct SliceRange {
  int64_t begin = 0;
  int64_t end = 0;
};
SliceRange SliceOf(int64_t count, int index, int parts);

}  // namespace lockstep::trainer
