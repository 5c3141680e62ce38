// lockstep-trainer: one rank. `mpirun -np N lockstep-trainer run.yaml [--run-dir DIR]` trains;
// nothing else is needed. `lockstep-trainer evaluate|predict|export|describe|serve …` uses what was
// trained (trainer/inference/commands.h); `mpirun -np N lockstep-trainer probe run.yaml …` measures
// what training would take (trainer/probe/probe.h).
//
// main() composes and ends: it reads the config, claims the run directory, makes the communicator
// and the link, calls Train(), and turns whatever happened into an exit code that mpirun, the
// coordinator and scripts understand (config/exit_code.h).
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "config/coordinator_config.h"
#include "config/load.h"
#include "trainer/affinity.h"
#include "trainer/claim.h"
#include "trainer/comm/world.h"
#include "trainer/control.h"
#include "trainer/data/dataset.h"
#include "trainer/device/device.h"
#include "trainer/failure.h"
#include "trainer/host_memory.h"
#include "trainer/inference/commands.h"
#include "trainer/link/coordinator_link.h"
#include "trainer/link/rank_log.h"
#include "trainer/probe/probe.h"
#include "trainer/rank_device.h"
#include "trainer/rank_setup.h"
#include "trainer/saver.h"
#include "trainer/trace.h"
#include "trainer/traced_communicator.h"
#include "trainer/train.h"

namespace lockstep::trainer {
namespace {

using config::RunConfig;
using config::RunDirectory;
using config::TrainerExit;

struct Arguments {
  std::string config_file;
  std::string run_dir;
  std::vector<std::string> set;
  int attempt = 0;          // 0 = the next one of the run directory.
  std::string coordinator;  // Socket; given by the coordinator when it launches.
  std::string run_id;
  int64_t log_limit_bytes = 256ll << 20;
  bool no_coordinator = false;
  TraceOptions profile;

  bool launched_by_coordinator() const { return !run_id.empty(); }
};

std::string VersionText() {
  return absl::StrCat("lockstep-trainer ", LOCKSTEP_VERSION, " (profile ", LOCKSTEP_PROFILE,
                      ", LibTorch ", LOCKSTEP_TORCH_VERSION, ")");
}

void AddProfileOptions(CLI::App& app, TraceOptions& profile) {
  app.add_option(
      "--profile", profile.file,
      "Write a trace of a few steps of every rank to this file, for ui.perfetto.dev: "
      "phases, collectives, checkpoint writes. On a GPU these are the times at which the "
      "host handed work over; --profile-ops adds those of the GPU");
  app.add_option_function<std::string>(
         "--profile-steps",
         [&profile](const std::string& text) {
           char end = 0;
           long long first = 0, last = 0;
           if (std::sscanf(text.c_str(), "%lld:%lld%c", &first, &last, &end) != 2 || first < 0 ||
               last <= first || last - first > 1000) {
             throw CLI::ValidationError("--profile-steps",
                                        "expected FIRST:END, END at most 1000 "
                                        "above FIRST, not " +
                                            text);
           }
           profile.first = first;
           profile.end = last;
         },
         "Which steps, counted from this attempt's first: from FIRST up to, not including, END")
      ->type_name("FIRST:END")
      ->default_str("10:15");
  app.add_flag("--profile-ops", profile.operators,
               "Also LibTorch's operators and, on a GPU, kernels; slows those steps down");
}

int ParseArguments(int argc, char** argv, Arguments& arguments, bool& finished) {
  CLI::App app{
      "Trains one rank of a run. Start it with mpirun: mpirun -np 2 lockstep-trainer run.yaml\n"
      "As the first argument, with mpirun: probe; without: evaluate, predict, export, describe "
      "(--help each)"};
  app.add_option("config", arguments.config_file, "The run's YAML file")->required();
  app.add_option("--run-dir", arguments.run_dir,
                 "Where the run lives (default: runs/NAME); an existing one is continued");
  app.add_option("--set", arguments.set, "Override one setting: --set training.duration=1ep")
      ->allow_extra_args(false);
  app.add_flag("--no-coordinator", arguments.no_coordinator, "Do not register with a coordinator");
  AddProfileOptions(app, arguments.profile);
  app.add_option("--coordinator", arguments.coordinator,
                 "Socket of the coordinator to register with");
  app.add_option("--attempt", arguments.attempt, "Number of this attempt")
      ->group("Given by the coordinator");
  app.add_option("--run-id", arguments.run_id, "Id of the run")->group("Given by the coordinator");
  app.add_option("--log-limit", arguments.log_limit_bytes, "Bytes a rank's log may have")
      ->group("Given by the coordinator");
  app.set_version_flag("--version", VersionText());
  finished = true;
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : static_cast<int>(TrainerExit::kBadConfig);
  }
  finished = false;
  return 0;
}

// Threads per rank decide the bits (summation order), so a run keeps those it began with.
void KeepThreads(const RunDirectory& directory, RunConfig& config) {
  if (config.resources.threads_per_rank != 0) return;
  const auto text = config::ReadFile(directory.run_yaml());
  if (!text.ok()) return;
  const auto before = config::LoadRunConfig(*text, directory.run_yaml().string());
  if (before.ok()) config.resources.threads_per_rank = before.config.resources.threads_per_rank;
}

// Rank 0 claims the run directory; all learn the attempt, or why not.
std::unique_ptr<Claim> ClaimDirectory(const RunDirectory& directory, const Arguments& arguments,
                                      const World& world, int& attempt) {
  std::unique_ptr<Claim> claim;
  std::string outcome;
  if (world.rank() == 0) {
    auto taken =
        Claim::Take(directory, arguments.attempt, arguments.launched_by_coordinator() ? 10.0 : 0.5);
    outcome = taken.ok() ? absl::StrCat("+", (*taken)->attempt())
                         : absl::StrCat("-", taken.status().message());
    if (taken.ok()) claim = *std::move(taken);
  }
  outcome = world.BroadcastText(outcome, 0);
  if (outcome[0] == '-') throw Refusal{TrainerExit::kStaleAttempt, outcome.substr(1)};
  attempt = std::stoi(outcome.substr(1));
  return claim;
}

std::unique_ptr<CoordinatorLink> MakeLink(const Arguments& arguments, const World& world,
                                          const RunDirectory& directory, int attempt,
                                          const RunConfig& config, const Device& device) {
  const std::vector<int64_t> pids = world.AllGather(getpid());
  const std::vector<std::string> hosts = world.GatherTexts(world.host());
  const std::vector<std::string> names = world.GatherTexts(device.Name());
  const std::vector<std::string> uuids = world.GatherTexts(device.Uuid());
  if (world.rank() != 0 || arguments.no_coordinator) return nullptr;
  LinkOptions options;
  options.socket = arguments.coordinator;
  options.run_id = arguments.run_id;
  options.attempt = attempt;
  if (arguments.launched_by_coordinator()) {
    const auto token = config::ReadFile(directory.attempt(attempt) / "token", 4096);
    if (!token.ok())
      throw Refusal{TrainerExit::kStaleAttempt, std::string(token.status().message())};
    options.token = *token;
  }
  options.run_dir = std::filesystem::absolute(directory.root()).string();
  options.world_size = world.size();
  options.pids = pids;
  options.hosts = hosts;
  for (size_t rank = 0; rank < names.size(); ++rank) {
    options.devices.push_back({names[rank], uuids[rank]});
  }
  options.config_yaml = config::ToYaml(config);
  options.mpirun_pid = world.size() > 1 ? getppid() : 0;
  return std::make_unique<CoordinatorLink>(std::move(options));
}

std::unique_ptr<Trace> MakeTrace(const Arguments& arguments, const World& world) {
  if (arguments.profile.file.empty()) return nullptr;
  TraceOptions options = arguments.profile;
  options.rank = world.rank();
  options.size = world.size();
  options.host = world.host();
  return std::make_unique<Trace>(options, [&world](const std::string& text, int root) {
    return world.BroadcastText(text, root);
  });
}

// What this process knows when it has to say why it ends.
struct Ending {
  std::optional<RunDirectory> directory;
  int attempt = 0;
  int rank = 0;
  CoordinatorLink* link = nullptr;
};

void TellFailure(const Ending& ending, TrainerExit exit, const std::string& message) {
  std::fprintf(stderr, "lockstep-trainer: rank %d: %s: %s\n", ending.rank, Describe(exit),
               message.c_str());
  if (!ending.directory || ending.attempt == 0) return;
  const nlohmann::json failure = {{"rank", ending.rank},
                                  {"exit_code", static_cast<int>(exit)},
                                  {"reason", Describe(exit)},
                                  {"message", message},
                                  {"time", static_cast<int64_t>(std::time(nullptr))}};
  // The process ends whether or not this can be written; stderr has it too.
  (void)config::WriteFileDurably(ending.directory->failure(ending.attempt, ending.rank),
                                 failure.dump(2) + "\n");
  if (ending.link != nullptr) {
    ending.link->Goodbye(static_cast<int>(exit), message, ProgressReport{},
                         std::chrono::milliseconds(500));
  }
}

// How far the attempts before this one came: what is made below that was made before. The ranks of
// this host tell; where their boards are gone, nothing is known to be made again.
int64_t StepsBegunBefore(const RunDirectory& directory, int attempt) {
  int64_t steps = 0;
  for (int earlier = 1; earlier < attempt; ++earlier) {
    const auto ranks = config::RankBoard::Read(directory.board(earlier));
    if (!ranks.ok()) continue;
    for (const config::RankState& rank : *ranks) steps = std::max(steps, rank.step);
  }
  return steps;
}

int RunRank(const Arguments& arguments, const World& world, Ending& ending) {
  RunConfig config = LoadConfig(arguments.config_file, arguments.set, world);
  CheckWorld(arguments.config_file, world, config);
  const RunDirectory directory(arguments.run_dir.empty()
                                   ? std::filesystem::path("runs") / config.name
                                   : std::filesystem::path(arguments.run_dir));
  int attempt = 0;
  const std::unique_ptr<Claim> claim = ClaimDirectory(directory, arguments, world, attempt);
  ending.directory = directory;
  ending.attempt = attempt;

  std::unique_ptr<RankLog> log;
  if (arguments.launched_by_coordinator()) {
    auto redirected =
        RankLog::Redirect(directory.rank_log(attempt, world.rank()), arguments.log_limit_bytes);
    if (redirected.ok()) log = *std::move(redirected);
  }
  KeepThreads(directory, config);
  config.resources.ranks = world.size();
  config = config::Resolve(config, MachineOf(world));
  const Binding binding = BindRank({.local_rank = world.local_rank(),
                                    .ranks_on_host = world.ranks_on_host(),
                                    .threads = config.resources.threads_per_rank});
  const TrainingData data = OpenData(config);
  CheckThatRanksAgree(world, data);
  if (world.rank() == 0) {
    const absl::Status written =
        config::WriteFileDurably(directory.run_yaml(), config::ToYaml(config));
    if (!written.ok()) throw CheckpointFailed(std::string(written.message()));
    std::printf("%s: %d ranks x %d threads (cores: %s), run directory %s, attempt %d\n",
                config.name.c_str(), world.size(), config.resources.threads_per_rank,
                binding.text.c_str(), directory.root().c_str(), attempt);
    std::fflush(stdout);
  }

  auto board = config::RankBoard::Open(directory.board(attempt), world.size());
  if (board.ok()) board->Claim(world.rank());
  const std::unique_ptr<Device> device = OpenRankDevice(config, world);
  const std::unique_ptr<Trace> trace = MakeTrace(arguments, world);
  std::unique_ptr<Communicator> communicator = world.MakeCommunicator(
      *device, std::chrono::milliseconds(
                   static_cast<int64_t>(1000 * config.resources.collective_timeout_seconds)));
  if (trace) communicator = std::make_unique<TracedCommunicator>(std::move(communicator), *trace);
  if (device->is_gpu()) {
    std::printf("rank %d: %s, %s\n", world.rank(), device->Describe().c_str(),
                communicator->Describe().c_str());
    std::fflush(stdout);
  }
  const std::unique_ptr<CoordinatorLink> link =
      MakeLink(arguments, world, directory, attempt, config, *device);
  ending.link = link.get();

  TrainSetup setup{config, *data.train, *data.eval, directory, attempt, *device, *communicator};
  setup.link = link.get();
  setup.board = board.ok() ? &*board : nullptr;
  setup.redone_until = StepsBegunBefore(directory, attempt);
  setup.trace = trace.get();
  setup.own_log = log != nullptr;
  setup.one_host = world.ranks_on_host() == world.size();
  setup.enforce_max_time = !arguments.launched_by_coordinator();
  try {
    const Outcome outcome = Train(setup);
    if (trace) trace->Finish();
    return static_cast<int>(outcome.exit);
  } catch (...) {
    Failure failure = Classify();
    if (failure.exit == TrainerExit::kCommunicatorLost && device->is_gpu()) {
      failure.message += WhoIsBehind(directory, attempt);
    }
    TellFailure(ending, failure.exit, failure.message);
    ending.link = nullptr;
    KeepHistory(directory, attempt, *communicator);
    if (Agreed(failure.exit)) return static_cast<int>(failure.exit);
    communicator->Abort(failure.message);
    world.Abort(static_cast<int>(failure.exit));
  }
}

int Main(int argc, char** argv) {
  if (argc > 1 && IsCommand(argv[1])) return RunCommand(argc, argv);
  if (argc > 1 && IsProbe(argv[1])) return ProbeMain(argc, argv);
  Arguments arguments;
  bool finished = false;
  if (const int code = ParseArguments(argc, argv, arguments, finished); finished) return code;
  CatchSignals();
  KeepFreedHostMemory();
  const World world(&argc, &argv);
  Ending ending;
  ending.rank = world.rank();
  try {
    return RunRank(arguments, world, ending);
  } catch (const Refusal& refusal) {
    if (world.rank() == 0) std::fprintf(stderr, "%s\n", refusal.message.c_str());
    return static_cast<int>(refusal.exit);
  } catch (...) {
    const Failure failure = Classify();
    TellFailure(ending, failure.exit, failure.message);
    if (world.size() == 1 || Agreed(failure.exit)) return static_cast<int>(failure.exit);
    world.Abort(static_cast<int>(failure.exit));
  }
}

}  // namespace
}  // namespace lockstep::trainer

int main(int argc, char** argv) {
  return lockstep::trainer::Main(argc, argv);
}
