// The two passes of a resize over rows of bytes, in whole numbers: the same bits whether by vector
// instructions or not.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace lockstep::trainer {

// Weights are whole numbers that sum to 2^14, so a flat area keeps its value exactly and no
// rounding depends on the machine. 14 bits and a byte leave room for signed 32-bit sums, and two
// weights fit the 16-bit halves that pmaddwd multiplies.
inline constexpr int kWeightBits = 14;
inline constexpr int32_t kWeightOne = 1 << kWeightBits;

// Which old pixels make one new pixel.
struct Tap {
  int first = 0;
  int count = 0;
  size_t weights = 0;  // Index of the first weight; zeros fill up to a multiple of four.
};

struct Filter {
  std::vector<Tap> taps;
  std::vector<int16_t> weights;
};

/// Makes one row of `filter.taps.size()` pixels. Up to `end` memory may be read. `to` has 4 bytes
/// more room than the row.
void NarrowRow(const Filter& filter, const uint8_t* from, const uint8_t* end, size_t channels,
               uint8_t* to);

/// The weighted sum of rows, each of `bytes` bytes and 15 more that may be read.
void SumRows(std::span<const uint8_t* const> rows, const int16_t* weights, size_t bytes,
             uint8_t* to);

}  // namespace lockstep::trainer
