// float32 to float16 (IEEE 754 binary16), rounded to nearest, ties to even; without LibTorch.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

namespace lockstep::trainer {

inline constexpr float kLargestHalf = 65504.0f;

/// The bits. Beyond +-65520 infinity; not a number stays one.
inline uint16_t HalfBits(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  const auto sign = static_cast<uint16_t>((bits >> 16) & 0x8000u);
  const uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return sign | 0x7e00u;
  if (magnitude >= 0x477ff000u) return sign | 0x7c00u;  // 65520 and more.
  if (magnitude < 0x38800000u) {  // Below 2^-14: subnormal, in units of 2^-24.
    // nearbyint follows the rounding mode, which nothing in this program changes: to nearest even.
    const float units = std::bit_cast<float>(magnitude) * 16777216.0f;
    return sign | static_cast<uint16_t>(std::nearbyint(units));
  }
  const uint32_t rebased = magnitude - (112u << 23);  // Exponent bias 127 to 15.
  return sign | static_cast<uint16_t>((rebased + 0xfffu + ((rebased >> 13) & 1u)) >> 13);
}

}  // namespace lockstep::trainer
