// How light a colour is: ITU-R BT.601's weights in 16-bit whole numbers, as Pillow's convert("L")
// has them, so that grey pictures have the same bits on every machine.
#pragma once

#include <cstdint>

namespace lockstep::trainer {

/// `rgb` has three bytes.
inline uint8_t Luma(const uint8_t* rgb) {
  return static_cast<uint8_t>((19595 * rgb[0] + 38470 * rgb[1] + 7471 * rgb[2] + 0x8000) >> 16);
}

}  // namespace lockstep::trainer
