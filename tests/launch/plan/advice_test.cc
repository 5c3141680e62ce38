#include "launch/plan/advice.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace lockstep::plan {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

PlanRow Row(int ranks, double epoch_seconds, double cost) {
  PlanRow row;
  row.ranks = ranks;
  row.local_batch = 64;
  row.epoch.seconds = epoch_seconds;
  row.epoch.hardware_cost = cost;
  return row;
}

Plan PlanOf(std::vector<PlanRow> rows, bool priced = true) {
  Plan plan;
  plan.rows = std::move(rows);
  plan.gpu = true;
  plan.prices.known = priced;
  return plan;
}

TEST(AdviceTest, RanksThatHardlyHelpAreAdvisedAgainst) {
  const Advice advice = Advise(PlanOf({Row(1, 120, 1.0), Row(4, 100, 3.3)}));
  EXPECT_EQ(advice.ranks, 1);
  EXPECT_EQ(advice.headline, "4 GPUs are 1.2× faster than 1 and cost 3.3×: use 1");
}

TEST(AdviceTest, RanksThatPayAreAdvised) {
  const Advice advice = Advise(PlanOf({Row(1, 190, 1.0), Row(2, 100, 1.05)}));
  EXPECT_EQ(advice.ranks, 2);
  EXPECT_EQ(advice.headline, "2 GPUs are 1.9× faster than 1 and cost 1.05×: use 2");
}

TEST(AdviceTest, EveryOtherRowIsToldToo) {
  const Advice advice =
      Advise(PlanOf({Row(1, 400, 1.0), Row(2, 210, 1.05), Row(4, 120, 1.2), Row(8, 110, 2.2)}));
  EXPECT_EQ(advice.ranks, 4);
  EXPECT_EQ(advice.headline, "4 GPUs are 3.3× faster than 1 and cost 1.2×: use 4");
  EXPECT_THAT(advice.notes, ElementsAre("2 GPUs are 1.9× faster than 1 and cost 1.05×",
                                        "8 GPUs are 3.6× faster than 1 and cost 2.2×"));
}

TEST(AdviceTest, WithoutPricesRankHoursStandForMoney) {
  const Advice advice = Advise(PlanOf({Row(1, 120, 0), Row(4, 100, 0)}, /*priced=*/false));
  EXPECT_EQ(advice.ranks, 1);
  EXPECT_THAT(advice.headline, HasSubstr("take 3.3× the rank-hours"));
}

TEST(AdviceTest, MoreRanksCanBeSlower) {
  const Advice advice = Advise(PlanOf({Row(1, 100, 1.0), Row(2, 150, 3.0)}));
  EXPECT_EQ(advice.headline, "2 GPUs are 1.5× slower than 1 and cost 3×: use 1");
}

TEST(AdviceTest, WhatDoesNotFitIsNotAdvisedAndSaysWhatWould) {
  PlanRow tight = Row(1, 400, 1.0);
  tight.fits = false;
  tight.available_bytes = int64_t{8} << 30;
  tight.micro_batch_size = 32;
  const Advice advice = Advise(PlanOf({tight, Row(2, 210, 1.05)}));
  EXPECT_EQ(advice.ranks, 2);
  EXPECT_THAT(advice.notes,
              ElementsAre("1 GPU does not fit: 64 samples a rank take more than the 8.0 GiB there "
                          "are; set training.micro_batch_size: 32"));
}

TEST(AdviceTest, RowsBeyondTheRunsLimitsAreNotAdvised) {
  PlanRow dear = Row(2, 100, 1.05);
  dear.over_max_cost = true;
  const Advice advice = Advise(PlanOf({Row(1, 190, 1.0), dear}));
  EXPECT_EQ(advice.ranks, 1);
  EXPECT_THAT(advice.notes, ElementsAre("2 GPUs would run into cost.max_cost"));
}

TEST(AdviceTest, SaysSoWhenNothingIsLeft) {
  PlanRow late = Row(1, 100, 1.0);
  late.over_max_time = true;
  const Advice advice = Advise(PlanOf({late}));
  EXPECT_EQ(advice.ranks, 0);
  EXPECT_THAT(advice.headline, HasSubstr("none of these"));
}

}  // namespace
}  // namespace lockstep::plan
