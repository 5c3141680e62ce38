#include "trainer/pictures/exact_math.h"

#include <gtest/gtest.h>

#include <cmath>

namespace lockstep::trainer {
namespace {

TEST(ExactMath, LogarithmIsTheLibrarysToTheLastDigits) {
  for (const double x :
       {1e-300, 1e-9, 0.3, 0.70710678, 0.7071068, 1.0, 1.3, 2.0, 7.5, 1e9, 1e300}) {
    EXPECT_NEAR(ExactLog(x), std::log(x), 1e-14 * (1 + std::abs(std::log(x)))) << x;
  }
  EXPECT_EQ(ExactLog(1.0), 0.0);
}

TEST(ExactMath, ExponentialIsTheLibrarysToTheLastDigits) {
  for (const double x : {-700.0, -33.3, -1.0, -0.2, 0.0, 0.34, 0.35, 1.0, 20.5, 700.0}) {
    EXPECT_NEAR(ExactExp(x) / std::exp(x), 1, 2e-13) << x;
  }
  EXPECT_EQ(ExactExp(0.0), 1.0);
}

TEST(ExactMath, SineAndCosineAreTheLibrarysToTheLastDigits) {
  for (int degrees = -360; degrees <= 360; degrees += 7) {
    const double x = degrees * 3.14159265358979 / 180;
    const SineCosine turn = ExactSineCosine(x);
    EXPECT_NEAR(turn.sine, std::sin(x), 1e-12) << degrees;
    EXPECT_NEAR(turn.cosine, std::cos(x), 1e-12) << degrees;
  }
}

}  // namespace
}  // namespace lockstep::trainer
