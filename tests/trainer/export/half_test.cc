// float32 to float16 against the format's definition, for every half there is and what lies
// between.
#include "trainer/export/half.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace lockstep::trainer {
namespace {

// IEEE 754 binary16: sign, five bits of exponent with bias 15, ten of fraction.
double ValueOf(uint16_t bits) {
  const int exponent = (bits >> 10) & 31;
  const int fraction = bits & 1023;
  const double sign = (bits & 0x8000) != 0 ? -1.0 : 1.0;
  if (exponent == 31) return fraction == 0 ? sign * HUGE_VAL : std::nan("");
  if (exponent == 0) return sign * std::ldexp(fraction, -24);
  return sign * std::ldexp(1024 + fraction, exponent - 25);
}

TEST(HalfTest, EveryHalfComesBack) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const double value = ValueOf(static_cast<uint16_t>(bits));
    if (std::isnan(value)) continue;
    EXPECT_EQ(HalfBits(static_cast<float>(value)), bits) << value;
  }
}

TEST(HalfTest, BetweenTwoHalvesTheNearerAndInTheMiddleTheEvenOne) {
  for (uint16_t bits = 0; bits < 0x7bff; ++bits) {
    const double low = ValueOf(bits), high = ValueOf(bits + 1);
    const auto at = [&](double share) {
      return HalfBits(static_cast<float>(low + (high - low) * share));
    };
    EXPECT_EQ(at(0.25), bits);
    EXPECT_EQ(at(0.75), bits + 1);
    EXPECT_EQ(at(0.5), bits % 2 == 0 ? bits : bits + 1);
  }
}

TEST(HalfTest, TheEndsOfTheRange) {
  EXPECT_EQ(HalfBits(65504.0f), 0x7bff);
  EXPECT_EQ(HalfBits(65519.996f), 0x7bff);
  EXPECT_EQ(HalfBits(65520.0f), 0x7c00);
  EXPECT_EQ(HalfBits(-1e30f), 0xfc00);
  EXPECT_EQ(HalfBits(std::numeric_limits<float>::quiet_NaN()) & 0x7c00, 0x7c00);
  EXPECT_NE(HalfBits(std::numeric_limits<float>::quiet_NaN()) & 0x03ff, 0);
  EXPECT_EQ(HalfBits(std::ldexp(1.0f, -26)), 0);
  EXPECT_EQ(HalfBits(-0.0f), 0x8000);
}

}  // namespace
}  // namespace lockstep::trainer
