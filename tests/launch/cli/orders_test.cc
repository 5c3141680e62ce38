// The verbs that change something: what they print, and that an order is carried out once.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "tests/launch/cli/fake_coordinator.h"
#include "tests/launch/cli/process.h"

namespace lockstep::cli {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using Json = nlohmann::json;

constexpr const char* kGoodConfig =
    "name: tiny\n"
    "data: {kind: shapes}\n"
    "model: {name: cnn, cnn: {blocks: [{filters: 8}]}}\n"
    "training: {duration: 1ep, global_batch_size: 32}\n";

class OrdersTest : public ::testing::Test {
 protected:
  OrdersTest() : coordinator_((folder_.path() / "sock").string()) {
    coordinator_.Put(ExampleRun("a1b2c3", v1::RUN_STATE_RUNNING));
    coordinator_.Start();
  }

  Process::Options Options() const {
    return {.environment = {{"LOCKSTEP_SOCKET", coordinator_.socket()}},
            .folder = folder_.path().string()};
  }
  Result Lockstep(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), LOCKSTEP_PROGRAM);
    return RunToEnd(arguments, Options());
  }

  TempFolder folder_;
  FakeCoordinator coordinator_;
};

TEST_F(OrdersTest, PauseTellsTheStepAndWhatBecameOfTheSlots) {
  const Result result = Lockstep({"pause", "a1"});
  EXPECT_EQ(result.code, 0) << result.err;
  EXPECT_EQ(result.out,
            "paused a1b2c3 after step 120; its slots are free. `lockstep resume a1b2c3` goes on\n");
  EXPECT_THAT(Lockstep({"pause", "a1", "--hold"}).out, HasSubstr("keep their slots"));
  const Json json = Json::parse(Lockstep({"pause", "a1", "-o", "json"}).out);
  EXPECT_EQ(json["step"], 120);
  EXPECT_EQ(json["run"]["id"], "a1b2c3");
}

TEST_F(OrdersTest, EachOrderAnswersInOneLine) {
  EXPECT_EQ(Lockstep({"resume", "a1"}).out, "resumed a1b2c3: RUNNING\n");
  EXPECT_THAT(Lockstep({"stop", "a1"}).out, HasSubstr("stopped a1b2c3 after step 120"));
  EXPECT_THAT(Lockstep({"kill", "a1"}).out,
              AllOf(HasSubstr("killed a1b2c3"), HasSubstr("up to step 100")));
  EXPECT_EQ(Lockstep({"checkpoint", "a1"}).out,
            "checkpoint of step 120: 1.2 MiB in 0.2s, /runs/a/checkpoints/step-000000120\n");
}

TEST_F(OrdersTest, ResumeTakesNewLimits) {
  ASSERT_EQ(Lockstep({"resume", "a1"}).code, 0);
  EXPECT_FALSE(coordinator_.resume_limits.has_max_cost());
  ASSERT_EQ(Lockstep({"resume", "a1", "--max-cost", "12.5", "--max-time", "90m"}).code, 0);
  EXPECT_EQ(coordinator_.resume_limits.max_cost(), 12.5);
  EXPECT_FALSE(coordinator_.resume_limits.has_max_energy_kwh());
  EXPECT_EQ(coordinator_.resume_limits.max_time_seconds(), 5400);
  ASSERT_EQ(Lockstep({"resume", "a1", "--max-energy", "0", "--max-time", "0s"}).code, 0);
  EXPECT_TRUE(coordinator_.resume_limits.has_max_energy_kwh());
  EXPECT_TRUE(coordinator_.resume_limits.has_max_time_seconds());
  for (const char* time : {"5ep", "soon", "-2h"}) {
    const Result wrong = Lockstep({"resume", "a1", "--max-time", time});
    EXPECT_EQ(wrong.code, 2);
    EXPECT_THAT(wrong.err, HasSubstr("expected a time such as 90m"));
  }
  EXPECT_EQ(Lockstep({"resume", "a1", "--max-cost", "-1"}).code, 2);
}

TEST_F(OrdersTest, ACheckpointThatCouldNotBeWrittenIsAnError) {
  coordinator_.bad_checkpoint_error = "No space left on device";
  const Result result = Lockstep({"checkpoint", "a1"});
  EXPECT_EQ(result.code, 1);
  EXPECT_THAT(result.err, HasSubstr("No space left on device"));
  EXPECT_THAT(result.out, IsEmpty());
}

TEST_F(OrdersTest, AWrongStateIsExitFourWithWhereToLook) {
  coordinator_.FailNext(
      "PauseRun", grpc::Status(grpc::StatusCode::FAILED_PRECONDITION,
                               "run a1b2c3 is COMPLETED; only a run that trains can be paused"));
  const Result result = Lockstep({"pause", "a1"});
  EXPECT_EQ(result.code, 4);
  EXPECT_THAT(result.err, AllOf(HasSubstr("is COMPLETED"), HasSubstr("lockstep describe a1")));
}

TEST_F(OrdersTest, EachOrderHasARequestIdOfItsOwn) {
  Lockstep({"pause", "a1"});
  Lockstep({"pause", "a1"});
  const auto ids = coordinator_.RequestIds("PauseRun");
  ASSERT_EQ(ids.size(), 2u);
  EXPECT_EQ(ids[0].size(), 32u);
  EXPECT_NE(ids[0], ids[1]);
}

TEST_F(OrdersTest, ABrokenConnectionSendsTheSameOrderAgain) {
  coordinator_.HangNext("PauseRun", 1);
  Process pause({LOCKSTEP_PROGRAM, "pause", "a1"}, Options());
  ASSERT_TRUE(coordinator_.AwaitCalls("PauseRun", 1));
  coordinator_.Stop();
  coordinator_.Start();
  EXPECT_EQ(pause.Wait(), 0) << pause.err();
  EXPECT_THAT(pause.out(), HasSubstr("paused a1b2c3"));
  const auto ids = coordinator_.RequestIds("PauseRun");
  ASSERT_EQ(ids.size(), 2u);
  EXPECT_EQ(ids[0], ids[1]);
  EXPECT_FALSE(ids[0].empty());
}

TEST_F(OrdersTest, AnOrderThatTakesTooLongSaysItMayStillHappen) {
  coordinator_.HangNext("PauseRun", 1);
  const Result result = Lockstep({"pause", "a1", "--timeout", "0.3"});
  EXPECT_EQ(result.code, 6);
  EXPECT_THAT(result.err, HasSubstr("may still be carried out"));
}

TEST_F(OrdersTest, SubmitPrintsTheIdAlone) {
  folder_.Write("run.yaml", kGoodConfig);
  const Result result = Lockstep({"submit", "run.yaml", "--set", "training.duration=2ep"});
  EXPECT_EQ(result.code, 0) << result.err;
  EXPECT_EQ(result.out, "new1\n");
  EXPECT_THAT(result.err, AllOf(HasSubstr("QUEUED, position 1"), HasSubstr("lockstep watch new1")));
  const v1::SubmitRunRequest request = coordinator_.last_submit();
  EXPECT_EQ(request.config_yaml(), kGoodConfig);
  EXPECT_EQ(request.config_file(), "run.yaml");
  EXPECT_EQ(request.working_directory(), std::filesystem::canonical(folder_.path()).string());
  ASSERT_EQ(request.overrides_size(), 1);
  EXPECT_EQ(request.overrides(0), "training.duration=2ep");
}

TEST_F(OrdersTest, VariablesOverrideTheFileAndSetOverridesVariables) {
  folder_.Write("run.yaml", kGoodConfig);
  Process::Options options = Options();
  options.environment["LOCKSTEP_TRAINING__DURATION"] = "3ep";
  const Result result = RunToEnd(
      {LOCKSTEP_PROGRAM, "run", "--detach", "run.yaml", "--set", "training.duration=4ep"}, options);
  EXPECT_EQ(result.code, 0) << result.err;
  const v1::SubmitRunRequest request = coordinator_.last_submit();
  ASSERT_EQ(request.overrides_size(), 2);
  EXPECT_EQ(request.overrides(0), "training.duration=3ep");
  EXPECT_EQ(request.overrides(1), "training.duration=4ep");
}

TEST_F(OrdersTest, AWrongConfigIsExitTwoWithItsPlaceAndNothingIsSent) {
  folder_.Write("run.yaml", "name: tiny\ntraining: {duration: 1ep, global_batch_siez: 32}\n");
  for (const char* verb : {"run", "submit"}) {
    const Result result = Lockstep({verb, "run.yaml"});
    EXPECT_EQ(result.code, 2);
    EXPECT_THAT(result.err, AllOf(HasSubstr("run.yaml:2:"), HasSubstr("global_batch_siez"),
                                  HasSubstr("nothing was started")));
  }
  EXPECT_THAT(coordinator_.RequestIds("SubmitRun"), IsEmpty());
}

TEST_F(OrdersTest, AFileThatIsNotThereIsExitTwo) {
  const Result result = Lockstep({"run", "nowhere.yaml"});
  EXPECT_EQ(result.code, 2);
  EXPECT_THAT(result.err, HasSubstr("there is no file nowhere.yaml"));
  EXPECT_EQ(Lockstep({"run", "."}).code, 2);
}

TEST_F(OrdersTest, ARunCanComeFromStandardInput) {
  Process::Options options = Options();
  options.input = kGoodConfig;
  const Result result = RunToEnd({LOCKSTEP_PROGRAM, "submit", "-"}, options);
  EXPECT_EQ(result.code, 0) << result.err;
  EXPECT_EQ(coordinator_.last_submit().config_yaml(), kGoodConfig);
}

TEST_F(OrdersTest, WithoutACoordinatorNothingIsTriedAgain) {
  coordinator_.Stop();
  folder_.Write("run.yaml", kGoodConfig);
  const Result result = Lockstep({"run", "run.yaml"});
  EXPECT_EQ(result.code, 5);
  EXPECT_THAT(result.err, HasSubstr("lockstep daemon start"));
  EXPECT_LT(result.seconds, 5);
}

}  // namespace
}  // namespace lockstep::cli
