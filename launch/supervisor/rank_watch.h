// Keeps the last minute of looks at the ranks of one run, and names its straggler from them
// (launch/coordinator/straggler.h): what the rank board tells of their time, /proc of their
// processes, the monitor of their GPUs, and rank 0's reports of who came last.
//
// The window is 60 s, longer for slow steps (until it holds kStragglerSteps of them, 10 minutes at
// most), and begins anew with each attempt. Looks come about once a second; memory is bounded.
// One thread. `now` is CLOCK_MONOTONIC in seconds.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <optional>
#include <vector>

#include "config/rank_board.h"
#include "launch/coordinator/straggler.h"
#include "launch/launcher/process.h"
#include "metrics/devices/gpu_reading.h"

namespace lockstep::launch {

// What rank 0 reported of the attempt so far.
struct ArrivalCounts {
  int64_t steps = 0;
  std::vector<int64_t> slowest_steps;  // By rank.
};

class RankWatch {
 public:
  using ReadStat = std::function<std::optional<ProcessStat>(int64_t pid, uint64_t start_time)>;
  /// `read_stat` is for tests.
  explicit RankWatch(ReadStat read_stat = [](int64_t pid, uint64_t start_time) {
    return ReadProcessStat(pid, start_time);
  });

  /// One look. `board` are the slots of the attempt's board, `gpus` the newest readings by rank,
  /// those of ranks that have a GPU. A look too soon after the last one is left out.
  void Look(double now, int attempt, const std::vector<config::RankState>& board,
            const ArrivalCounts& counts, const std::map<int, metrics::GpuReading>& gpus);

  /// Of the window until the last look; nobody in the first ten seconds of an attempt's steps.
  const Straggler& straggler() const { return straggler_; }

 private:
  // Of one rank, as totals.
  struct RankLook {
    int rank = 0;
    int64_t slowest_steps = 0;
    std::array<double, config::kPhaseCount> phase_seconds{};
    std::optional<double> cpu_seconds;
    bool stopped = false;
    std::optional<GpuWindow> gpu;
  };
  struct Moment {
    double at = 0;
    int64_t steps = 0;
    std::vector<RankLook> ranks;
  };
  StragglerWindow Window() const;
  void Trim();

  ReadStat read_stat_;
  int attempt_ = 0;
  std::deque<Moment> looks_;
  Straggler straggler_;
};

}  // namespace lockstep::launch
