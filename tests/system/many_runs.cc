// many_runs_test.py's tool.
//
//   many-runs fill STATE_DIR COUNT   makes COUNT runs of the newest one that the store of a daemon
//                                    that is not running holds: copies with all that belongs to it
//   many-runs list SOCKET CALLS      seconds of CALLS ListRuns calls on one connection, a line each
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <fstream>
#include <string>

#include "absl/strings/str_format.h"
#include "launch/cli/client.h"
#include "launch/coordinator/run_store.h"

namespace {

using lockstep::launch::Clocks;
using lockstep::launch::RunState;
using lockstep::launch::RunStore;
using lockstep::launch::StoredRun;

double Seconds(clockid_t clock) {
  timespec now{};
  clock_gettime(clock, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

template <typename T>
T OrDie(absl::StatusOr<T> value) {
  if (value.ok()) return *std::move(value);
  std::fprintf(stderr, "%s\n", std::string(value.status().message()).c_str());
  std::exit(1);
}

int Fill(const std::string& state_dir, int count) {
  Clocks clocks{
      .monotonic = Seconds(CLOCK_MONOTONIC), .unix = Seconds(CLOCK_REALTIME), .boot_id = {}};
  std::ifstream("/proc/sys/kernel/random/boot_id") >> clocks.boot_id;
  const auto store = OrDie(RunStore::Open(state_dir + "/lockstep.db", state_dir + "/backups"));
  const std::vector<StoredRun> runs = OrDie(store->LoadRuns(clocks));
  if (runs.empty()) {
    std::fprintf(stderr, "there is no run to copy\n");
    return 1;
  }
  const StoredRun& model = runs.back();
  const auto lines = OrDie(store->SumLines(model.run.spec.id, 0));
  RunStore::Batch batch;
  batch.clocks = clocks;
  for (int i = static_cast<int>(runs.size()); i < count; ++i) {
    StoredRun copy = model;
    copy.run.spec.id = absl::StrFormat("%0*x", model.run.spec.id.size(), 0xa00000 + 7919 * i);
    copy.run.spec.name = absl::StrFormat("%s-%04d", model.run.spec.name, i);
    copy.run.number = model.run.number + static_cast<uint64_t>(i);
    for (auto line : lines) {
      line.run = copy.run.spec.id;
      batch.lines.push_back(line);
    }
    for (const auto& [from, to] : {std::pair(RunState::kQueued, RunState::kStarting),
                                   std::pair(RunState::kStarting, RunState::kRunning),
                                   std::pair(RunState::kRunning, RunState::kCompleted)}) {
      batch.transitions.push_back(
          {.run = copy.run.spec.id, .from = from, .to = to, .reason = "", .at_unix = clocks.unix});
    }
    batch.runs.push_back(std::move(copy));
  }
  const absl::Status committed = store->Commit(batch);
  std::fprintf(stderr, "%s\n", committed.ToString().c_str());
  return committed.ok() ? 0 : 1;
}

int List(const std::string& socket, int calls) {
  const auto stub = OrDie(lockstep::cli::Connect(socket));
  for (int i = 0; i < calls; ++i) {
    grpc::ClientContext call;
    lockstep::v1::ListRunsResponse response;
    const double began = Seconds(CLOCK_MONOTONIC);
    const grpc::Status status = stub->ListRuns(&call, {}, &response);
    const double seconds = Seconds(CLOCK_MONOTONIC) - began;
    if (!status.ok() || response.runs().empty()) {
      std::fprintf(stderr, "%s, %d runs\n", status.error_message().c_str(), response.runs_size());
      return 1;
    }
    std::printf("%.6f\n", seconds);
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  const std::string verb = argc == 4 ? argv[1] : "";
  if (verb == "fill") return Fill(argv[2], std::atoi(argv[3]));
  if (verb == "list") return List(argv[2], std::atoi(argv[3]));
  std::fprintf(stderr, "many-runs fill STATE_DIR COUNT | list SOCKET CALLS\n");
  return 2;
}
