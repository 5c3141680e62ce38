// run, watch, wait and logs -f: what a person sees while a run goes on, and when something breaks.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <csignal>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "tests/launch/cli/fake_coordinator.h"
#include "tests/launch/cli/process.h"

namespace lockstep::cli {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using Json = nlohmann::json;

class FollowTest : public ::testing::Test {
 protected:
  FollowTest() : coordinator_((folder_.path() / "sock").string()) {
    folder_.Write(
        "run.yaml",
        "name: tiny\ndata: {kind: shapes}\nmodel: {name: cnn, cnn: {blocks: [{filters: 8}]}}\n"
        "training: {duration: 1ep, global_batch_size: 32}\n");
    coordinator_.Put(ExampleRun("a1b2c3", v1::RUN_STATE_RUNNING));
    coordinator_.Start();
  }

  Process::Options Options(bool terminal = false) const {
    return {.environment = {{"LOCKSTEP_SOCKET", coordinator_.socket()}},
            .folder = folder_.path().string(),
            .terminal = terminal};
  }
  void Train(const std::string& id, int64_t step) {
    coordinator_.Change(id, [&](v1::Run& run) {
      *run.mutable_progress() = ExampleRun(id, v1::RUN_STATE_RUNNING).progress();
      run.set_state(v1::RUN_STATE_RUNNING);
      run.mutable_progress()->set_step(step);
    });
  }
  void End(const std::string& id, v1::RunState state, const std::string& reason = "") {
    coordinator_.Change(id, [&](v1::Run& run) {
      run.set_state(state);
      run.set_reason(reason);
      run.mutable_ended()->set_seconds(1800000102);
    });
  }

  TempFolder folder_;
  FakeCoordinator coordinator_;
};

TEST_F(FollowTest, RunTellsTheStoryAndTheOutcome) {
  Process run({LOCKSTEP_PROGRAM, "run", "run.yaml"}, Options());
  ASSERT_TRUE(run.AwaitOut("QUEUED, position 1"));
  Train("new1", 120);
  ASSERT_TRUE(run.AwaitOut("step 120/400 (30.0%)"));
  coordinator_.Change("new1", [](v1::Run& one) {
    one.mutable_progress()->mutable_last_evaluation()->set_step(200);
    one.mutable_progress()->mutable_last_evaluation()->mutable_scores(0)->set_value(0.955);
    one.mutable_last_checkpoint()->set_step(200);
    one.mutable_last_checkpoint()->set_ok(true);
  });
  ASSERT_TRUE(run.AwaitOut("held-out top1 95.5%"));
  ASSERT_TRUE(run.AwaitOut("checkpoint of step 200"));
  coordinator_.Change("new1", [](v1::Run& one) {
    one.set_state(v1::RUN_STATE_RECOVERING);
    one.set_reason("rank 1 was killed by signal 9");
  });
  ASSERT_TRUE(run.AwaitOut("RECOVERING: rank 1 was killed by signal 9"));
  End("new1", v1::RUN_STATE_COMPLETED);
  EXPECT_EQ(run.Wait(), 0);
  EXPECT_THAT(run.out(),
              AllOf(HasSubstr("run new1 (tiny-new1) COMPLETED after 1m32s"),
                    HasSubstr("held-out    top1 95.5%"), HasSubstr("throughput  1,536 samples/s"),
                    HasSubstr("cost        0.0123 EUR"), HasSubstr("/runs/new1")));
  EXPECT_THAT(run.out(), Not(HasSubstr("\x1b")));
  EXPECT_THAT(run.err(), HasSubstr("Ctrl-C leaves it running"));
}

TEST_F(FollowTest, RunEndsWithTheRunsOutcome) {
  const std::tuple<v1::RunState, std::string, int> ends[] = {
      {v1::RUN_STATE_COMPLETED, "", 0},
      {v1::RUN_STATE_FAILED, "NONFINITE_LOSS at step 120", 1},
      {v1::RUN_STATE_STOPPED, "stopped by ann", 9},
      {v1::RUN_STATE_PAUSED, "budget: ran for 4 s, cost.max_time is 4 s", 8},
      {v1::RUN_STATE_STOPPED, "budget: cost 5.0100 EUR, cost.max_cost is 5.0000", 8}};
  for (const auto& [state, reason, code] : ends) {
    Process run({LOCKSTEP_PROGRAM, "run", "run.yaml"}, Options());
    ASSERT_TRUE(run.AwaitOut("QUEUED"));
    End("new1", state, reason);
    EXPECT_EQ(run.Wait(), code);
    EXPECT_THAT(run.out(), HasSubstr(reason));
    if (code == 1) EXPECT_THAT(run.err(), HasSubstr("lockstep logs new1"));
  }
}

TEST_F(FollowTest, APausedRunIsFollowedOnAndSaysHowItGoesOn) {
  Process run({LOCKSTEP_PROGRAM, "run", "run.yaml"}, Options());
  ASSERT_TRUE(run.AwaitOut("QUEUED"));
  coordinator_.Change("new1", [](v1::Run& one) {
    one.set_state(v1::RUN_STATE_PAUSED);
    one.set_reason("pause asked for by ann");
  });
  ASSERT_TRUE(run.AwaitOut("PAUSED: pause asked for by ann"));
  ASSERT_TRUE(run.AwaitErr("lockstep resume new1"));
  Train("new1", 130);
  ASSERT_TRUE(run.AwaitOut("step 130/400"));
  End("new1", v1::RUN_STATE_COMPLETED);
  EXPECT_EQ(run.Wait(), 0);
}

TEST_F(FollowTest, CtrlCLeavesTheRunAloneAndSaysHowToGoOn) {
  Process run({LOCKSTEP_PROGRAM, "run", "run.yaml"}, Options());
  ASSERT_TRUE(run.AwaitOut("QUEUED"));
  run.Signal(SIGINT);
  EXPECT_EQ(run.Wait(), 130);
  EXPECT_THAT(run.err(), AllOf(HasSubstr("run new1 goes on without this terminal"),
                               HasSubstr("lockstep watch new1"), HasSubstr("lockstep stop new1")));
  EXPECT_THAT(coordinator_.RequestIds("StopRun"), IsEmpty());
  EXPECT_THAT(coordinator_.RequestIds("KillRun"), IsEmpty());
}

TEST_F(FollowTest, AReaderThatGoesAwayEndsItQuietly) {
  for (const char* verb : {"watch", "logs"}) {
    std::vector<std::string> arguments = {LOCKSTEP_PROGRAM, verb, "a1"};
    if (arguments[1] == "logs") arguments.push_back("-f");
    Process process(arguments, Options());
    ASSERT_TRUE(process.AwaitOut(arguments[1] == "logs" ? "rank 0" : "RUNNING"));
    process.CloseOut();
    EXPECT_EQ(process.Wait(), 0) << verb;
    EXPECT_THAT(process.err(), IsEmpty());
  }
}

TEST_F(FollowTest, ARestartedCoordinatorIsFoundAgain) {
  Process watch({LOCKSTEP_PROGRAM, "watch", "a1"}, Options());
  ASSERT_TRUE(coordinator_.AwaitCalls("WatchRun", 1));
  coordinator_.Stop();
  ASSERT_TRUE(watch.AwaitErr("the coordinator went away"));
  coordinator_.Start();
  ASSERT_TRUE(coordinator_.AwaitCalls("WatchRun", 2));
  Train("a1b2c3", 360);
  ASSERT_TRUE(watch.AwaitErr("the coordinator is back"));
  End("a1b2c3", v1::RUN_STATE_COMPLETED);
  EXPECT_EQ(watch.Wait(), 0);
  // From where it was: nothing is told twice and nothing is missed.
  const auto after = coordinator_.watched_after();
  EXPECT_EQ(after.front(), 1);
  EXPECT_EQ(after.back(), 1);
  EXPECT_EQ(watch.err().find("went away"), watch.err().rfind("went away"));
}

TEST_F(FollowTest, WhatHappenedMeanwhileIsTold) {
  Process wait({LOCKSTEP_PROGRAM, "wait", "a1"}, Options());
  ASSERT_TRUE(coordinator_.AwaitCalls("WatchRun", 1));
  coordinator_.Stop();
  End("a1b2c3", v1::RUN_STATE_STOPPED, "stopped by ann");
  coordinator_.Start();
  EXPECT_EQ(wait.Wait(), 9);
}

TEST_F(FollowTest, ATerminalGetsABarThatIsPaintedOver) {
  Process run({LOCKSTEP_PROGRAM, "run", "run.yaml"}, Options(/*terminal=*/true));
  ASSERT_TRUE(run.AwaitOut("new1 tiny-new1 QUEUED position 1"));
  Train("new1", 120);
  ASSERT_TRUE(run.AwaitOut("]  30% 120/400"));
  EXPECT_THAT(run.out(), HasSubstr("\r\x1b[J"));
  End("new1", v1::RUN_STATE_COMPLETED);
  EXPECT_EQ(run.Wait(), 0);
  EXPECT_THAT(run.out(), Not(HasSubstr("samples/s)")));
}

TEST_F(FollowTest, WatchOfAllFollowsRunsThatStartLater) {
  Process watch({LOCKSTEP_PROGRAM, "watch"}, Options());
  ASSERT_TRUE(watch.AwaitOut("a1b2c3  RUNNING"));
  coordinator_.Put(ExampleRun("b7c8d9", v1::RUN_STATE_STARTING));
  ASSERT_TRUE(watch.AwaitOut("b7c8d9  STARTING"));
  End("a1b2c3", v1::RUN_STATE_COMPLETED);
  End("b7c8d9", v1::RUN_STATE_COMPLETED);
  EXPECT_EQ(watch.Wait(), 0);
}

TEST_F(FollowTest, WatchSaysWhichRunsItDoesNotFollowAndTakesThemAsOthersEnd) {
  for (int i = 0; i < 38; ++i) {
    coordinator_.Put(ExampleRun("r" + std::to_string(100 + i), v1::RUN_STATE_RUNNING));
  }
  Process watch({LOCKSTEP_PROGRAM, "watch"}, Options());
  // With a1b2c3 there are 39.
  ASSERT_TRUE(watch.AwaitErr("32 runs are followed"));
  ASSERT_TRUE(
      watch.AwaitErr("not yet: r131, r132, r133, r134, r135 and 2 more. They come as others end"));
  EXPECT_THAT(watch.out(), Not(HasSubstr("r131")));
  End("a1b2c3", v1::RUN_STATE_COMPLETED);
  ASSERT_TRUE(watch.AwaitOut("r131  RUNNING"));
  for (int i = 0; i < 38; ++i) End("r" + std::to_string(100 + i), v1::RUN_STATE_COMPLETED);
  EXPECT_EQ(watch.Wait(), 0);
  EXPECT_EQ(watch.err().find("are followed"), watch.err().rfind("are followed")) << "once";
}

TEST_F(FollowTest, AllOfManyNamedRunsAreFollowedToTheirEndAndJsonNamesThoseThatWait) {
  std::vector<std::string> command = {LOCKSTEP_PROGRAM, "watch", "-o", "json"};
  std::vector<std::string> ids;
  for (int i = 0; i < 34; ++i) {
    ids.push_back("r" + std::to_string(100 + i));
    coordinator_.Put(ExampleRun(ids.back(), v1::RUN_STATE_RUNNING));
    command.push_back(ids.back());
  }
  Process watch(command, Options());
  ASSERT_TRUE(watch.AwaitOut("not_followed"));
  for (int i = 0; i < 32; ++i) End(ids[static_cast<size_t>(i)], v1::RUN_STATE_COMPLETED);
  ASSERT_TRUE(watch.AwaitOut("\"id\":\"r133\"")) << "as a run";
  End("r132", v1::RUN_STATE_COMPLETED);
  End("r133", v1::RUN_STATE_COMPLETED);
  EXPECT_EQ(watch.Wait(), 0);
  std::istringstream lines(watch.out());
  std::vector<Json> waits;
  std::set<std::string> completed;
  for (std::string line; std::getline(lines, line);) {
    const Json document = Json::parse(line);
    if (document.contains("not_followed")) {
      waits.push_back(document["not_followed"]);
    } else if (document["state"] == "COMPLETED") {
      completed.insert(document["id"]);
    }
  }
  EXPECT_THAT(waits, ::testing::ElementsAre(Json({"r132", "r133"})));
  EXPECT_EQ(completed, std::set<std::string>(ids.begin(), ids.end()));
}

TEST_F(FollowTest, JsonIsOneDocumentALine) {
  Process watch({LOCKSTEP_PROGRAM, "watch", "a1", "-o", "json"}, Options());
  ASSERT_TRUE(watch.AwaitOut("\"RUNNING\""));
  End("a1b2c3", v1::RUN_STATE_COMPLETED);
  EXPECT_EQ(watch.Wait(), 0);
  std::istringstream lines(watch.out());
  std::vector<std::string> states;
  for (std::string line; std::getline(lines, line);) states.push_back(Json::parse(line)["state"]);
  EXPECT_THAT(states, ::testing::ElementsAre("RUNNING", "COMPLETED"));
}

TEST_F(FollowTest, WaitReturnsTheOutcome) {
  Process wait({LOCKSTEP_PROGRAM, "wait", "a1", "-o", "json"}, Options());
  ASSERT_TRUE(coordinator_.AwaitCalls("WatchRun", 1));
  EXPECT_THAT(wait.out(), IsEmpty());
  End("a1b2c3", v1::RUN_STATE_FAILED, "rank 1 was killed by signal 9");
  EXPECT_EQ(wait.Wait(), 1);
  EXPECT_EQ(Json::parse(wait.out())["state"], "FAILED");
}

TEST_F(FollowTest, WaitForAnEndedRunReturnsAtOnce) {
  coordinator_.Put(ExampleRun("old", v1::RUN_STATE_COMPLETED));
  EXPECT_EQ(RunToEnd({LOCKSTEP_PROGRAM, "wait", "old"}, Options()).code, 0);
}

TEST_F(FollowTest, WaitGivesUpAfterItsTimeout) {
  const Result result = RunToEnd({LOCKSTEP_PROGRAM, "wait", "a1", "--timeout", "0.3"}, Options());
  EXPECT_EQ(result.code, 6);
  EXPECT_THAT(result.err, HasSubstr("had not ended"));
}

TEST_F(FollowTest, LogsGoOnAfterARestartWithoutRepeating) {
  coordinator_.log_text = "hello\n";
  Process logs({LOCKSTEP_PROGRAM, "logs", "-f", "a1"}, Options());
  ASSERT_TRUE(logs.AwaitOut("rank 0 attempt 0"));
  coordinator_.Stop();
  ASSERT_TRUE(logs.AwaitErr("went away"));
  coordinator_.Start();
  ASSERT_TRUE(coordinator_.AwaitCalls("StreamLogs", 2));
  End("a1b2c3", v1::RUN_STATE_COMPLETED);
  EXPECT_EQ(logs.Wait(), 0);
  EXPECT_EQ(logs.out(), "hello\nrank 0 attempt 0\n");
}

TEST_F(FollowTest, CtrlCEndsLogsThatAreSilent) {
  Process logs({LOCKSTEP_PROGRAM, "logs", "-f", "a1"}, Options());
  ASSERT_TRUE(logs.AwaitOut("rank 0"));
  logs.Signal(SIGINT);
  EXPECT_EQ(logs.Wait(), 130);
}

TEST_F(FollowTest, NothingToWatchIsSaid) {
  End("a1b2c3", v1::RUN_STATE_COMPLETED);
  const Result result = RunToEnd({LOCKSTEP_PROGRAM, "watch"}, Options());
  EXPECT_EQ(result.code, 0);
  EXPECT_THAT(result.err, HasSubstr("no run is active"));
}

}  // namespace
}  // namespace lockstep::cli
