#include "trainer/data/resize.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace lockstep::trainer {
namespace {

// Weights are whole numbers that sum to 2^14, so a flat area keeps its value exactly and no
// rounding depends on the machine. 14 bits and a byte leave room for signed 32-bit sums.
constexpr int kWeightBits = 14;
constexpr int32_t kOne = 1 << kWeightBits;

// Which old pixels make one new pixel.
struct Tap {
  int first = 0;
  int count = 0;
  size_t weights = 0;  // Index of the first weight.
};

struct Filter {
  std::vector<Tap> taps;
  std::vector<int32_t> weights;
};

// New pixel i stands for the old interval origin + [i, i + 1) * scale. A triangle as wide as two
// new pixels (two old ones when enlarging) around its middle weighs the old pixels.
Filter MakeFilter(int old_size, double origin, double scale, int new_size) {
  Filter filter;
  const double reach = std::max(scale, 1.0);
  std::vector<double> shares;
  for (int i = 0; i < new_size; ++i) {
    const double middle = origin + (i + 0.5) * scale;
    const int first = std::max(0, static_cast<int>(std::floor(middle - reach)));
    const int last = std::min(old_size - 1, static_cast<int>(std::floor(middle + reach)));
    shares.clear();
    double sum = 0;
    for (int j = first; j <= last; ++j) {
      shares.push_back(std::max(0.0, 1.0 - std::abs(j + 0.5 - middle) / reach));
      sum += shares.back();
    }
    Tap tap{first, static_cast<int>(shares.size()), filter.weights.size()};
    int32_t left = kOne;
    size_t heaviest = tap.weights;
    for (const double share : shares) {
      const auto weight = static_cast<int32_t>(std::floor(share / sum * kOne + 0.5));
      left -= weight;
      filter.weights.push_back(weight);
      if (weight > filter.weights[heaviest]) heaviest = filter.weights.size() - 1;
    }
    filter.weights[heaviest] += left;  // What rounding lost or won.
    filter.taps.push_back(tap);
  }
  return filter;
}

}  // namespace

void ResizeToSquare(const Picture& in, int size, Picture& out) {
  const int side = std::min(in.width, in.height);
  const double scale = static_cast<double>(side) / size;
  const Filter across = MakeFilter(in.width, (in.width - side) / 2.0, scale, size);
  const Filter down = MakeFilter(in.height, (in.height - side) / 2.0, scale, size);
  const auto channels = static_cast<size_t>(in.channels);
  const size_t new_row = static_cast<size_t>(size) * channels;

  // First across, only the rows that the second pass looks at.
  const int first_row = down.taps.front().first;
  const int rows = down.taps.back().first + down.taps.back().count - first_row;
  std::vector<uint8_t> narrow(static_cast<size_t>(rows) * new_row);
  for (int row = 0; row < rows; ++row) {
    const uint8_t* from = in.pixels.data() + static_cast<size_t>(first_row + row) *
                                                 static_cast<size_t>(in.width) * channels;
    uint8_t* to = narrow.data() + static_cast<size_t>(row) * new_row;
    for (const Tap& tap : across.taps) {
      const uint8_t* pixel = from + static_cast<size_t>(tap.first) * channels;
      for (size_t channel = 0; channel < channels; ++channel) {
        int32_t sum = kOne / 2;
        for (int j = 0; j < tap.count; ++j) {
          sum += across.weights[tap.weights + static_cast<size_t>(j)] *
                 pixel[static_cast<size_t>(j) * channels + channel];
        }
        *to++ = static_cast<uint8_t>(sum >> kWeightBits);
      }
    }
  }

  out.width = out.height = size;
  out.channels = in.channels;
  out.pixels.resize(static_cast<size_t>(size) * new_row);
  std::vector<int32_t> sums(new_row);
  uint8_t* to = out.pixels.data();
  for (const Tap& tap : down.taps) {
    std::fill(sums.begin(), sums.end(), kOne / 2);
    for (int j = 0; j < tap.count; ++j) {
      const int32_t weight = down.weights[tap.weights + static_cast<size_t>(j)];
      const uint8_t* from =
          narrow.data() + static_cast<size_t>(tap.first - first_row + j) * new_row;
      for (size_t i = 0; i < new_row; ++i) sums[i] += weight * from[i];
    }
    for (const int32_t sum : sums) *to++ = static_cast<uint8_t>(sum >> kWeightBits);
  }
}

}  // namespace lockstep::trainer
