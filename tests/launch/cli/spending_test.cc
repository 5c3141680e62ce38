#include "launch/cli/spending.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "launch/cli/follow.h"
#include "launch/cli/format.h"
#include "launch/cli/progress.h"
#include "launch/cli/run_json.h"

namespace lockstep::cli {
namespace {

using ::testing::ElementsAre;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

v1::Run Spending(double ratio) {
  v1::Run run;
  run.set_run_id("3fa1c2");
  run.set_state(v1::RUN_STATE_RUNNING);
  run.set_attempt(1);
  run.set_cost(0.42);
  run.set_currency("EUR");
  v1::Progress* progress = run.mutable_progress();
  progress->set_step(100);
  progress->set_total_steps(400);
  progress->set_loss(0.5);
  progress->set_samples_per_second(100);
  v1::Spending* spending = run.mutable_spending();
  spending->set_hardware_micros(400'000);
  spending->set_energy_micros(15'000);
  spending->set_transfer_micros(5'000);
  spending->set_energy_joules(12'345);
  spending->set_watts(45);
  spending->set_projected_cost(2.04);
  spending->set_limit_ratio(ratio);
  spending->set_limit("cost.max_cost 5.00 EUR");
  return run;
}

v1::Run HeldUp(const std::string& cause) {
  v1::Run run = Spending(0.1);
  v1::Straggler* straggler = run.mutable_straggler();
  straggler->set_rank(1);
  straggler->set_share(0.82);
  straggler->set_seconds_per_step(0.0123);
  straggler->set_cause(cause);
  straggler->set_text("rank 1 is the slowest in 82 % of the steps: it waits for its data");
  return run;
}

TEST(SpendingTest, ACostSaysWhatItWasFor) {
  EXPECT_EQ(DescribeCost(Spending(0.1)),
            "0.4200 EUR (hardware 0.4000, energy 0.0150, transfer 0.0050)");
  v1::Run run = Spending(0.1);
  run.mutable_spending()->clear_energy_micros();
  run.mutable_spending()->clear_transfer_micros();
  EXPECT_EQ(DescribeCost(run), "0.4200 EUR");
}

TEST(SpendingTest, EnergyIsInTheUnitPeopleUse) {
  EXPECT_EQ(DescribeEnergy(Spending(0.1)), "12.3 kJ, 45 W now");
  v1::Run run = Spending(0.1);
  run.mutable_spending()->set_energy_joules(4.5e6);
  run.mutable_spending()->set_energy_estimated(true);
  run.mutable_spending()->set_watts(0);
  EXPECT_EQ(DescribeEnergy(run), "1.25 kWh, partly estimated");
  EXPECT_EQ(FormatJoules(12), "12 J");
  EXPECT_EQ(FormatWatts(1234), "1.23 kW");
  EXPECT_EQ(FormatWatts(-1), "-");
}

TEST(SpendingTest, WarningsAreAtEightyAndNinetyFivePercentOfARunThatGoesOn) {
  EXPECT_EQ(WarningPercent(Spending(0.79)), 0);
  EXPECT_EQ(WarningPercent(Spending(0.8)), 80);
  EXPECT_EQ(WarningPercent(Spending(0.949)), 80);
  EXPECT_EQ(WarningPercent(Spending(0.95)), 95);
  v1::Run ended = Spending(1.01);
  ended.set_state(v1::RUN_STATE_STOPPED);
  EXPECT_EQ(WarningPercent(ended), 0);
  EXPECT_EQ(DescribeProjected(ended), "") << "its cost is what it cost";
}

TEST(SpendingTest, TheProgressLineShowsTheEndAndALimitThatIsNear) {
  const std::string far = ProgressLine(Spending(0.3), {.columns = 200});
  EXPECT_THAT(far, HasSubstr("0.4200 EUR (2.04 EUR at the end)"));
  EXPECT_THAT(far, Not(HasSubstr("limit")));
  EXPECT_THAT(ProgressLine(Spending(0.85), {.columns = 200}), HasSubstr("85.0% of limit"));
  EXPECT_THAT(ProgressLine(Spending(0.85), {.columns = 60}), HasSubstr("85.0% of limit"))
      << "a warning stays where cost and rate go";
  for (int columns = 1; columns < 200; ++columns) {
    EXPECT_LE(DisplayWidth(ProgressLine(Spending(0.96), {.columns = columns, .color = true})),
              columns);
  }
}

TEST(SpendingTest, ThePlainLineShowsLimitAndStraggler) {
  EXPECT_THAT(PlainProgress(HeldUp("data_loader")),
              EndsWith("cost 0.4200 EUR (2.04 EUR at the end)  10.0% of cost.max_cost 5.00 EUR  "
                       "waits for rank 1 (data_loader)"));
}

TEST(SpendingTest, AStragglerIsASentence) {
  EXPECT_EQ(DescribeStraggler(HeldUp("data_loader").straggler()),
            "rank 1 is the slowest in 82 % of the steps: it waits for its data (data_loader)");
  v1::Straggler bare = HeldUp("").straggler();
  bare.clear_text();
  EXPECT_EQ(DescribeStraggler(bare), "rank 1 is the slowest in 82.0% of the steps");
}

TEST(SpendingTest, TheNarratorWarnsOnceAtEachPercentage) {
  Narrator narrator({});
  narrator.Tell(Spending(0.5), 0, "t");
  EXPECT_THAT(narrator.Tell(Spending(0.81), 1, "t"),
              ElementsAre("t  warning: 81.0% of cost.max_cost 5.00 EUR is used up; 2.04 EUR at the "
                          "end"));
  EXPECT_THAT(narrator.Tell(Spending(0.9), 2, "t"), IsEmpty());
  EXPECT_THAT(narrator.Tell(Spending(0.96), 3, "t"), ElementsAre(HasSubstr("warning: 96.0%")));
  EXPECT_THAT(narrator.Tell(Spending(0.99), 4, "t"), IsEmpty());
}

TEST(SpendingTest, TheNarratorNamesAStragglerAndANewCauseAfterAWhile) {
  Narrator narrator({});
  narrator.Tell(Spending(0.1), 0, "t");
  EXPECT_THAT(narrator.Tell(HeldUp("data_loader"), 1, "t"),
              ElementsAre(HasSubstr("straggler: rank 1 is the slowest in 82 %")));
  EXPECT_THAT(narrator.Tell(HeldUp("data_loader"), 100, "t"), IsEmpty());
  EXPECT_THAT(narrator.Tell(HeldUp("not_running"), 30, "t"), IsEmpty()) << "too soon";
  EXPECT_THAT(narrator.Tell(HeldUp("not_running"), 62, "t"),
              ElementsAre(HasSubstr("(not_running)")));
}

TEST(SpendingTest, JsonHasItAllAndNullWhereNothingIsKnown) {
  const Json held = ToJson(HeldUp("data_loader"));
  EXPECT_EQ(held["spending"]["hardware_micros"], 400'000);
  EXPECT_EQ(held["spending"]["projected_cost"], 2.04);
  EXPECT_EQ(held["spending"]["limit"], "cost.max_cost 5.00 EUR");
  EXPECT_EQ(held["straggler"]["cause"], "data_loader");
  v1::Run run = Spending(0.1);
  run.mutable_spending()->set_projected_cost(-1);
  run.mutable_spending()->clear_limit();
  EXPECT_EQ(ToJson(run)["spending"]["projected_cost"], nullptr);
  EXPECT_EQ(ToJson(run)["spending"]["limit_ratio"], nullptr);
  EXPECT_EQ(ToJson(run)["straggler"], nullptr);
  EXPECT_EQ(ToJson(v1::Run())["spending"], nullptr);
}

}  // namespace
}  // namespace lockstep::cli
