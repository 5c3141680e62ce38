// Counts durations in buckets as wide as 1/32 octave (2.2 %), from a microsecond to an hour, so
// that a step costs a few nanoseconds however many there are, and the picture still shows two modes
// that are 5 % apart.
#pragma once

#include <array>
#include <cstdint>

#include "trainer/tensorboard/event.h"

namespace lockstep::trainer {

class DurationHistogram {
 public:
  void Add(double seconds);
  int64_t count() const { return count_; }
  /// At most 64 buckets: neighbours are joined where there are more. Starts over.
  Histogram Take();

 private:
  static constexpr int kPerOctave = 32;
  static constexpr int kLowestOctave = -20;  // 2^-20 s, a microsecond; less counts as that.
  static constexpr int kOctaves = 32;        // To 2^12 s; more counts as that.
  static constexpr int kMostBuckets = 64;

  std::array<uint32_t, kOctaves * kPerOctave> counts_{};
  int64_t count_ = 0;
  double min_ = 0, max_ = 0, sum_ = 0, sum_of_squares_ = 0;
};

}  // namespace lockstep::trainer
