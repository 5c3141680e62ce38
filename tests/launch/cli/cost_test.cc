// cost: the table adds up as it stands there, CSV and JSON are for programs.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "tests/launch/cli/fake_coordinator.h"
#include "tests/launch/cli/process.h"

namespace lockstep::cli {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using Json = nlohmann::json;

void Fill(v1::CostLine& line, const std::string& key, int64_t seconds, int64_t hardware,
          int64_t energy) {
  line.set_key(key);
  line.set_rank_microseconds(seconds * 1'000'000);
  line.set_microjoules(36'000'000);
  line.set_hardware_micros(hardware);
  line.set_energy_micros(energy);
}

class CostTest : public ::testing::Test {
 protected:
  CostTest() : coordinator_((folder_.path() / "sock").string()) {
    v1::GetCostResponse& cost = coordinator_.cost;
    cost.set_currency("EUR");
    cost.set_by(v1::COST_GROUPING_PHASE);
    cost.set_ranks(2);
    cost.set_wall_seconds(65);
    Fill(*cost.add_lines(), "forward", 120, 1'234'567, 3);
    Fill(*cost.add_lines(), "redone", 10, 1, 0);
    cost.mutable_lines(1)->set_energy_estimated(true);
    Fill(*cost.mutable_total(), "total", 130, 1'234'568, 3);
    cost.mutable_total()->set_energy_estimated(true);
    coordinator_.Start();
  }
  Result Cost(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), {LOCKSTEP_PROGRAM, "cost"});
    return RunToEnd(arguments, {.environment = {{"LOCKSTEP_SOCKET", coordinator_.socket()}}});
  }

  TempFolder folder_;
  FakeCoordinator coordinator_;
};

TEST_F(CostTest, TheTableSaysWhatEachPhaseIsAndAddsUp) {
  const Result result = Cost({"3fa1"});
  EXPECT_EQ(result.code, 0) << result.err;
  EXPECT_THAT(result.out, HasSubstr("steps done again after a failure"));
  EXPECT_THAT(result.out, HasSubstr("1.234570")) << "hardware and energy of the forward pass";
  EXPECT_THAT(result.out, HasSubstr("0.000001"));
  EXPECT_THAT(result.out, HasSubstr("1.234571")) << "the total";
  EXPECT_THAT(result.out, HasSubstr("1m00s")) << "of each of the two ranks";
  EXPECT_THAT(result.err, HasSubstr("not metered"));
  EXPECT_EQ(coordinator_.last_cost().run(), "3fa1");
  EXPECT_EQ(coordinator_.last_cost().by(), v1::COST_GROUPING_UNSPECIFIED);
}

TEST_F(CostTest, CsvHasLinesOnlyAndJsonEverything) {
  const Result csv = Cost({"--by", "rank", "--since", "2026-02-03", "-o", "csv"});
  EXPECT_EQ(csv.code, 0) << csv.err;
  EXPECT_EQ(coordinator_.last_cost().by(), v1::COST_GROUPING_RANK);
  EXPECT_EQ(coordinator_.last_cost().since_unix_seconds(), 1770076800);
  EXPECT_THAT(csv.out, HasSubstr("forward,,120.000000,36.000000,false,0,1.234567,0.000003,"
                                 "0.000000,1.234570,EUR\n"));
  EXPECT_THAT(csv.out, Not(HasSubstr("total")));
  const Json json = Json::parse(Cost({"-o", "json"}).out);
  EXPECT_EQ(json["total"]["cost_micros"], 1234571);
  EXPECT_EQ(json["lines"].size(), 2u);
  EXPECT_EQ(json["lines"][1]["energy_estimated"], true);
  EXPECT_EQ(json["wall_seconds"], 65);
  EXPECT_EQ(json["by"], "phase");
}

TEST_F(CostTest, WrongUseIsToldWithWhatIsExpected) {
  const Result day = Cost({"--since", "yesterday"});
  EXPECT_EQ(day.code, 2);
  EXPECT_THAT(day.err, HasSubstr("YYYY-MM-DD"));
  EXPECT_EQ(Cost({"--since", "2026-02-31"}).code, 2);
  EXPECT_EQ(Cost({"--by", "colour"}).code, 2);
  const Result other = RunToEnd({LOCKSTEP_PROGRAM, "list", "-o", "csv"},
                                {.environment = {{"LOCKSTEP_SOCKET", coordinator_.socket()}}});
  EXPECT_EQ(other.code, 2);
  EXPECT_THAT(other.err, HasSubstr("a table or json"));
}

TEST_F(CostTest, NothingSpentIsSaid) {
  coordinator_.cost.Clear();
  const Result result = Cost({});
  EXPECT_EQ(result.code, 0);
  EXPECT_EQ(result.out, "");
  EXPECT_THAT(result.err, HasSubstr("nothing has been spent yet"));
}

}  // namespace
}  // namespace lockstep::cli
