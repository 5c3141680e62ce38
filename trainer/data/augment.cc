#include "trainer/data/augment.h"

#include <algorithm>
#include <cstring>

#include "trainer/data/counter_rng.h"

namespace lockstep::trainer {

Augmentation DrawAugmentation(const config::AugmentConfig& config, uint64_t seed, int64_t epoch,
                              int64_t sample) {
  CounterRng rng(seed, RandomPurpose::kAugment, static_cast<uint32_t>(epoch),
                 static_cast<uint32_t>(sample));
  // Always three numbers, so that one setting does not change what another one does.
  const uint32_t coin = rng.Next();
  const auto places = static_cast<uint32_t>(2 * config.crop_padding + 1);
  const int x = static_cast<int>(rng.Below(places)) - config.crop_padding;
  const int y = static_cast<int>(rng.Below(places)) - config.crop_padding;
  return {config.horizontal_flip && (coin >> 31) != 0, x, y};
}

void Apply(const Augmentation& augmentation, const Picture& in, Picture& out) {
  out.width = in.width;
  out.height = in.height;
  out.channels = in.channels;
  out.pixels.assign(in.pixels.size(), 0);
  const int first = std::max(0, augmentation.shift_x);  // Columns of `out` that `in` reaches.
  const int last = std::min(in.width, in.width + augmentation.shift_x);
  if (first >= last) return;
  const auto channels = static_cast<size_t>(in.channels);
  const size_t row_bytes = static_cast<size_t>(in.width) * channels;
  for (int row = 0; row < in.height; ++row) {
    const int source_row = row - augmentation.shift_y;
    if (source_row < 0 || source_row >= in.height) continue;
    uint8_t* to = out.pixels.data() + static_cast<size_t>(row) * row_bytes;
    const uint8_t* from = in.pixels.data() + static_cast<size_t>(source_row) * row_bytes +
                          static_cast<size_t>(first - augmentation.shift_x) * channels;
    if (!augmentation.flip) {
      std::memcpy(to + static_cast<size_t>(first) * channels, from,
                  static_cast<size_t>(last - first) * channels);
      continue;
    }
    for (int column = first; column < last; ++column, from += channels) {
      std::copy_n(from, channels, to + static_cast<size_t>(in.width - 1 - column) * channels);
    }
  }
}

}  // namespace lockstep::trainer
