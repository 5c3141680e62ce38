// `lockstep top` as a program: once, as a document, and alive on a terminal.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <termios.h>

#include <csignal>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "tests/launch/cli/fake_coordinator.h"
#include "tests/launch/cli/process.h"

namespace lockstep::cli {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using Json = nlohmann::json;

constexpr const char* kEnter = "\x1b[?1049h";
constexpr const char* kLeave = "\x1b[?25h\x1b[?1049l";

class TopTest : public ::testing::Test {
 protected:
  TopTest() : coordinator_((folder_.path() / "sock").string()) {
    coordinator_.Put(ExampleRun("done01", v1::RUN_STATE_COMPLETED));
    coordinator_.Put(ExampleRun("a1b2c3", v1::RUN_STATE_RUNNING));
    coordinator_.status.set_currency("EUR");
    coordinator_.status.set_month_micros(12'340'000);
    v1::Gpu& gpu = *coordinator_.status.add_gpus();
    gpu.set_name("NVIDIA H200");
    gpu.set_healthy(true);
    gpu.set_utilization_ratio(0.97);
    gpu.set_run("a1b2c3");
    coordinator_.Start();
  }

  std::vector<std::string> Command(std::vector<std::string> arguments) const {
    arguments.insert(arguments.begin(), {LOCKSTEP_PROGRAM, "--socket", coordinator_.socket()});
    return arguments;
  }
  static Process::Options Terminal() {
    Process::Options options;
    options.terminal = true;
    options.keyboard = true;
    return options;
  }

  TempFolder folder_;
  FakeCoordinator coordinator_;
};

TEST_F(TopTest, OnceIsThePageWithoutATerminalsSequences) {
  for (const auto& arguments :
       {std::vector<std::string>{"top", "--once"}, std::vector<std::string>{"top"}}) {
    const Result result = RunToEnd(Command(arguments));
    EXPECT_EQ(result.code, 0) << result.err;
    EXPECT_THAT(result.out,
                AllOf(HasSubstr("a1b2c3"), HasSubstr("RUNNING"), HasSubstr("done01"),
                      HasSubstr("NVIDIA H200"), HasSubstr("97%"), HasSubstr("12.34 EUR")));
    EXPECT_THAT(result.out, Not(HasSubstr("\x1b")));
    EXPECT_LT(result.out.find("a1b2c3"), result.out.find("done01")) << "live runs come first";
  }
}

TEST_F(TopTest, WhatRunsIsOnThePageHoweverManyWait) {
  for (int i = 0; i < 600; ++i) {
    v1::Run run = ExampleRun(absl::StrCat("wait", i), v1::RUN_STATE_QUEUED);
    run.set_queue_position(600 - i);  // The last one has the first turn.
    coordinator_.Put(run);
  }
  const Result result = RunToEnd(Command({"top", "--once"}));
  EXPECT_EQ(result.code, 0) << result.err;
  const size_t running = result.out.find("a1b2c3");
  ASSERT_NE(running, std::string::npos);
  EXPECT_LT(running, result.out.find("wait599"));
  EXPECT_LT(result.out.find("wait599"), result.out.find("wait598"));
  EXPECT_THAT(result.out, HasSubstr("wait0 "));
}

TEST_F(TopTest, JsonIsOneDocument) {
  const Result result = RunToEnd(Command({"top", "--once", "-o", "json"}));
  EXPECT_EQ(result.code, 0) << result.err;
  const Json json = Json::parse(result.out);
  EXPECT_EQ(json["runs"].size(), 2u);
  EXPECT_EQ(json["runs"][0]["id"], "a1b2c3");
  EXPECT_EQ(json["status"]["gpus"][0]["utilization_ratio"], 0.97);
  EXPECT_EQ(json["status"]["month_micros"], 12'340'000);
  EXPECT_EQ(json["status"]["monthly_budget"], nullptr);
}

TEST_F(TopTest, WithoutACoordinatorItEndsWithCodeFive) {
  coordinator_.Stop();
  const Result result = RunToEnd(Command({"top"}));
  EXPECT_EQ(result.code, 5);
  EXPECT_THAT(result.err, HasSubstr("lockstep daemon start"));
}

TEST_F(TopTest, OnATerminalItFollowsAndLeavesAtQ) {
  Process process(Command({"top", "--interval", "0.1"}), Terminal());
  const unsigned before = process.TerminalModes() | ICANON | ECHO;
  ASSERT_TRUE(process.AwaitOut("a1b2c3")) << process.out();
  ASSERT_TRUE(process.AwaitOut("30.0%"));
  EXPECT_EQ(process.TerminalModes() & (ICANON | ECHO), 0u) << "keys come at once and are not shown";
  coordinator_.Change("a1b2c3", [](v1::Run& run) { run.mutable_progress()->set_step(200); });
  ASSERT_TRUE(process.AwaitOut("50.0%")) << process.out();
  EXPECT_EQ(process.TerminalModes() & ISIG, static_cast<unsigned>(ISIG));
  process.Type("x");
  process.Type("q");
  ASSERT_TRUE(process.AwaitOut(kLeave)) << process.out();
  EXPECT_EQ(process.Wait(), 0);
  EXPECT_THAT(process.out(), ::testing::StartsWith(kEnter));
  EXPECT_EQ(process.TerminalModes() & (ICANON | ECHO), before & (ICANON | ECHO));
}

// As a terminal does it: behind a line of full width the cursor stays on the last letter.
TEST_F(TopTest, ALineThatFillsTheWidthKeepsItsLastLetter) {
  v1::Run run = ExampleRun("failed", v1::RUN_STATE_FAILED);
  run.set_reason(std::string(200, 'x'));
  coordinator_.Put(run);
  Process process(Command({"top", "--interval", "30"}), Terminal());
  ASSERT_TRUE(process.AwaitOut(std::string(90, 'x'))) << process.out();
  process.Type("q");
  EXPECT_EQ(process.Wait(), 0);
  const std::string out = process.out();
  EXPECT_THAT(out, Not(HasSubstr("\x1b[K"))) << "to the end of the line";
  const size_t rest = out.find("\x1b[J");
  ASSERT_NE(rest, std::string::npos);
  EXPECT_EQ(out[rest - 1], '\n') << "what is below is cleared from a line of its own";
}

TEST_F(TopTest, ATerminalWithoutSequencesGetsThePageOnce) {
  Process::Options options = Terminal();
  options.environment = {{"TERM", "dumb"}};
  Process process(Command({"top"}), options);
  EXPECT_EQ(process.Wait(), 0);
  EXPECT_THAT(process.out(), AllOf(HasSubstr("a1b2c3"), Not(HasSubstr("\x1b"))));
}

TEST_F(TopTest, ControlCLeavesTheTerminalAsItWas) {
  Process process(Command({"top", "--interval", "30"}), Terminal());
  ASSERT_TRUE(process.AwaitOut("a1b2c3"));
  process.Signal(SIGINT);
  EXPECT_EQ(process.Wait(), 0);
  EXPECT_THAT(process.out(), HasSubstr(kLeave));
  EXPECT_EQ(process.TerminalModes() & (ICANON | ECHO), static_cast<unsigned>(ICANON | ECHO));
}

TEST_F(TopTest, ItWaitsForACoordinatorThatRestarts) {
  Process process(Command({"top", "--interval", "0.1"}), Terminal());
  ASSERT_TRUE(process.AwaitOut("30.0%"));
  coordinator_.Stop();
  ASSERT_TRUE(process.AwaitOut("has not answered for")) << process.out();
  coordinator_.Change("a1b2c3", [](v1::Run& run) { run.mutable_progress()->set_step(300); });
  coordinator_.Start();
  ASSERT_TRUE(process.AwaitOut("75.0%")) << process.out();
  process.Type("q");
  EXPECT_EQ(process.Wait(), 0);
}

TEST_F(TopTest, ARefusalEndsItAndIsReadableAfterwards) {
  Process process(Command({"top", "--interval", "0.1"}), Terminal());
  ASSERT_TRUE(process.AwaitOut("a1b2c3"));
  coordinator_.FailNext("GetStatus", {grpc::StatusCode::PERMISSION_DENIED, "not you"});
  EXPECT_EQ(process.Wait(), 7);
  const std::string out = process.out();
  EXPECT_GT(out.find("not you"), out.find(kLeave)) << "behind the end of the other screen";
  EXPECT_THAT(out, HasSubstr("not you"));
}

TEST_F(TopTest, HelpAndCompletionKnowIt) {
  EXPECT_THAT(RunToEnd(Command({"--help"})).out, HasSubstr("top"));
  EXPECT_THAT(RunToEnd(Command({"help", "top"})).out, HasSubstr("--interval"));
  EXPECT_THAT(RunToEnd(Command({"completion", "bash"})).out,
              AllOf(HasSubstr("'top') words="), HasSubstr("--once")));
  const Result wrong = RunToEnd(Command({"top", "--interval", "0"}));
  EXPECT_EQ(wrong.code, 2);
}

}  // namespace
}  // namespace lockstep::cli
