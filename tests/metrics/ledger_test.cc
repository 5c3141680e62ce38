// Where every second of every rank goes, and what it costs.
#include "metrics/ledger.h"

#include <gtest/gtest.h>

#include <map>

namespace lockstep::metrics {
namespace {

using config::Phase;
using Interval = Account::Interval;

constexpr double kUnix = 1.7e9;  // 2023-11-14, 22:13:20 UTC; a multiple of a second, of no quarter.

AccountTime At(double monotonic) {
  return {monotonic, kUnix + monotonic};
}

// One a rank and second, so that money reads like time.
Pricing OneASecond() {
  return Pricing({.per_rank_hour = 3600}, "host");
}

RankUsage Told(std::initializer_list<std::pair<Phase, double>> values) {
  RankUsage usage;
  usage.known = true;
  for (const auto& [phase, seconds] : values) {
    usage.phase_seconds[static_cast<size_t>(phase)] = seconds;
  }
  return usage;
}

double Get(const Account& account, Phase phase) {
  return account.totals().seconds[static_cast<size_t>(phase)];
}

double Cost(const Account& account) {
  return static_cast<double>(account.cost().total()) / kMicrosPerUnit;
}

TEST(LedgerTest, TheTimeBeforeARankCountsIsStartup) {
  Account account;
  const Pricing pricing = OneASecond();
  account.Switch(Interval::kAttempt, 1, 2, At(100), pricing);
  account.Observe({{}, {}}, At(101), pricing);
  EXPECT_DOUBLE_EQ(Get(account, Phase::kStartup), 1);
  // mpirun needed 2 s; rank 0 has counted 3 s, of rank 1 nothing is known.
  account.Observe({Told({{Phase::kStartup, 1}, {Phase::kForward, 2}}), {}}, At(105), pricing);
  EXPECT_DOUBLE_EQ(Get(account, Phase::kStartup), (3 + 5) / 2.0);
  EXPECT_DOUBLE_EQ(Get(account, Phase::kForward), 1);
  EXPECT_DOUBLE_EQ(Sum(account.totals().seconds), 5);
  EXPECT_DOUBLE_EQ(Cost(account), 10);
}

TEST(LedgerTest, WhatWasNotToldIsRecoveryAfterACrashAndOtherAfterAnOrderlyEnd) {
  for (const bool crashed : {false, true}) {
    Account account;
    const Pricing pricing = OneASecond();
    account.Switch(Interval::kAttempt, 1, 1, At(0), pricing);
    account.Observe({Told({{Phase::kForward, 10}})}, At(10), pricing);
    account.Switch(Interval::kIdle, 1, 1, At(13), pricing, crashed);
    EXPECT_DOUBLE_EQ(Get(account, crashed ? Phase::kRecovery : Phase::kOther), 3);
    EXPECT_DOUBLE_EQ(Sum(account.totals().seconds), 13);
    EXPECT_DOUBLE_EQ(Cost(account), 13);
  }
}

TEST(LedgerTest, APauseWithoutProcessesIsWallTimeThatCostsNothing) {
  Account account;
  const Pricing pricing = OneASecond();
  account.Switch(Interval::kAttempt, 1, 1, At(0), pricing);
  account.Observe({Told({{Phase::kForward, 8}, {Phase::kPaused, 2}})}, At(10), pricing);
  account.Switch(Interval::kPausedFree, 1, 1, At(10), pricing);
  account.Advance(At(60), pricing);
  account.Advance(At(110), pricing);
  EXPECT_DOUBLE_EQ(Get(account, Phase::kPaused), 102);
  EXPECT_DOUBLE_EQ(Cost(account), 10);
  EXPECT_DOUBLE_EQ(account.HeldSeconds(110), 10);
  account.Switch(Interval::kAttempt, 2, 1, At(110), pricing);
  account.Switch(Interval::kRecovery, 2, 1, At(115), pricing, true);
  account.Advance(At(118), pricing);
  EXPECT_DOUBLE_EQ(account.HeldSeconds(118), 18);
  EXPECT_DOUBLE_EQ(Sum(account.totals().seconds), 118);
  EXPECT_DOUBLE_EQ(Cost(account), 18);
}

TEST(LedgerTest, UnsettledTimeIsCountedOnceItsPhaseIsClear) {
  Account account;
  const Pricing pricing = OneASecond();
  account.Switch(Interval::kAttempt, 1, 1, At(0), pricing);
  RankUsage usage = Told({{Phase::kForward, 6}});
  usage.unsettled_seconds = 3;
  account.Observe({usage}, At(10), pricing);
  EXPECT_DOUBLE_EQ(Get(account, Phase::kStartup), 1);
  EXPECT_DOUBLE_EQ(Sum(account.totals().seconds), 7);
  usage.unsettled_seconds = 0;
  usage.phase_seconds[static_cast<size_t>(Phase::kStragglerWait)] = 2;
  usage.phase_seconds[static_cast<size_t>(Phase::kAllreduceExposed)] = 1;
  account.Observe({usage}, At(10), pricing);
  EXPECT_DOUBLE_EQ(Get(account, Phase::kStragglerWait), 2);
  EXPECT_DOUBLE_EQ(Get(account, Phase::kAllreduceExposed), 1);
  EXPECT_DOUBLE_EQ(Sum(account.totals().seconds), 10);
}

TEST(LedgerTest, ARankThatTellsMoreThanHasPassedIsNotBelieved) {
  Account account;
  const Pricing pricing = OneASecond();
  account.Switch(Interval::kAttempt, 1, 1, At(0), pricing);
  account.Observe({Told({{Phase::kForward, 1}})}, At(2), pricing);
  account.Observe({Told({{Phase::kForward, 50}})}, At(10), pricing);
  EXPECT_DOUBLE_EQ(Sum(account.totals().seconds), 10);
  account.Switch(Interval::kIdle, 1, 1, At(10), pricing);
  EXPECT_DOUBLE_EQ(Sum(account.totals().seconds), 10);
}

TEST(LedgerTest, PostedAndOpenLinesSumToTheCostExactlyAtAnyPriceAndPace) {
  // Prices and steps that no millionth divides.
  const Pricing pricing({.per_rank_hour = 0.37, .per_kwh = 0.2937, .transfers = {{.per_gb = 0.09}}},
                        "host");
  Account account;
  account.Switch(Interval::kAttempt, 1, 3, At(0), pricing);
  Money posted;
  int64_t microseconds = 0;
  int64_t before = 0;
  std::map<int, double> last;
  const auto check = [&] {
    Money sum = posted;
    for (const LedgerLine& line : account.PendingLines()) sum += line.money;
    EXPECT_EQ(sum, account.cost());
    EXPECT_GE(sum.total(), before);
    before = sum.total();
  };
  const auto take = [&] {
    for (const LedgerLine& line : account.TakeLines()) {
      posted += line.money;
      microseconds += line.microseconds;
      EXPECT_LE(line.from_unix, line.to_unix);
      EXPECT_GT(line.to_unix - line.from_unix, 0);
      EXPECT_LE(line.to_unix - line.from_unix, 901) << "posted each quarter of an hour";
    }
  };
  double now = 0;
  for (int i = 1; i <= 5000; ++i) {
    now += 0.7301;
    RankUsage usage = Told({{Phase::kForward, 0.4 * now}, {Phase::kBackward, 0.6 * now}});
    usage.dataset_bytes = 12345 * i;
    if (i % 2 == 0) usage.joules = 17.31;
    account.Observe({usage, usage, usage}, At(now), pricing);
    if (i % 7 == 0) take();
    check();
  }
  account.Switch(Interval::kIdle, 1, 3, At(now), pricing);
  take();
  check();
  EXPECT_EQ(posted, account.cost());
  EXPECT_EQ(microseconds, 3 * static_cast<int64_t>(now * 1e6));
  const double hours = now / 3600;
  EXPECT_NEAR(1e-6 * static_cast<double>(posted.hardware), 3 * 0.37 * hours, 1e-4);
  EXPECT_NEAR(1e-6 * static_cast<double>(posted.transfer), 3 * 12345e-9 * 5000 * 0.09, 1e-4);
  // Half of the looks had no meter: there the estimate of 15 W counts.
  const double joules = 3 * (2500 * 17.31 + 2500 * 0.7301 * 15);
  EXPECT_NEAR(account.totals().energy_joules(), joules, 1);
  EXPECT_TRUE(account.totals().estimated);
  EXPECT_NEAR(1e-6 * static_cast<double>(posted.energy), joules / 3.6e6 * 0.2937, 1e-4);
}

TEST(LedgerTest, MeteredEnergyIsSpreadAsTheTimeWas) {
  Account account;
  const Pricing pricing = OneASecond();
  account.Switch(Interval::kAttempt, 1, 1, At(0), pricing);
  RankUsage usage = Told({{Phase::kForward, 1}, {Phase::kBackward, 3}});
  usage.joules = 400;
  account.Observe({usage}, At(4), pricing);
  const auto joules = account.totals().joules;
  EXPECT_NEAR(joules[static_cast<size_t>(Phase::kForward)], 100, 1e-5);
  EXPECT_NEAR(joules[static_cast<size_t>(Phase::kBackward)], 300, 1e-5);
  EXPECT_FALSE(account.totals().estimated);
  EXPECT_NEAR(account.watts(), 100, 1e-9);
}

TEST(LedgerTest, PowerIsOfTheLastLookWhateverEnergyWaitsForItsPhase) {
  Account account;
  const Pricing pricing = OneASecond();
  account.Switch(Interval::kAttempt, 1, 1, At(0), pricing);
  RankUsage usage = Told({{Phase::kForward, 1}});
  usage.joules = 300;
  account.Observe({usage}, At(1), pricing);
  for (int second = 2; second <= 10; ++second) {  // In one long reduce.
    usage.unsettled_seconds = second - 1;
    account.Observe({usage}, At(second), pricing);
    EXPECT_NEAR(account.watts(), 300, 1e-9);
  }
  account.Switch(Interval::kIdle, 1, 1, At(10), pricing);
  EXPECT_NEAR(account.totals().energy_joules(), 3000, 1e-3);
}

TEST(LedgerTest, LongTimesAtGreatPricesDoNotOverflow) {
  const Pricing pricing({.per_rank_hour = 1e9}, "host");
  Account account;
  account.Switch(Interval::kAttempt, 1, 1, At(0), pricing);
  account.Observe({Told({{Phase::kForward, 10}})}, At(10), pricing);
  const double day = 86400;  // The daemon was down for so long.
  account.Observe({Told({{Phase::kForward, day}})}, At(day), pricing);
  EXPECT_NEAR(Cost(account), 24e9, 1);
  account.Observe({Told({{Phase::kForward, 1e300}})}, At(day + 1), pricing);
  EXPECT_DOUBLE_EQ(Sum(account.totals().seconds), day + 1);
}

TEST(LedgerTest, AnAttemptLivedAtLeastAsLongAsItsRanksTell) {
  Account account;
  const Pricing pricing = OneASecond();
  account.Switch(Interval::kAttempt, 1, 2, At(100), pricing);
  const RankUsage early = Told({{Phase::kForward, 3}});
  account.Observe({early, early}, At(105), pricing);  // 2 s until the ranks' own account began.
  RankUsage late = Told({{Phase::kForward, 20}});
  late.unsettled_seconds = 1;
  EXPECT_DOUBLE_EQ(account.LivedUntil({early, early}), 105);
  EXPECT_DOUBLE_EQ(account.LivedUntil({early, late}), 100 + 2 + 21);
  EXPECT_DOUBLE_EQ(Account::Load(account.state(), -5000).LivedUntil({early, late}), 123 - 5000);
}

TEST(LedgerTest, TheHourOfTheDayDecidesThePrice) {
  config::PriceConfig prices;
  prices.per_rank_hour = 1;
  prices.devices = {{.device = "*H200*", .host = "node-*", .hours = "22:00-06:00", .per_hour = 2},
                    {.device = "*h200*", .per_hour = 4}};
  const Pricing pricing(prices, "node-7");
  const double midnight = [] {
    time_t now = static_cast<time_t>(kUnix);
    tm local{};
    localtime_r(&now, &local);
    local.tm_hour = local.tm_min = local.tm_sec = 0;
    return static_cast<double>(mktime(&local));
  }();
  EXPECT_EQ(pricing.HardwarePerHour("NVIDIA H200", midnight + 3 * 3600), 2);
  EXPECT_EQ(pricing.HardwarePerHour("NVIDIA H200", midnight + 6 * 3600), 4);
  EXPECT_EQ(pricing.HardwarePerHour("NVIDIA H200", midnight + 22 * 3600), 2);
  EXPECT_EQ(pricing.HardwarePerHour("cpu", midnight), 1);
  EXPECT_TRUE(WithinHours("08:00-08:00", midnight)) << "a whole day";
  EXPECT_TRUE(WithinHours("00:00-24:00", midnight + 86399));
  EXPECT_EQ(Pricing(prices, "other").HardwarePerHour("NVIDIA H200", midnight), 4);
  // Two hours of it cheap, one dear.
  EXPECT_NEAR(pricing.HardwarePerHour("NVIDIA H200", midnight + 4 * 3600, midnight + 7 * 3600),
              (2 * 2 + 4) / 3.0, 1e-9);
}

TEST(LedgerTest, PatternsMatchWholeNames) {
  EXPECT_TRUE(Matches("*", ""));
  EXPECT_TRUE(Matches("*", "anything"));
  EXPECT_TRUE(Matches("cpu", "CPU"));
  EXPECT_FALSE(Matches("cpu", "cpus"));
  EXPECT_TRUE(Matches("*A100*80GB", "NVIDIA A100-SXM4-80GB"));
  EXPECT_FALSE(Matches("*A100*40GB", "NVIDIA A100-SXM4-80GB"));
  EXPECT_TRUE(Matches("a*b*c", "aXbbXbc"));
  EXPECT_FALSE(Matches("", "x"));
}

TEST(LedgerTest, AnAccountThatWasStoredGoesOnAndAShiftMovesItWithTheOtherClock) {
  const Pricing pricing = OneASecond();
  Account account;
  account.Switch(Interval::kAttempt, 1, 1, At(1000), pricing);
  account.Observe({Told({{Phase::kForward, 4}})}, At(1005), pricing);
  Account moved = Account::Load(account.state(), -900);
  moved.Observe({Told({{Phase::kForward, 9}})}, {110, kUnix + 1010}, pricing);
  account.Observe({Told({{Phase::kForward, 9}})}, At(1010), pricing);
  EXPECT_EQ(moved.totals().seconds, account.totals().seconds);
  EXPECT_EQ(moved.cost(), account.cost());
  EXPECT_EQ(moved.HeldSeconds(110), account.HeldSeconds(1010));
}

TEST(LedgerTest, TimeFromBeforeTheLedgerIsPricedOnce) {
  Account::State state;
  state.ranks.resize(2);
  for (auto& rank : state.ranks) {
    rank.open[static_cast<size_t>(Phase::kForward)].microseconds = 10'000'000;
    rank.open[Account::kRows - 1].microseconds = 90'000'000;
  }
  Account account = Account::Load(state, 0);
  account.PriceOpenLines(At(5), OneASecond());
  EXPECT_DOUBLE_EQ(Cost(account), 20);
  EXPECT_DOUBLE_EQ(Sum(account.totals().seconds), 100);
}

}  // namespace
}  // namespace lockstep::metrics
