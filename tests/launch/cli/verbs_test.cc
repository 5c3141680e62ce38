// The verbs that read: what they print and what they end with.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <nlohmann/json.hpp>

#include "tests/launch/cli/fake_coordinator.h"
#include "tests/launch/cli/process.h"

namespace lockstep::cli {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::StartsWith;
using Json = nlohmann::json;

// The sanitizers start a program several times slower.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr double kAtOnceSeconds = 1.0;
#else
constexpr double kAtOnceSeconds = 0.1;
#endif

class VerbsTest : public ::testing::Test {
 protected:
  VerbsTest() : coordinator_((folder_.path() / "sock").string()) {
    coordinator_.Put(ExampleRun("a1b2c3", v1::RUN_STATE_RUNNING));
    coordinator_.Put(ExampleRun("b7c8d9", v1::RUN_STATE_PAUSED));
    coordinator_.Start();
  }

  Result Lockstep(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), LOCKSTEP_PROGRAM);
    return RunToEnd(arguments, {.environment = {{"LOCKSTEP_SOCKET", coordinator_.socket()}}});
  }

  TempFolder folder_;
  FakeCoordinator coordinator_;
};

TEST_F(VerbsTest, ListShowsTheNewestRunFirstWithItsFigures) {
  const Result result = Lockstep({"list"});
  EXPECT_EQ(result.code, 0) << result.err;
  EXPECT_THAT(result.out, StartsWith("ID "));
  EXPECT_LT(result.out.find("b7c8d9"), result.out.find("a1b2c3"));
  for (const char* text :
       {"RUNNING", "120/400", "1.2", "0.4123", "87.1%", "93.1%", "1,536", "1m35s", "0.0123 EUR"}) {
    EXPECT_THAT(result.out, HasSubstr(text));
  }
  EXPECT_THAT(result.err, IsEmpty());
}

TEST_F(VerbsTest, ListFiltersByState) {
  const Result result = Lockstep({"list", "--state", "paused,failed", "--ids"});
  EXPECT_EQ(result.out, "b7c8d9\n");
  const Result wrong = Lockstep({"list", "--state", "sleeping"});
  EXPECT_EQ(wrong.code, 2);
  EXPECT_THAT(wrong.err, AllOf(HasSubstr("'sleeping'"), HasSubstr("paused")));
}

TEST_F(VerbsTest, ListPagesAndSaysHowToGoOn) {
  for (int i = 0; i < 5; ++i) {
    coordinator_.Put(ExampleRun("r" + std::to_string(i), v1::RUN_STATE_COMPLETED));
  }
  const Result first = Lockstep({"list", "--limit", "3"});
  EXPECT_THAT(first.err, HasSubstr("lockstep list --page-token 3"));
  EXPECT_THAT(first.out, Not(HasSubstr("a1b2c3")));
  const Result second = Lockstep({"list", "--limit", "3", "--page-token", "3", "--ids"});
  EXPECT_EQ(second.out, "r1\nr0\nb7c8d9\n");
}

TEST_F(VerbsTest, ListAsJsonIsOneDocumentWithStableNames) {
  const Json json = Json::parse(Lockstep({"list", "-o", "json"}).out);
  ASSERT_EQ(json["runs"].size(), 2u);
  const Json& run = json["runs"][1];
  EXPECT_EQ(run["id"], "a1b2c3");
  EXPECT_EQ(run["state"], "RUNNING");
  EXPECT_EQ(run["progress"]["step"], 120);
  EXPECT_EQ(run["progress"]["total_steps"], 400);
  EXPECT_EQ(run["progress"]["last_evaluation"]["top1"], 0.931);
  EXPECT_EQ(run["submitted"], "2027-01-15T08:00:00Z");
  EXPECT_EQ(run["ended"], nullptr);
  EXPECT_EQ(json["next_page_token"], "");
}

TEST_F(VerbsTest, DescribeShowsEverything) {
  coordinator_.Change("a1b2c3", [](v1::Run& run) {
    run.set_reason("rank 1 came back");
    run.set_attempt(2);
    run.set_restarts(1);
    for (double seconds : {1.0, 0.5, 0.0, 3.0, 5.5})
      run.mutable_progress()->add_phase_seconds(seconds);
  });
  const Result result = Lockstep({"describe", "a1"});
  EXPECT_EQ(result.code, 0) << result.err;
  for (const char* text :
       {"a1b2c3", "rank 1 came back", "2 (1 restart)", "120 of 400 (30.0%)", "by ann",
        "backward 55.0%", "step 100: 1.2 MiB in 0.1s", "/runs/a1b2c3", "0.0123 EUR"}) {
    EXPECT_THAT(result.out, HasSubstr(text));
  }
}

TEST_F(VerbsTest, ARunThatIsNotThereIsExitThree) {
  const Result result = Lockstep({"describe", "nobody"});
  EXPECT_EQ(result.code, 3);
  EXPECT_THAT(result.err, AllOf(HasSubstr("there is no run 'nobody'"), HasSubstr("lockstep list")));
  EXPECT_THAT(result.out, IsEmpty());
}

TEST_F(VerbsTest, ControlCharactersFromElsewhereDoNotReachTheTerminal) {
  coordinator_.Change("a1b2c3", [](v1::Run& run) { run.set_reason("evil \x1b[2J text"); });
  EXPECT_THAT(Lockstep({"describe", "a1"}).out, Not(HasSubstr("\x1b")));
}

TEST_F(VerbsTest, LogsAreTheBytesOfTheRankAndAttempt) {
  coordinator_.log_text = "first\nsecond\n";
  EXPECT_EQ(Lockstep({"logs", "a1"}).out, "first\nsecond\nrank 0 attempt 0\n");
  EXPECT_EQ(Lockstep({"logs", "a1", "--rank", "1", "--attempt", "2"}).out,
            "first\nsecond\nrank 1 attempt 2\n");
  EXPECT_EQ(Lockstep({"logs", "a1", "--mpirun", "--tail", "8"}).out, "tempt 0\n");
}

TEST_F(VerbsTest, CheckpointsAreListedAndVerified) {
  v1::Checkpoint checkpoint;
  checkpoint.set_step(1200);
  checkpoint.set_bytes(1258291);
  checkpoint.set_path("/runs/a/checkpoints/step-000001200");
  coordinator_.checkpoints = {checkpoint};
  EXPECT_THAT(Lockstep({"checkpoints", "list", "a1"}).out,
              AllOf(HasSubstr("1,200"), HasSubstr("1.2 MiB"), HasSubstr("step-000001200")));
  const Result good = Lockstep({"checkpoints", "verify", "a1"});
  EXPECT_EQ(good.code, 0);
  EXPECT_THAT(good.out, HasSubstr("ok"));
  coordinator_.bad_checkpoint_error = "weights.safetensors: checksum differs";
  const Result bad = Lockstep({"checkpoints", "verify", "a1"});
  EXPECT_EQ(bad.code, 1);
  EXPECT_THAT(bad.out, HasSubstr("BAD"));
  EXPECT_THAT(bad.err, HasSubstr("weights.safetensors: checksum differs"));
  const Result json = Lockstep({"checkpoints", "verify", "a1", "-o", "json"});
  EXPECT_EQ(json.code, 1);
  EXPECT_EQ(Json::parse(json.out)["ok"], false);
}

TEST_F(VerbsTest, NoCoordinatorIsToldAtOnceAndHowToStartOne) {
  coordinator_.Stop();
  double quickest = 1e9;
  for (int i = 0; i < 10; ++i) {
    const Result result = Lockstep({"list"});
    EXPECT_EQ(result.code, 5);
    EXPECT_THAT(result.err,
                AllOf(HasSubstr("no coordinator is running"), HasSubstr(coordinator_.socket()),
                      HasSubstr("lockstep daemon start")));
    quickest = std::min(quickest, result.seconds);
  }
  EXPECT_LT(quickest, kAtOnceSeconds);
}

TEST_F(VerbsTest, ASocketThatNobodyServesIsNoCoordinatorEither) {
  const std::string path = (folder_.path() / "dead").string();
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  path.copy(address.sun_path, sizeof address.sun_path - 1);
  const int fd = socket(AF_UNIX, SOCK_STREAM, 0);
  ASSERT_EQ(bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  close(fd);
  const Result result = Lockstep({"list", "--socket", path});
  EXPECT_EQ(result.code, 5);
  EXPECT_THAT(result.err, HasSubstr("nobody listens"));
}

TEST_F(VerbsTest, ACoordinatorThatDoesNotAnswerIsExitSix) {
  coordinator_.HangNext("ListRuns", 1);
  const Result result = Lockstep({"list", "--timeout", "0.2"});
  EXPECT_EQ(result.code, 6);
  EXPECT_THAT(result.err, HasSubstr("within 0.2 s"));
}

// Connections are taken by the kernel but nobody speaks: what a stopped process looks like.
TEST_F(VerbsTest, AStoppedCoordinatorIsExitSix) {
  const std::string path = (folder_.path() / "stopped").string();
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  path.copy(address.sun_path, sizeof address.sun_path - 1);
  const int fd = socket(AF_UNIX, SOCK_STREAM, 0);
  ASSERT_EQ(bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  ASSERT_EQ(listen(fd, 8), 0);
  const Result result = Lockstep({"list", "--socket", path, "--timeout", "0.5"});
  close(fd);
  EXPECT_EQ(result.code, 6) << result.err;
}

TEST_F(VerbsTest, EachStatusOfTheCoordinatorHasItsExitCode) {
  const std::pair<grpc::StatusCode, int> codes[] = {
      {grpc::StatusCode::INVALID_ARGUMENT, 2},    {grpc::StatusCode::NOT_FOUND, 3},
      {grpc::StatusCode::FAILED_PRECONDITION, 4}, {grpc::StatusCode::UNAVAILABLE, 5},
      {grpc::StatusCode::DEADLINE_EXCEEDED, 6},   {grpc::StatusCode::PERMISSION_DENIED, 7},
      {grpc::StatusCode::RESOURCE_EXHAUSTED, 8},  {grpc::StatusCode::INTERNAL, 1}};
  for (const auto& [code, exit_code] : codes) {
    coordinator_.FailNext("GetRun", grpc::Status(code, "because of the test"));
    const Result result = Lockstep({"describe", "a1"});
    EXPECT_EQ(result.code, exit_code) << code;
    EXPECT_THAT(result.err, HasSubstr("because of the test"));
  }
}

TEST_F(VerbsTest, AReaderThatWentAwayIsNoError) {
  const std::string script =
      std::string("set -o pipefail; ") + LOCKSTEP_PROGRAM + " list | true; echo $?";
  const Result result = RunToEnd({"/bin/bash", "-c", script},
                                 {.environment = {{"LOCKSTEP_SOCKET", coordinator_.socket()}}});
  EXPECT_EQ(result.out, "0\n");
  EXPECT_THAT(result.err, IsEmpty());
}

TEST_F(VerbsTest, AFullDiskUnderTheAnswerIsAnError) {
  const std::string script = std::string(LOCKSTEP_PROGRAM) + " list > /dev/full";
  const Result result = RunToEnd({"/bin/bash", "-c", script},
                                 {.environment = {{"LOCKSTEP_SOCKET", coordinator_.socket()}}});
  EXPECT_EQ(result.code, 1);
  EXPECT_THAT(result.err, HasSubstr("No space left"));
}

TEST_F(VerbsTest, ColoursAreForTerminalsThatWantThem) {
  const Process::Options terminal = {.environment = {{"LOCKSTEP_SOCKET", coordinator_.socket()}},
                                     .terminal = true};
  EXPECT_THAT(RunToEnd({LOCKSTEP_PROGRAM, "list"}, terminal).out, HasSubstr("\x1b[32mRUNNING"));
  EXPECT_THAT(RunToEnd({LOCKSTEP_PROGRAM, "list", "--no-color"}, terminal).out,
              Not(HasSubstr("\x1b")));
  EXPECT_THAT(Lockstep({"list"}).out, Not(HasSubstr("\x1b")));
}

TEST_F(VerbsTest, StatusShowsWhereTheCoordinatorListens) {
  const Result result = Lockstep({"daemon", "status"});
  EXPECT_EQ(result.code, 0);
  for (const char* text :
       {"http://127.0.0.1:9464/metrics", "1 of 4 free", "1h02m", "1 running, 2 queued"}) {
    EXPECT_THAT(result.out, HasSubstr(text));
  }
  EXPECT_EQ(Json::parse(Lockstep({"daemon", "status", "-o", "json"}).out)["slots"], 4);
}

TEST_F(VerbsTest, DoctorFindsTheCoordinatorAndNamesEveryCheck) {
  const Result result = Lockstep({"doctor", "-o", "json"});
  const Json json = Json::parse(result.out);
  EXPECT_EQ(result.code, json["ok"].get<bool>() ? 0 : 1);
  std::set<std::string> names;
  for (const Json& check : json["checks"]) {
    names.insert(check["name"]);
    // Whatever is not well says what to do.
    EXPECT_EQ(check["result"] == "ok", check["todo"] == "") << check;
    if (check["name"] == "coordinator") EXPECT_EQ(check["result"], "ok");
  }
  for (const char* name : {"lockstepd", "lockstep-trainer", "mpirun", "cores", "memory", "disk",
                           "/dev/shm", "user", "socket", "coordinator", "GPU driver"}) {
    EXPECT_TRUE(names.contains(name)) << name;
  }
}

TEST_F(VerbsTest, DoctorFailsWhenTheSocketIsSomethingElse) {
  const std::string path = folder_.Write("file", "not a socket").string();
  const Result result = Lockstep({"doctor", "--socket", path});
  EXPECT_EQ(result.code, 1);
  EXPECT_THAT(result.out, HasSubstr("is no socket"));
}

TEST_F(VerbsTest, TheVersionIsAVerbAndAnOption) {
  const Result option = Lockstep({"--version"});
  EXPECT_EQ(option.code, 0);
  EXPECT_THAT(option.out, ::testing::StartsWith("lockstep "));
  EXPECT_EQ(option.out, Lockstep({"version"}).out);
}

TEST_F(VerbsTest, AWrongVerbIsExitTwoWithTheNearestOne) {
  const Result result = Lockstep({"lst"});
  EXPECT_EQ(result.code, 2);
  EXPECT_THAT(result.err,
              AllOf(HasSubstr("there is no verb 'lst'"), HasSubstr("did you mean 'list'")));
  EXPECT_EQ(Lockstep({"describe"}).code, 2);
  EXPECT_EQ(Lockstep({"list", "--wrong"}).code, 2);
  EXPECT_EQ(Lockstep({"list", "-o", "xml"}).code, 2);
  EXPECT_EQ(Lockstep({}).code, 2);
}

TEST_F(VerbsTest, EveryVerbHasHelpWithAnExample) {
  const std::vector<std::vector<std::string>> verbs = {{"run"},
                                                       {"submit"},
                                                       {"list"},
                                                       {"describe"},
                                                       {"pause"},
                                                       {"resume"},
                                                       {"checkpoint"},
                                                       {"stop"},
                                                       {"kill"},
                                                       {"wait"},
                                                       {"watch"},
                                                       {"logs"},
                                                       {"checkpoints"},
                                                       {"checkpoints", "list"},
                                                       {"checkpoints", "verify"},
                                                       {"config"},
                                                       {"config", "check"},
                                                       {"config", "show"},
                                                       {"config", "schema"},
                                                       {"daemon"},
                                                       {"daemon", "start"},
                                                       {"daemon", "stop"},
                                                       {"daemon", "status"},
                                                       {"doctor"},
                                                       {"completion"},
                                                       {"completion", "bash"},
                                                       {"version"},
                                                       {"help"}};
  for (std::vector<std::string> verb : verbs) {
    verb.push_back("--help");
    const Result result = Lockstep(verb);
    EXPECT_EQ(result.code, 0) << verb[0];
    EXPECT_THAT(result.out, AllOf(HasSubstr("Usage: lockstep "), HasSubstr("Example:\n  ")));
    EXPECT_THAT(result.err, IsEmpty());
  }
}

TEST_F(VerbsTest, CompletionIsABashScriptThatKnowsVerbsOptionsAndRuns) {
  const Result script = Lockstep({"completion", "bash"});
  EXPECT_EQ(script.code, 0);
  const std::string file = folder_.Write("completion.bash", script.out).string();
  const std::string folder = std::filesystem::path(LOCKSTEP_PROGRAM).parent_path();
  const auto complete = [&](const std::string& words, int at) {
    const std::string bash = "PATH=" + folder + ":$PATH; source " + file + "; COMP_WORDS=(" +
                             words + "); COMP_CWORD=" + std::to_string(at) +
                             "; _lockstep; echo ${COMPREPLY[@]}";
    return RunToEnd({"/bin/bash", "-c", bash},
                    {.environment = {{"LOCKSTEP_SOCKET", coordinator_.socket()}}})
        .out;
  };
  EXPECT_EQ(complete("lockstep des", 1), "describe\n");
  EXPECT_EQ(complete("lockstep config sch", 2), "schema\n");
  EXPECT_EQ(complete("lockstep pause --ho", 2), "--hold\n");
  EXPECT_EQ(complete("lockstep pause a1", 2), "a1b2c3\n");
}

TEST_F(VerbsTest, VersionNeedsNothing) {
  coordinator_.Stop();
  const Result result = Lockstep({"version"});
  EXPECT_EQ(result.code, 0);
  EXPECT_THAT(result.out, StartsWith("lockstep "));
  EXPECT_TRUE(Json::parse(Lockstep({"version", "-o", "json"}).out).contains("version"));
}

}  // namespace
}  // namespace lockstep::cli
