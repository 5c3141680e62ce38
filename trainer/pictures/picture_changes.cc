#include "trainer/pictures/picture_changes.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "trainer/pictures/exact_math.h"
#include "trainer/pictures/luma.h"

namespace lockstep::trainer {
namespace {

constexpr int32_t kHalf = 1 << 15;  // Of the factors' 2^16.

uint8_t ToByte(int64_t value) {
  return static_cast<uint8_t>(std::clamp<int64_t>(value, 0, 255));
}

// Every byte becomes middle + (byte - middle) * factor / 65536.
void Spread(int32_t middle, int32_t factor, Picture& picture) {
  std::array<uint8_t, 256> table{};
  for (int32_t byte = 0; byte < 256; ++byte) {
    table[static_cast<size_t>(byte)] =
        ToByte(((int64_t{middle} << 16) + int64_t{byte - middle} * factor + kHalf) >> 16);
  }
  for (uint8_t& byte : picture.pixels) byte = table[byte];
}

int32_t MeanLightness(const Picture& picture) {
  int64_t sum = 0;
  const auto count = static_cast<int64_t>(picture.width) * picture.height;
  const uint8_t* pixel = picture.pixels.data();
  for (int64_t i = 0; i < count; ++i, pixel += picture.channels) {
    sum += picture.channels == 3 ? Luma(pixel) : pixel[0];
  }
  return count == 0 ? 0 : static_cast<int32_t>((sum + count / 2) / count);
}

void Saturate(int32_t factor, Picture& picture) {
  for (size_t i = 0; i + 2 < picture.pixels.size(); i += 3) {
    uint8_t* pixel = &picture.pixels[i];
    const int32_t grey = Luma(pixel);
    for (int c = 0; c < 3; ++c) {
      pixel[c] = ToByte(((int64_t{grey} << 16) + int64_t{pixel[c] - grey} * factor + kHalf) >> 16);
    }
  }
}

// A sixth of the circle is 4096 steps: fine enough that a turn by nothing gives every colour back.
constexpr int32_t kSixth = 4096;

void TurnHue(int32_t turn, uint8_t* pixel) {
  const int32_t red = pixel[0], green = pixel[1], blue = pixel[2];
  const int32_t most = std::max({red, green, blue});
  const int32_t least = std::min({red, green, blue});
  const int32_t chroma = most - least;
  if (chroma == 0) return;
  const auto part = [&](int32_t difference) {  // In [-kSixth, kSixth], rounded.
    return (2 * difference * kSixth + (difference < 0 ? -chroma : chroma)) / (2 * chroma);
  };
  int32_t hue = 0;
  if (most == red) {
    hue = part(green - blue);
  } else if (most == green) {
    hue = 2 * kSixth + part(blue - red);
  } else {
    hue = 4 * kSixth + part(red - green);
  }
  hue = (hue + turn) % (6 * kSixth);
  if (hue < 0) hue += 6 * kSixth;
  const int32_t sixth = hue / kSixth;
  const int32_t rest = hue % kSixth;
  const int32_t along = sixth % 2 == 0 ? rest : kSixth - rest;
  const auto high = static_cast<uint8_t>(most);
  const auto low = static_cast<uint8_t>(least);
  const auto between = static_cast<uint8_t>(least + (chroma * along + kSixth / 2) / kSixth);
  const std::array<std::array<uint8_t, 3>, 6> colors = {{{high, between, low},
                                                         {between, high, low},
                                                         {low, high, between},
                                                         {low, between, high},
                                                         {between, low, high},
                                                         {high, low, between}}};
  std::memcpy(pixel, colors[static_cast<size_t>(sixth)].data(), 3);
}

}  // namespace

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

void Rotate(const Picture& in, double degrees, Picture& out) {
  constexpr double kRadians = 3.14159265358979323846 / 180;
  const SineCosine turn = ExactSineCosine(degrees * kRadians);
  const auto sine = static_cast<int64_t>(std::floor(turn.sine * 65536 + 0.5));
  const auto cosine = static_cast<int64_t>(std::floor(turn.cosine * 65536 + 0.5));
  out.width = in.width;
  out.height = in.height;
  out.channels = in.channels;
  out.pixels.resize(in.pixels.size());
  const auto channels = static_cast<size_t>(in.channels);
  const auto at = [&](int64_t x, int64_t y) -> const uint8_t* {
    if (x < 0 || y < 0 || x >= in.width || y >= in.height) return nullptr;
    return &in.pixels[static_cast<size_t>(y * in.width + x) * channels];
  };
  uint8_t* to = out.pixels.data();
  for (int y = 0; y < in.height; ++y) {
    for (int x = 0; x < in.width; ++x, to += channels) {
      // Twice the distance from the middle is a whole number; so places have 17 bits of fraction.
      const int64_t across = 2 * x - (in.width - 1);
      const int64_t down = 2 * y - (in.height - 1);
      const int64_t from_x = cosine * across - sine * down + (int64_t{in.width - 1} << 16);
      const int64_t from_y = sine * across + cosine * down + (int64_t{in.height - 1} << 16);
      const int64_t left = from_x >> 17;
      const int64_t top = from_y >> 17;
      const auto right_share = static_cast<int32_t>((from_x >> 9) & 255);
      const auto lower_share = static_cast<int32_t>((from_y >> 9) & 255);
      const std::array<const uint8_t*, 4> taps = {at(left, top), at(left + 1, top),
                                                  at(left, top + 1), at(left + 1, top + 1)};
      const std::array<int32_t, 4> weights = {
          (256 - right_share) * (256 - lower_share), right_share * (256 - lower_share),
          (256 - right_share) * lower_share, right_share * lower_share};
      for (size_t channel = 0; channel < channels; ++channel) {
        int32_t sum = kHalf;
        for (size_t i = 0; i < taps.size(); ++i) {
          if (taps[i] != nullptr) sum += weights[i] * taps[i][channel];
        }
        to[channel] = static_cast<uint8_t>(sum >> 16);
      }
    }
  }
}

void ChangeColors(const ColorChange& change, Picture& picture) {
  for (const ColorChange::Kind kind : change.order) {
    switch (kind) {
      case ColorChange::Kind::kBrightness:
        if (change.brightness != 65536) Spread(0, change.brightness, picture);
        break;
      case ColorChange::Kind::kContrast:
        if (change.contrast != 65536) Spread(MeanLightness(picture), change.contrast, picture);
        break;
      case ColorChange::Kind::kSaturation:
        if (change.saturation != 65536 && picture.channels == 3) {
          Saturate(change.saturation, picture);
        }
        break;
      case ColorChange::Kind::kHue:
        if (change.hue == 0 || picture.channels != 3) break;
        for (size_t i = 0; i + 2 < picture.pixels.size(); i += 3) {
          TurnHue(change.hue, &picture.pixels[i]);
        }
        break;
    }
  }
}

void Erase(const Box& box, const Color& color, Picture& picture) {
  const auto channels = static_cast<size_t>(picture.channels);
  for (int y = box.y; y < box.y + box.height; ++y) {
    uint8_t* pixel =
        picture.pixels.data() +
        (static_cast<size_t>(y) * static_cast<size_t>(picture.width) + static_cast<size_t>(box.x)) *
            channels;
    for (int x = 0; x < box.width; ++x, pixel += channels) {
      std::copy_n(color.begin(), std::min<size_t>(channels, color.size()), pixel);
    }
  }
}

void Mix(const Mixing& mixing, const Picture& other, Picture& picture) {
  if (!mixing.cut) {
    const int32_t weight = mixing.weight;
    for (size_t i = 0; i < picture.pixels.size(); ++i) {
      const int32_t sum = weight * picture.pixels[i] + (65536 - weight) * other.pixels[i];
      picture.pixels[i] = static_cast<uint8_t>((sum + kHalf) >> 16);
    }
    return;
  }
  const auto channels = static_cast<size_t>(picture.channels);
  for (int y = mixing.box.y; y < mixing.box.y + mixing.box.height; ++y) {
    const size_t begin = (static_cast<size_t>(y) * static_cast<size_t>(picture.width) +
                          static_cast<size_t>(mixing.box.x)) *
                         channels;
    std::copy_n(other.pixels.begin() + static_cast<std::ptrdiff_t>(begin),
                static_cast<size_t>(mixing.box.width) * channels,
                picture.pixels.begin() + static_cast<std::ptrdiff_t>(begin));
  }
}

}  // namespace lockstep::trainer
