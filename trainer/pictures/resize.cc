#include "trainer/pictures/resize.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "trainer/pictures/resize_rows.h"

namespace lockstep::trainer {
namespace {

// One side of a picture: `old_size` pixels become `new_size`, of which `count` from `first` on are
// wanted. New pixel i stands for the old interval [i, i + 1) * scale. A triangle as wide as two new
// pixels (two old ones when enlarging) around its middle weighs the old pixels.
struct Side {
  int old_size = 0;
  int new_size = 0;
  int first = 0;
  int count = 0;
};

Filter MakeFilter(const Side& side) {
  Filter filter;
  const double scale = static_cast<double>(side.old_size) / side.new_size;
  const double reach = std::max(scale, 1.0);
  std::vector<double> shares;
  for (int i = side.first; i < side.first + side.count; ++i) {
    const double middle = (i + 0.5) * scale;
    const int first = std::max(0, static_cast<int>(std::floor(middle - reach)));
    const int last = std::min(side.old_size - 1, static_cast<int>(std::floor(middle + reach)));
    shares.clear();
    double sum = 0;
    for (int j = first; j <= last; ++j) {
      shares.push_back(std::max(0.0, 1.0 - std::abs(j + 0.5 - middle) / reach));
      sum += shares.back();
    }
    Tap tap{first, static_cast<int>(shares.size()), filter.weights.size()};
    int32_t left = kWeightOne;
    size_t heaviest = tap.weights;
    for (const double share : shares) {
      const auto weight = static_cast<int16_t>(std::floor(share / sum * kWeightOne + 0.5));
      left -= weight;
      filter.weights.push_back(weight);
      if (weight > filter.weights[heaviest]) heaviest = filter.weights.size() - 1;
    }
    filter.weights[heaviest] =
        static_cast<int16_t>(filter.weights[heaviest] + left);  // What rounding lost or won.
    while ((filter.weights.size() - tap.weights) % 4 != 0) filter.weights.push_back(0);
    filter.taps.push_back(tap);
  }
  return filter;
}

constexpr size_t kSlack = 16;  // What the passes may read and write behind a row.

// The part of `in` at `box`, by a filter for each side.
void Apply(const Picture& in, const Box& box, const Filter& across, const Filter& down,
           Picture& out) {
  const auto channels = static_cast<size_t>(in.channels);
  const size_t new_row = across.taps.size() * channels;
  const size_t old_row = static_cast<size_t>(in.width) * channels;

  // First across, only the rows that the second pass looks at.
  const int first_row = down.taps.front().first;
  const int rows = down.taps.back().first + down.taps.back().count - first_row;
  const size_t narrow_row = new_row + kSlack;
  thread_local std::vector<uint8_t> narrow;  // Hundreds of kilobytes: not anew for each picture.
  narrow.resize(static_cast<size_t>(rows) * narrow_row);
  const uint8_t* end = in.pixels.data() + in.pixels.size();
  for (int row = 0; row < rows; ++row) {
    const uint8_t* from = in.pixels.data() +
                          static_cast<size_t>(box.y + first_row + row) * old_row +
                          static_cast<size_t>(box.x) * channels;
    NarrowRow(across, from, end, channels, &narrow[static_cast<size_t>(row) * narrow_row]);
  }

  out.width = static_cast<int>(across.taps.size());
  out.height = static_cast<int>(down.taps.size());
  out.channels = in.channels;
  out.pixels.resize(down.taps.size() * new_row);
  std::vector<const uint8_t*> summed;
  uint8_t* to = out.pixels.data();
  for (const Tap& tap : down.taps) {
    summed.clear();
    for (int j = 0; j < tap.count; ++j) {
      summed.push_back(&narrow[static_cast<size_t>(tap.first - first_row + j) * narrow_row]);
    }
    SumRows(summed, &down.weights[tap.weights], new_row, to);
    to += new_row;
  }
}

}  // namespace

void ResizeBox(const Picture& in, const Box& box, int width, int height, Picture& out) {
  Apply(in, box, MakeFilter({box.width, width, 0, width}),
        MakeFilter({box.height, height, 0, height}), out);
}

void ResizeAndCut(const Picture& in, int width, int height, const Box& cut, Picture& out) {
  Apply(in, {0, 0, in.width, in.height}, MakeFilter({in.width, width, cut.x, cut.width}),
        MakeFilter({in.height, height, cut.y, cut.height}), out);
}

}  // namespace lockstep::trainer
