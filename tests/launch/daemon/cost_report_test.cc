// The ledger summed up for people.
#include "launch/services/cost_report.h"

#include <gtest/gtest.h>

namespace lockstep::launch {
namespace {

using config::Phase;

StoredLine Line(const std::string& run, int rank, Phase phase, double to_unix, int64_t micros) {
  StoredLine stored;
  stored.run = run;
  stored.line.rank = rank;
  stored.line.phase = phase;
  stored.line.to_unix = to_unix;
  stored.line.microseconds = 1000 * micros;
  stored.line.microjoules = 7;
  stored.line.bytes = 3;
  stored.line.money = {micros, 2, 1};
  return stored;
}

const std::map<std::string, CostSubject> kRuns = {{"old", {"first", 1}}, {"new", {"second", 2}}};

std::vector<StoredLine> Lines() {
  constexpr double kDay = 86400;
  return {Line("old", 0, Phase::kForward, kDay - 1, 10), Line("old", 1, Phase::kForward, kDay, 20),
          Line("old", 1, Phase::kRedone, kDay + 5, 40), Line("new", 0, Phase::kStartup, 3, 80)};
}

std::vector<std::string> Keys(const v1::GetCostResponse& report) {
  std::vector<std::string> keys;
  for (const v1::CostLine& line : report.lines()) keys.push_back(line.key());
  return keys;
}

TEST(CostReportTest, LinesStandInAnOrderThatPeopleExpect) {
  using Keyed = std::vector<std::string>;
  EXPECT_EQ(Keys(SumUp(Lines(), v1::COST_GROUPING_PHASE, kRuns)),
            (Keyed{"startup", "forward", "redone"}));
  EXPECT_EQ(Keys(SumUp(Lines(), v1::COST_GROUPING_RANK, kRuns)), (Keyed{"0", "1"}));
  EXPECT_EQ(Keys(SumUp(Lines(), v1::COST_GROUPING_DAY, kRuns)),
            (Keyed{"1970-01-01", "1970-01-02"}));
  const v1::GetCostResponse runs = SumUp(Lines(), v1::COST_GROUPING_RUN, kRuns);
  EXPECT_EQ(Keys(runs), (Keyed{"new", "old"})) << "the newest first";
  EXPECT_EQ(runs.lines(1).name(), "first");
}

TEST(CostReportTest, EveryGroupingHasTheSameTotalWhichIsTheSumOfItsLines) {
  for (const v1::CostGrouping by : {v1::COST_GROUPING_PHASE, v1::COST_GROUPING_RANK,
                                    v1::COST_GROUPING_DAY, v1::COST_GROUPING_RUN}) {
    const v1::GetCostResponse report = SumUp(Lines(), by, kRuns);
    int64_t hardware = 0;
    int64_t microseconds = 0;
    for (const v1::CostLine& line : report.lines()) {
      hardware += line.hardware_micros();
      microseconds += line.rank_microseconds();
    }
    EXPECT_EQ(hardware, 150);
    EXPECT_EQ(report.total().hardware_micros(), 150);
    EXPECT_EQ(report.total().energy_micros(), 8);
    EXPECT_EQ(report.total().transfer_micros(), 4);
    EXPECT_EQ(report.total().bytes(), 12);
    EXPECT_EQ(report.total().microjoules(), 28);
    EXPECT_EQ(report.total().rank_microseconds(), microseconds);
  }
}

}  // namespace
}  // namespace lockstep::launch
