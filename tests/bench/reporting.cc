// What telling the world costs rank 0 in each step: the phase clock, the rank board, metrics.jsonl,
// TensorBoard's event files, the link to the coordinator. Microseconds per step at 1,000 steps a
// second.
//
//   bench-reporting FOLDER [--socket SOCKET] [--ranks 8] [--log-every 10] [--blocks 7]
//                   [--steps 1000]
//
// Made of the trainer's own parts, in the order of Session's calls. Between them stands a step of a
// millisecond that goes through four megabytes, as a tiny model's does, so that nothing of the
// reporting is left in the first caches. One sample is the mean over a block of steps: rows, points
// and sends that are made once in many steps count with their share. "other threads" is the
// processor time of the link's threads over the same block.
#include <sys/resource.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <numeric>
#include <thread>

#include "config/rank_board.h"
#include "config/run_directory.h"
#include "tests/bench/measure.h"
#include "trainer/data/input_file.h"
#include "trainer/phase_clock.h"
#include "trainer/report.h"

namespace lockstep::bench {
namespace {

using config::Phase;
using trainer::MonotonicSeconds;

struct Options {
  std::string folder;
  std::string socket;
  int ranks = 8;
  int64_t log_every = 10;
  int blocks = 7;
  int steps = 1000;
  bool tensorboard = true;
};

double CpuSeconds(int whose) {
  rusage usage{};
  getrusage(whose, &usage);
  const auto seconds = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + 1e-6 * static_cast<double>(t.tv_usec);
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

// How often this thread had to leave the processor to another one.
int64_t Preemptions() {
  rusage usage{};
  getrusage(RUSAGE_THREAD, &usage);
  return usage.ru_nivcsw;
}

// The seconds of calls, by the name of the part they belong to. A call in which the thread was
// preempted says how busy the machine is, and is left out; waits of its own count.
class Parts {
 public:
  explicit Parts(Samples& samples) : samples_(samples) {}
  template <typename Call>
  void Time(const char* name, const Call& call) {
    Part& part = parts_[name];
    ++part.calls;
    const int64_t before = Preemptions();
    const double began = MonotonicSeconds();
    call();
    const double seconds = MonotonicSeconds() - began;
    if (Preemptions() != before) return;
    ++part.timed;
    part.seconds += seconds;
  }
  /// Ends a block of so many steps. What reading the clock itself takes is taken off.
  void Block(int steps, double clock_seconds) {
    double all = 0;
    for (auto& [name, part] : parts_) {
      const double mean = part.seconds / std::max(part.timed, 1) - clock_seconds;
      const double per_step = std::max(mean, 0.0) * part.calls / steps;
      samples_[name].push_back(1e6 * per_step);
      all += per_step;
      part = {};
    }
    samples_["all"].push_back(1e6 * all);
  }

 private:
  struct Part {
    int calls = 0;
    int timed = 0;
    double seconds = 0;
  };
  Samples& samples_;
  std::map<std::string, Part> parts_;
};

double ClockSeconds() {
  constexpr int kTimes = 100000;
  const double began = MonotonicSeconds();
  for (int i = 0; i < kTimes; ++i) MonotonicSeconds();
  return (MonotonicSeconds() - began) / kTimes;
}

class Step {
 public:
  Step(const Options& options, config::RankBoard& board, trainer::CoordinatorLink* link)
      : options_(options),
        board_(board),
        directory_(options.folder),
        clock_(&board, 0),
        report_(directory_, clock_, link, ReportOptionsOf(options)) {
    summary_.arrival_seconds.assign(static_cast<size_t>(options.ranks), 1e-4);
    summary_.arrival_seconds.back() = 2e-4;
    summary_.slowest_rank = options.ranks - 1;
    summary_.samples = 64;
    if (const auto opened = report_.Open(state_); !opened.ok()) {
      throw std::runtime_error(std::string(opened.message()));
    }
  }

  void Run(Parts& parts) {
    const double began = MonotonicSeconds();
    parts.Time("clock and board", [&] {
      clock_.SetStep(state_.step);
      clock_.Enter(Phase::kDataWait);
      board_.CountCollective(0);
      board_.SetLoaded(0, 64 * state_.step, 0, trainer::InputBytes());
      clock_.Enter(Phase::kForward);
      clock_.Enter(Phase::kBackward);
      clock_.Enter(Phase::kAllreduceExposed);
    });
    Work();
    parts.Time("clock and board", [&] {
      clock_.Enter(Phase::kOptimizer);
      clock_.Enter(Phase::kOther);
      clock_.SettleReduce(state_.step - 1, 1e-5);
      clock_.Enter(Phase::kOther);
    });
    summary_.step = state_.step++;
    summary_.loss = 1.0 / static_cast<double>(state_.step);
    parts.Time("step", [&] { report_.Step(summary_, 0.1); });
    parts.Time("timing", [&] { report_.Timing(MonotonicSeconds() - began, 1e-4, 1 << 20, 64); });
    parts.Time("progress", [&] { report_.Progress(state_); });
  }

 private:
  static trainer::ReportOptions ReportOptionsOf(const Options& options) {
    trainer::ReportOptions reporting;
    reporting.world_size = options.ranks;
    reporting.total_steps = 1 << 30;
    reporting.steps_per_epoch = 1000;
    reporting.log_every_steps = options.log_every;
    reporting.score = "top1";
    reporting.terminal = false;
    if (options.tensorboard) {
      reporting.tensorboard = {.score = "top1",
                               .classes = {},
                               .log_every_steps = options.log_every,
                               .run_yaml = "name: bench\n"};
    }
    return reporting;
  }

  void Work() {
    const double until = MonotonicSeconds() + 1e-3;
    do {
      for (size_t i = 0; i < memory_.size(); i += 8) memory_[i] += memory_[i + 1];
    } while (MonotonicSeconds() < until);
  }

  const Options& options_;
  config::RankBoard& board_;
  const config::RunDirectory directory_;
  trainer::PhaseClock clock_;
  trainer::Report report_;
  trainer::TrainingState state_;
  trainer::StepSummary summary_;
  std::vector<double> memory_ = std::vector<double>((4 << 20) / sizeof(double), 1.0);
};

int Main(const Options& options) {
  std::filesystem::create_directories(options.folder);
  auto board = config::RankBoard::Open(options.folder + "/board", options.ranks);
  if (!board.ok()) throw std::runtime_error(std::string(board.status().message()));
  for (int rank = 0; rank < options.ranks; ++rank) board->Claim(rank);
  std::unique_ptr<trainer::CoordinatorLink> link;
  if (!options.socket.empty()) {
    trainer::LinkOptions linking;
    linking.socket = options.socket;
    linking.run_dir = options.folder;
    linking.world_size = options.ranks;
    linking.pids.assign(static_cast<size_t>(options.ranks), getpid());
    linking.hosts.assign(static_cast<size_t>(options.ranks), "localhost");
    linking.config_yaml =
        "name: bench\ndata: {kind: shapes}\ntraining: {duration: 1ep, global_batch_size: 64}\n";
    linking.mpirun_pid = getppid();
    link = std::make_unique<trainer::CoordinatorLink>(linking);
    for (int i = 0; i < 500 && !link->connected(); ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
    if (!link->connected()) throw std::runtime_error("no coordinator at " + options.socket);
  }
  Samples samples;
  Parts parts(samples);
  const double clock_seconds = ClockSeconds();
  {
    Step step(options, *board, link.get());
    Samples unused;
    Parts warm(unused);
    for (int i = 0; i < 100; ++i) step.Run(warm);
    for (int block = 0; block < options.blocks; ++block) {
      const double others = CpuSeconds(RUSAGE_SELF) - CpuSeconds(RUSAGE_THREAD);
      for (int i = 0; i < options.steps; ++i) step.Run(parts);
      parts.Block(options.steps, clock_seconds);
      samples["other threads"].push_back(
          1e6 * (CpuSeconds(RUSAGE_SELF) - CpuSeconds(RUSAGE_THREAD) - others) / options.steps);
    }
  }
  const nlohmann::json result = {{"samples", samples},
                                 {"unit", "microseconds per step"},
                                 {"clock_microseconds", 1e6 * clock_seconds},
                                 {"ranks", options.ranks},
                                 {"log_every_steps", options.log_every},
                                 {"connected", link != nullptr}};
  std::printf("%s\n", result.dump().c_str());
  return 0;
}

}  // namespace
}  // namespace lockstep::bench

int main(int argc, char** argv) {
  lockstep::bench::Options options;
  CLI::App app("What reporting costs in each step");
  app.add_option("FOLDER", options.folder)->required();
  app.add_option("--socket", options.socket);
  app.add_option("--ranks", options.ranks)->check(CLI::Range(1, 1024));
  app.add_option("--log-every", options.log_every)->check(CLI::PositiveNumber);
  app.add_option("--blocks", options.blocks)->check(CLI::PositiveNumber);
  app.add_option("--steps", options.steps)->check(CLI::PositiveNumber);
  app.add_option("--tensorboard", options.tensorboard);
  CLI11_PARSE(app, argc, argv);
  try {
    return lockstep::bench::Main(options);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
