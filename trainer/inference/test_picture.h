// A picture that any program can make from its size, to compare two programs by what they say of
// it.
#pragma once

#include <cstddef>
#include <cstdint>

#include "trainer/data/dataset.h"

namespace lockstep::trainer {

inline constexpr char kTestPictureRule[] =
    "byte(x, y, channel) = (5 x + 3 y + 40 channel + 9 ((x y) mod 7)) mod 256";

inline Picture TestPicture(int width, int height) {
  Picture picture{width, height, 3, {}};
  picture.pixels.reserve(static_cast<size_t>(width) * static_cast<size_t>(height) * 3);
  for (int y = 0; y < height; ++y) {
    for (int x = 0; x < width; ++x) {
      for (int channel = 0; channel < 3; ++channel) {
        picture.pixels.push_back(
            static_cast<uint8_t>((5 * x + 3 * y + 40 * channel + 9 * (x * y % 7)) % 256));
      }
    }
  }
  return picture;
}

}  // namespace lockstep::trainer
