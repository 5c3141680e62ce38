// `lockstep plan` with programs in place of mpirun and lockstep-trainer that write a probe's
// report.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sched.h>
#include <sys/stat.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "tests/launch/cli/fake_coordinator.h"
#include "tests/launch/cli/process.h"

namespace lockstep::cli {
namespace {

using ::testing::AllOf;
using ::testing::AnyOf;
using ::testing::HasSubstr;
using ::testing::Not;
using Json = nlohmann::json;
namespace fs = std::filesystem;

// A rank computes 1,000 samples/s and 4 ms a step. What it is to say or do besides is in a file
// beside it; how it was called goes to another.
constexpr const char* kTrainer = R"(#!/bin/sh
here=$(dirname "$0")
echo "np=$NP $*" >> "$here/calls"
. "$here/behaviour"
while [ $# -gt 0 ]; do
  case $1 in --out) out=$2 ;; --batches) batches=$2 ;; esac
  shift
done
write() {  # attempting, does_not_fit
  {
    stage="\"reduced_bytes\": 1000000, \"evaluated_samples\": 0, \"evaluation_seconds\": 0,
      \"first_read_seconds\": 0, \"first_evaluation_seconds\": 0,
      \"checkpoint_bytes\": 1000000000, \"checkpoint_stall_seconds\": 0,
      \"checkpoint_write_seconds\": 0"
    echo '{"format": 3, "threads_per_rank": 1, "device": "cpu", "gpu": false, "train_samples": 1000,'
    echo ' "eval_samples": 0, "micro_batch_size": 0, "available_bytes": 99000000000,'
    echo ' "startup_seconds": 0, "cached_samples": 0, "cache_seconds": 0, "opened_bytes": 0,'
    echo ' "sample_bytes": 0, "sample_bytes_again": 0, "kept_bytes": 0,'
    echo " \"does_not_fit_why\": \"\", \"attempting\": $1, \"does_not_fit\": $2, \"ranks\": $NP,"
    echo ' "all_reduces": [{"bytes": 1000, "seconds": 1e-5}, {"bytes": 1000000, "seconds": 1e-3}],'
    echo "\"first\": {\"steps\": [$steps], $stage}, \"unfrozen\": {\"steps\": [], $stage}}"
  } > "$out"
}
steps=
for batch in $(echo "$batches" | tr , ' '); do
  if [ -n "$TOO_MUCH" ] && [ "$batch" -ge "$TOO_MUCH" ]; then write "$batch" 0; exit 25; fi
  steps="$steps${steps:+,}{\"local_batch\": $batch, \"timed\": 9, \"peak_bytes\": $((batch * 1000000)),
    \"phase_seconds\": {}, \"seconds\": $(awk "BEGIN {print ($batch + 4) / 1000}")}"
  echo "probe: $batch samples" >&2
done
write 0 0
)";
constexpr const char* kMpirun = R"(#!/bin/sh
while [ "$1" != -np ]; do shift; done
NP=$2; shift 2
export NP
"$@"
)";

class PlanVerbTest : public ::testing::Test {
 protected:
  PlanVerbTest() : coordinator_((folder_.path() / "sock").string()) {
    fs::create_directory(folder_.path() / "bin");
    fs::copy_file(LOCKSTEP_PROGRAM, Program());
    Script("bin/lockstep-trainer", kTrainer);
    Script("bin/mpirun", kMpirun);
    Behave("");
    file_ = folder_
                .Write("run.yaml", Name() +
                                       "\nresources: {device: cpu}\n"
                                       "data: {kind: shapes, train_samples: 1000}\n"
                                       "model: {name: cnn, cnn: {blocks: [{filters: 4}]}}\n"
                                       "training: {duration: 10ep, global_batch_size: 100}\n")
                .string();
  }
  std::string Program() const { return (folder_.path() / "bin/lockstep").string(); }
  void Script(const char* name, const char* text) {
    chmod(folder_.Write(name, text).c_str(), 0755);
  }
  void Behave(const std::string& script) { folder_.Write("bin/behaviour", script + "\n"); }
  std::string Calls() const {
    std::ifstream file(folder_.path() / "bin/calls");
    return {std::istreambuf_iterator<char>(file), {}};
  }
  Process::Options Environment() const {
    return {.environment = {{"LOCKSTEP_SOCKET", coordinator_.socket()}}, .input = {}, .folder = {}};
  }
  std::vector<std::string> Command(std::vector<std::string> arguments) const {
    std::vector<std::string> command = {Program(), "plan", file_, "--allow-root-mpirun"};
    command.insert(command.end(), arguments.begin(), arguments.end());
    return command;
  }
  Result Plan(const std::vector<std::string>& arguments) const {
    return RunToEnd(Command(arguments), Environment());
  }
  Json PlanJson(std::vector<std::string> arguments) const {
    arguments.insert(arguments.end(), {"-o", "json"});
    const Result result = Plan(arguments);
    EXPECT_EQ(result.code, 0) << result.err;
    return Json::parse(result.out, nullptr, /*allow_exceptions=*/false);
  }
  std::string Prices(const std::string& per_hour) {
    return folder_
        .Write("lockstepd.yaml", "price: {currency: EUR, per_rank_hour: " + per_hour +
                                     ", per_kwh: 0.5, power: {cpu_rank_watts: 100}}\n")
        .string();
  }
  static int Slots() {
    cpu_set_t cpus;
    return sched_getaffinity(0, sizeof(cpus), &cpus) == 0 ? CPU_COUNT(&cpus) : 1;
  }
  // Of this process, since another may run the same test.
  static std::string Name() { return "name: planned-" + std::to_string(getpid()); }
  static size_t GangFolders() {
    size_t count = 0;
    for (const auto& entry : fs::directory_iterator("/tmp")) {
      if (entry.path().string().find("/lockstep-gang-") == std::string::npos) continue;
      std::ifstream file(entry.path() / "run.yaml");
      std::string first;
      count += std::getline(file, first) && first == Name() ? 1u : 0u;
    }
    return count;
  }

  TempFolder folder_;
  FakeCoordinator coordinator_;
  std::string file_;
};

TEST_F(PlanVerbTest, OneRankIsProbedAndPlanned) {
  const Json plan = PlanJson({"--ranks", "1"});
  ASSERT_EQ(plan["rows"].size(), 1u);
  const Json& row = plan["rows"][0];
  EXPECT_NEAR(row["step_seconds"].get<double>(), 0.104, 1e-6);
  EXPECT_NEAR(row["epoch"]["seconds"].get<double>(), 1.04, 1e-6);
  EXPECT_NEAR(row["run"]["seconds"].get<double>(), 10.4, 1e-6);
  EXPECT_EQ(row["extrapolated"], false);
  EXPECT_FALSE(row["run"].contains("cost"));
  EXPECT_THAT(plan["price_source"].get<std::string>(), HasSubstr("--prices lockstepd.yaml"));
  EXPECT_THAT(Calls(), AllOf(HasSubstr("np=1 probe /tmp/lockstep-gang-"),
                             HasSubstr("--batches 25,50,100\n")));
}

TEST_F(PlanVerbTest, WhatTheMachineHasNotIsExtrapolatedAndSaysSo) {
  const Result result = Plan({"--ranks", "1,4096", "--set", "training.global_batch_size=8192",
                              "--interconnect", "100GbE"});
  EXPECT_EQ(result.code, 0) << result.err;
  EXPECT_THAT(result.out, AllOf(HasSubstr("4096*"), HasSubstr("* 4096 ranks: extrapolated from "),
                                HasSubstr("over 100GbE between ")));
  EXPECT_THAT(Calls(), AllOf(HasSubstr("training.global_batch_size=8192"),
                             Not(HasSubstr("np=4096")), HasSubstr("--batches 2,")));
}

// A rank that has the machine for itself says nothing of ranks that share one.
TEST_F(PlanVerbTest, WhatIsExtrapolatedIsExtrapolatedFromAFullMachine) {
  const Json plan = PlanJson({"--ranks", "1,4096", "--set", "training.global_batch_size=8192"});
  const Json& basis = plan["probes"].back();
  EXPECT_EQ(basis["ranks"], Slots());
  EXPECT_EQ(plan["rows"].size(), 2u);
}

TEST_F(PlanVerbTest, BytesMovedCostWhatTheirSourceCosts) {
  const std::string prices =
      folder_
          .Write("lockstepd.yaml",
                 "price: {currency: EUR, transfers: [{source: checkpoint, per_gb: 0.02}]}\n")
          .string();
  const Json plan = PlanJson({"--ranks", "1", "--prices", prices});
  const Json& row = plan["rows"][0];
  EXPECT_EQ(row["moved_bytes"]["checkpoint"], 10e9);  // One of 1 GB an epoch.
  EXPECT_NEAR(row["run"]["transfer_cost"].get<double>(), 0.2, 1e-9);
  EXPECT_NEAR(row["run"]["cost"].get<double>(), 0.2, 1e-9);
  EXPECT_NEAR(row["epoch"]["cost"].get<double>(), 0.02, 1e-9);
}

TEST_F(PlanVerbTest, PricesOfAFileMakeMoneyAndEnergy) {
  const Json plan = PlanJson({"--ranks", "1", "--prices", Prices("3.6")});
  const Json& run = plan["rows"][0]["run"];
  EXPECT_EQ(plan["currency"], "EUR");
  EXPECT_NEAR(run["hardware_cost"].get<double>(), 0.0104, 1e-6);  // 10.4 s at 0.001 a second.
  EXPECT_NEAR(run["energy_kwh"].get<double>(), 10.4 * 100 / 3.6e6, 1e-9);
  EXPECT_NEAR(run["cost"].get<double>(), 0.0104 + 0.5 * 10.4 * 100 / 3.6e6, 1e-6);
}

TEST_F(PlanVerbTest, PricesOfARunningCoordinatorAreTaken) {
  coordinator_.price_yaml = "price: {currency: CHF, per_rank_hour: 3.6}\n";
  coordinator_.Start();
  const Json plan = PlanJson({"--ranks", "1"});
  EXPECT_EQ(plan["currency"], "CHF");
  EXPECT_EQ(plan["price_source"], "the coordinator's");
  EXPECT_THAT(Plan({"--ranks", "1"}).err, HasSubstr("1 run is under way here"));
}

TEST_F(PlanVerbTest, TheTableAdvisesInWordsAndTalksOnStderr) {
  const Result result = Plan(
      {"--ranks", "1,4096", "--set", "training.global_batch_size=8192", "--prices", Prices("1")});
  EXPECT_EQ(result.code, 0) << result.err;
  EXPECT_THAT(result.out,
              AllOf(HasSubstr("RANKS"), HasSubstr("COST/RUN"), HasSubstr("4096 ranks are "),
                    HasSubstr("× faster than 1 and cost "), HasSubstr(": use "),
                    HasSubstr("the rule: "), HasSubstr("energy is estimated: 100 W a rank")));
  EXPECT_THAT(result.err, AllOf(HasSubstr("probing 1 rank with"), HasSubstr("  8192 samples")));
  EXPECT_THAT(result.out, Not(HasSubstr("probing")));
}

TEST_F(PlanVerbTest, ABatchThatDoesNotFitIsAnAnswerWithWhatWouldFit) {
  Behave("TOO_MUCH=100");
  const Json plan = PlanJson({"--ranks", "1"});
  EXPECT_EQ(plan["rows"][0]["fits"], false);
  EXPECT_EQ(plan["rows"][0]["micro_batch_size"], 50);
  EXPECT_EQ(plan["advice"]["ranks"], 0);
  // Two sizes fitted the first time, too few for a line.
  EXPECT_THAT(Calls(),
              AllOf(HasSubstr("--batches 25,50,100\n"), HasSubstr("--batches 12,25,50\n")));
  EXPECT_THAT(Plan({"--ranks", "1"}).out, HasSubstr("set training.micro_batch_size: 50"));
}

// What a probe dies of keeps it from timing all-reduces, evaluation and checkpoint.
TEST_F(PlanVerbTest, AProbeThatDiedIsMadeAgainWithWhatFits) {
  const int slots = Slots();
  Behave("TOO_MUCH=" + std::to_string(8192 / slots));
  const Json plan = PlanJson({"--ranks", "4096", "--set", "training.global_batch_size=8192"});
  const std::string half = std::to_string(8192 / slots / 2) + " ";
  const std::string quarter = std::to_string(8192 / slots / 4) + ",";
  EXPECT_THAT(Calls(), HasSubstr("--batches 2," + quarter + half));
  EXPECT_EQ(plan["probes"][0]["attempting"], 0);
  EXPECT_EQ(plan["probes"][0]["does_not_fit"], 8192 / slots);
}

TEST_F(PlanVerbTest, TheSmallestBatchesArePlannedWhereLargerOnesDoNotFit) {
  Behave("TOO_MUCH=4");
  const Json plan = PlanJson({"--ranks", "1", "--set", "training.global_batch_size=2"});
  EXPECT_EQ(plan["rows"][0]["fits"], true);
  EXPECT_EQ(plan["advice"]["ranks"], 1);
  EXPECT_THAT(Calls(), AllOf(HasSubstr("--batches 1,2,4 "), HasSubstr("--batches 1,2,3 ")));
}

TEST_F(PlanVerbTest, NothingThatFitsIsAnErrorWithAHint) {
  Behave("TOO_MUCH=1");
  const Result result = Plan({"--ranks", "1"});
  EXPECT_EQ(result.code, 8);
  EXPECT_THAT(result.err, AllOf(HasSubstr("does not fit"), HasSubstr("micro_batch_size")));
}

TEST_F(PlanVerbTest, WhatTheTrainerSaysOfAFailureIsPassedOn) {
  Behave("echo 'data.path: no such folder' >&2; exit 20");
  const Result result = Plan({"--ranks", "1"});
  EXPECT_EQ(result.code, 1);
  EXPECT_THAT(result.err, HasSubstr("data.path: no such folder"));
  EXPECT_EQ(GangFolders(), 0u);
}

TEST_F(PlanVerbTest, AReasonIsToldOnceAndWithoutMpirunsOwnWords) {
  Behave(
      "for rank in 0 1; do echo \"lockstep-trainer probe: rank $rank: two bad pictures:\n  a\"; "
      "done >&2; echo '-----\nmpirun detected' >&2; exit 20");
  const Result result = Plan({"--ranks", "1"});
  EXPECT_EQ(result.code, 1);
  EXPECT_EQ(result.err.substr(result.err.find("lockstep plan")),
            "lockstep plan:\nrank 0: two bad pictures:\n  a\n");
}

TEST_F(PlanVerbTest, AnInterruptLeavesNothingBehind) {
  Behave("sleep 300 & echo $! > \"$here/child\"; echo 'probe: under way' >&2; wait");
  Process process(Command({"--ranks", "1"}), Environment());
  ASSERT_TRUE(process.AwaitErr("under way"));
  EXPECT_EQ(GangFolders(), 1u);
  process.Signal(SIGINT);
  EXPECT_EQ(process.Wait(), 128 + SIGINT);
  EXPECT_THAT(process.err(), HasSubstr("nothing is left of the probe"));
  EXPECT_EQ(GangFolders(), 0u);
  std::ifstream file(folder_.path() / "bin/child");
  int child = 0;
  file >> child;
  ASSERT_GT(child, 0);
  // Gone, or dead and not yet reaped by whoever adopted it.
  std::ifstream stat("/proc/" + std::to_string(child) + "/stat");
  std::string pid, name, state = "gone";
  stat >> pid >> name >> state;
  EXPECT_THAT(state, AnyOf("gone", "Z", "X"));
}

TEST_F(PlanVerbTest, AClosedTerminalLeavesNothingBehind) {
  Behave("echo 'probe: under way' >&2; sleep 300");
  Process process(Command({"--ranks", "1"}), Environment());
  ASSERT_TRUE(process.AwaitErr("under way"));
  process.Signal(SIGHUP);
  EXPECT_EQ(process.Wait(), 128 + SIGHUP);
  EXPECT_EQ(GangFolders(), 0u);
}

TEST_F(PlanVerbTest, NothingIsLeftOfAPlanThatWorked) {
  EXPECT_EQ(Plan({"--ranks", "1"}).code, 0);
  EXPECT_EQ(GangFolders(), 0u);
}

// A coordinator beside it sweeps the folders whose owner is gone. Probes come and go.
TEST_F(PlanVerbTest, ItsFolderIsItsOwnFromTheFirstProbeToTheLast) {
  Behave("readlink /proc/$(cut -d' ' -f1 \"$TMPDIR/owner\")/exe >> \"$here/owners\"; TOO_MUCH=60");
  ASSERT_EQ(Plan({"--ranks", "1"}).code, 0);
  std::ifstream file(folder_.path() / "bin/owners");
  int probes = 0;
  for (std::string owner; std::getline(file, owner); ++probes) EXPECT_EQ(owner, Program());
  EXPECT_GT(probes, 1);
}

TEST_F(PlanVerbTest, WrongArgumentsAreExitTwoAndStartNothing) {
  const auto refused = [this](const std::vector<std::string>& arguments, const char* why) {
    const Result result = Plan(arguments);
    EXPECT_EQ(result.code, 2) << why;
    EXPECT_THAT(result.err, HasSubstr(why));
  };
  refused({"--interconnect", "string"}, "there is no interconnect 'string'");
  refused({"--ranks", "0"}, "expected a number above 0");
  refused({"--ranks", "5000"}, "at most 4096");
  refused({"--ranks", "101"}, "which 101 ranks cannot share");
  refused({"--ranks", "3", "--set", "model={name: resnet18, sync_batch_norm: true}"},
          "which 3 ranks cannot share equally");
  refused({"--set", "training.duration=soon"}, "training.duration");
  refused({"--prices", "/no/such/file"}, "/no/such/file");
  EXPECT_EQ(Calls(), "");
}

TEST_F(PlanVerbTest, AMeasuredInterconnectTakesTwoRanks) {
  const Result result = Plan({"--ranks", "1", "--interconnect", "measured"});
  EXPECT_EQ(result.code, 2);
  EXPECT_THAT(result.err, HasSubstr("needs two ranks"));
}

TEST_F(PlanVerbTest, HelpAndCompletionKnowTheVerb) {
  EXPECT_THAT(RunToEnd({Program(), "help", "plan"}).out,
              AllOf(HasSubstr("--ranks"), HasSubstr("--interconnect")));
  EXPECT_THAT(RunToEnd({Program(), "completion", "bash"}).out,
              HasSubstr("'plan') words='--allow-root-mpirun"));
}

}  // namespace
}  // namespace lockstep::cli
