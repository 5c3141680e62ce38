#include "trainer/tensorboard/duration_histogram.h"

#include <algorithm>
#include <cmath>

namespace lockstep::trainer {

void DurationHistogram::Add(double seconds) {
  // log2 of a zero is minus infinity, which the bounds take care of.
  const double position = (std::log2(std::max(seconds, 0.0)) - kLowestOctave) * kPerOctave;
  const double last = kOctaves * kPerOctave - 1;
  ++counts_[static_cast<size_t>(std::clamp(position, 0.0, last))];
  min_ = count_ == 0 ? seconds : std::min(min_, seconds);
  max_ = count_ == 0 ? seconds : std::max(max_, seconds);
  ++count_;
  sum_ += seconds;
  sum_of_squares_ += seconds * seconds;
}

Histogram DurationHistogram::Take() {
  Histogram histogram{.min = min_,
                      .max = max_,
                      .count = static_cast<double>(count_),
                      .sum = sum_,
                      .sum_of_squares = sum_of_squares_,
                      .upper_bounds = {},
                      .counts = {}};
  if (count_ > 0) {
    const auto used = [](uint32_t count) { return count > 0; };
    const auto first = std::find_if(counts_.begin(), counts_.end(), used) - counts_.begin();
    const auto end = counts_.rend() - std::find_if(counts_.rbegin(), counts_.rend(), used);
    const auto width = (end - first + kMostBuckets - 1) / kMostBuckets;
    for (auto from = first; from < end; from += width) {
      const auto to = std::min(from + width, end);
      double in_bucket = 0;
      for (auto i = from; i < to; ++i) in_bucket += counts_[static_cast<size_t>(i)];
      const double octave = kLowestOctave + static_cast<double>(to) / kPerOctave;
      histogram.upper_bounds.push_back(to == end ? max_ : std::exp2(octave));
      histogram.counts.push_back(in_bucket);
    }
  }
  *this = DurationHistogram();
  return histogram;
}

}  // namespace lockstep::trainer
