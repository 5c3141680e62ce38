// The overflows of float16 that are no trouble, and those that are.
#include "trainer/overflows.h"

#include <gtest/gtest.h>

#include <limits>

namespace lockstep::trainer {
namespace {

constexpr double kLoss = 2.3;

int TroublesOf(Overflows& overflows, int steps, bool nonfinite = true, double loss = kLoss) {
  int troubles = 0;
  for (int i = 0; i < steps; ++i) troubles += overflows.IsTrouble(nonfinite, loss) ? 1 : 0;
  return troubles;
}

TEST(OverflowsTest, TheFirstStepsOfAScaledRunAreNoTrouble) {
  Overflows overflows(/*scaled=*/true);
  EXPECT_EQ(TroublesOf(overflows, 9), 0);
  EXPECT_EQ(TroublesOf(overflows, 100, /*nonfinite=*/false), 0);
  EXPECT_EQ(TroublesOf(overflows, 2), 0);
}

TEST(OverflowsTest, WithoutALossScaleEachStepIsTrouble) {
  Overflows overflows(/*scaled=*/false);
  EXPECT_EQ(TroublesOf(overflows, 3), 3);
  EXPECT_EQ(TroublesOf(overflows, 10'000, /*nonfinite=*/false), 0);
  EXPECT_EQ(TroublesOf(overflows, 1), 1);
}

TEST(OverflowsTest, ALossThatIsNotFiniteIsTroubleAtAnyScale) {
  for (const double loss :
       {std::numeric_limits<double>::infinity(), std::numeric_limits<double>::quiet_NaN()}) {
    Overflows overflows(/*scaled=*/true);
    EXPECT_EQ(TroublesOf(overflows, 1, /*nonfinite=*/true, loss), 1);
  }
}

TEST(OverflowsTest, MoreOverflowsThanTheScaleHasCutsAreTrouble) {
  Overflows overflows(/*scaled=*/true);
  EXPECT_EQ(TroublesOf(overflows, 30), 30 - 24);
}

TEST(OverflowsTest, EachTimeTheScaleGrewItMayBeCutOnceMore) {
  Overflows overflows(/*scaled=*/true);
  EXPECT_EQ(TroublesOf(overflows, 24), 0);
  EXPECT_EQ(TroublesOf(overflows, 4000, /*nonfinite=*/false), 0);
  EXPECT_EQ(TroublesOf(overflows, 3), 1);
  // It takes 2,000 in a row.
  EXPECT_EQ(TroublesOf(overflows, 1999, /*nonfinite=*/false), 0);
  EXPECT_EQ(TroublesOf(overflows, 1), 1);
  EXPECT_EQ(TroublesOf(overflows, 1999, /*nonfinite=*/false), 0);
  EXPECT_EQ(TroublesOf(overflows, 1), 1);
}

}  // namespace
}  // namespace lockstep::trainer
