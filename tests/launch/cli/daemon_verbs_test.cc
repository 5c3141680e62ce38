// daemon start|stop|status, with a stand-in for lockstepd beside the program.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "tests/launch/cli/fake_coordinator.h"
#include "tests/launch/cli/process.h"

namespace lockstep::cli {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using Json = nlohmann::json;
namespace fs = std::filesystem;

class DaemonVerbsTest : public ::testing::Test {
 protected:
  DaemonVerbsTest() : state_(folder_.path() / "state") {
    fs::create_directory(folder_.path() / "bin");
    program_ = (folder_.path() / "bin" / "lockstep").string();
    fs::copy_file(LOCKSTEP_PROGRAM, program_);
    fs::copy_file(FAKE_LOCKSTEPD, folder_.path() / "bin" / "lockstepd");
  }
  ~DaemonVerbsTest() override { Lockstep({"daemon", "stop", "--socket", Socket()}); }

  std::string Socket() const { return (state_ / "lockstepd.sock").string(); }
  Result Lockstep(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), program_);
    return RunToEnd(arguments, {.folder = folder_.path().string()});
  }
  std::string Log() const {
    std::ifstream file(state_ / "lockstepd.log");
    std::stringstream text;
    text << file.rdbuf();
    return text.str();
  }

  TempFolder folder_;
  fs::path state_;
  std::string program_;
};

TEST_F(DaemonVerbsTest, StartWaitsUntilItServesAndSaysWhere) {
  const Result result = Lockstep({"daemon", "start", "--state-dir", "state"});
  EXPECT_EQ(result.code, 0) << result.err;
  EXPECT_THAT(result.out, AllOf(HasSubstr("the coordinator serves"), HasSubstr(Socket()),
                                HasSubstr("http://127.0.0.1:9464/metrics")));
  // A socket that is not the default one must be told to the other verbs.
  EXPECT_THAT(result.err, HasSubstr("export LOCKSTEP_SOCKET=" + Socket()));
  EXPECT_THAT(Log(), HasSubstr("session leader: yes"));
  EXPECT_EQ(Lockstep({"daemon", "status", "--socket", Socket()}).code, 0);
}

TEST_F(DaemonVerbsTest, StartHandsItsOptionsOn) {
  folder_.Write("lockstepd.yaml", "slots: 3\n");
  const Result result = Lockstep({"daemon", "start", "--state-dir", "state", "--config",
                                  "lockstepd.yaml", "--metrics-address", "127.0.0.1:0", "--set",
                                  "oversubscribe=true", "--allow-root-mpirun"});
  EXPECT_EQ(result.code, 0) << result.err;
  const std::string log = Log();
  const std::vector<std::string> arguments = {"--config",
                                              (folder_.path() / "lockstepd.yaml").string(),
                                              "oversubscribe=true",
                                              "state_dir=" + state_.string(),
                                              "metrics_address=127.0.0.1:0",
                                              "allow_root_mpirun=true"};
  for (const std::string& argument : arguments) {
    EXPECT_THAT(log, HasSubstr("argument " + argument + "\n"));
  }
}

TEST_F(DaemonVerbsTest, ASecondStartSaysThatOneRuns) {
  const Json first =
      Json::parse(Lockstep({"daemon", "start", "--state-dir", "state", "-o", "json"}).out);
  EXPECT_EQ(first["already_running"], false);
  const Result second = Lockstep({"daemon", "start", "--state-dir", "state"});
  EXPECT_EQ(second.code, 0);
  EXPECT_THAT(second.out, AllOf(HasSubstr("a coordinator runs already"),
                                HasSubstr(std::to_string(first["pid"].get<int>()))));
}

TEST_F(DaemonVerbsTest, ADaemonThatDoesNotStartIsToldWithItsLastWords) {
  const Result result = Lockstep({"daemon", "start", "--state-dir", "state", "--set", "slots=13"});
  EXPECT_EQ(result.code, 4);
  EXPECT_THAT(result.err, AllOf(HasSubstr("ended with exit code 4"),
                                HasSubstr("13 is too many for this test")));
  EXPECT_THAT(result.out, IsEmpty());
}

TEST_F(DaemonVerbsTest, AWrongDaemonConfigStartsNothing) {
  folder_.Write("lockstepd.yaml", "slotz: 3\n");
  const Result result =
      Lockstep({"daemon", "start", "--state-dir", "state", "--config", "lockstepd.yaml"});
  EXPECT_EQ(result.code, 2);
  EXPECT_THAT(result.err, AllOf(HasSubstr("lockstepd.yaml:1:1"), HasSubstr("slots")));
  EXPECT_FALSE(fs::exists(state_));
}

TEST_F(DaemonVerbsTest, WithoutTheProgramItSaysWhereItLooked) {
  fs::remove(folder_.path() / "bin" / "lockstepd");
  const Result result = Lockstep({"daemon", "start", "--state-dir", "state"});
  EXPECT_NE(result.code, 0);
  EXPECT_THAT(result.err, HasSubstr((folder_.path() / "bin").string()));
}

TEST_F(DaemonVerbsTest, StopEndsItAndSaysWhatGoesOn) {
  ASSERT_EQ(Lockstep({"daemon", "start", "--state-dir", "state"}).code, 0);
  const Result result = Lockstep({"daemon", "stop", "--socket", Socket()});
  EXPECT_EQ(result.code, 0) << result.err;
  EXPECT_THAT(result.out, HasSubstr("stopped the coordinator"));
  EXPECT_THAT(result.err, HasSubstr("1 run goes on"));
  EXPECT_FALSE(fs::exists(Socket()));
  const Result again = Lockstep({"daemon", "stop", "--socket", Socket()});
  EXPECT_EQ(again.code, 0);
  EXPECT_THAT(again.err, HasSubstr("no coordinator is running"));
}

}  // namespace
}  // namespace lockstep::cli
