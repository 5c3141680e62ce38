// Which rank the others wait for, and why: a pure function of what a short window saw of each rank.
//
// A rank is named when it was the last to arrive in more than 60 % of the steps *and* without it a
// step would be more than 5 % shorter. The share alone is not enough: of two equal ranks one is
// always last, by nothing. The cost alone is not enough either: one slow step (a full disk cache, a
// checkpoint of somebody else) is an event, not a straggler. What a step would gain is the least
// that any other rank waited, less what the named one waited itself: with it gone, the second
// slowest sets the pace.
//
// The cause is looked for where its time beyond the others' went. A process that is stopped or
// starved of CPU is late in everything it does, so that is asked first; then whether it waits for
// data; then what can slow a GPU down from outside; what remains is the computation itself.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "config/rank_board.h"

namespace lockstep::launch {

// Of a rank's GPU, in the window.
struct GpuWindow {
  std::map<std::string, double> throttle_seconds;  // By reason, as in GpuReading.
  int pcie_width = 0;                              // Now; 0 = not known.
  int pcie_width_max = 0;
};

// What the window saw of one rank: growth from its beginning to its end.
struct RankWindow {
  int rank = 0;
  int64_t slowest_steps = 0;  // In which it arrived last.
  std::array<double, config::kPhaseCount> phase_seconds{};
  std::optional<double> cpu_seconds;  // Of its process, all threads; nullopt = not known.
  int looks = 0;                      // How often its process was looked at,
  int stopped_looks = 0;              // and how often it stood still (SIGSTOP, a debugger).
  std::optional<GpuWindow> gpu;
};

struct StragglerWindow {
  double seconds = 0;
  int64_t steps = 0;
  std::vector<RankWindow> ranks;
};

enum class StragglerCause { kDataLoader, kGpuThrottled, kPcieLink, kNotRunning, kCompute };
/// "data_loader", "gpu_throttled", "pcie_link", "not_running", "compute": a label of metrics.
const char* StragglerCauseName(StragglerCause cause);

struct Straggler {
  int rank = -1;                // -1 = nobody stands out.
  double share = 0;             // Of the window's steps, in which it arrived last.
  double seconds_per_step = 0;  // That it costs.
  StragglerCause cause = StragglerCause::kCompute;
  // "rank 3 is the slowest in 92 % of the steps and costs 41 ms a step: its data loader is slow …"
  std::string text;
};

inline constexpr double kStragglerShare = 0.6;
inline constexpr double kStragglerCost = 0.05;  // Of a step.
inline constexpr int64_t kStragglerSteps = 20;  // Fewer tell chance from habit badly.

/// Nobody where there are fewer than two ranks or kStragglerSteps steps in the window.
Straggler FindStraggler(const StragglerWindow& window);

}  // namespace lockstep::launch
