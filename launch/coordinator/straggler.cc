#include "launch/coordinator/straggler.h"

#include <algorithm>
#include <initializer_list>
#include <limits>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace lockstep::launch {
namespace {

using config::Phase;

// Evidence must explain this much of the time that a rank needs beyond the others.
constexpr double kExplains = 0.5;
// A process that has work and uses the CPU less often than the others, by this share of the time.
constexpr double kIdleDifference = 0.2;
constexpr double kStoppedShare = 0.1;    // Of the looks at it.
constexpr double kThrottledShare = 0.2;  // Of the window, beyond the others.

double In(const RankWindow& rank, std::initializer_list<Phase> phases) {
  double seconds = 0;
  for (const Phase phase : phases) seconds += rank.phase_seconds[static_cast<size_t>(phase)];
  return seconds;
}

double Waited(const RankWindow& rank) {
  return In(rank, {Phase::kStragglerWait});
}
double ForData(const RankWindow& rank) {
  return In(rank, {Phase::kDataWait});
}
double Working(const RankWindow& rank) {
  return In(rank, {Phase::kH2d, Phase::kForward, Phase::kBackward, Phase::kOptimizer});
}
double Computing(const RankWindow& rank) {
  return Working(rank) + In(rank, {Phase::kDevice});
}
// All that steps are made of. Steps made again are left out: their time is not told by phase.
double Stepping(const RankWindow& rank) {
  return ForData(rank) + Computing(rank) + Waited(rank) + In(rank, {Phase::kAllreduceExposed});
}
// A CPU is never waited for, and needs no copies. That there is a GPU in its slot tells nothing.
bool OnGpu(const RankWindow& rank) {
  return In(rank, {Phase::kDevice, Phase::kH2d}) > 0;
}
// Share of its working time in which the process used no CPU. More than one busy thread, or one
// that spins while it waits, only makes it smaller. A process whose GPU works has little to do.
double IdleShare(const RankWindow& rank) {
  if (OnGpu(rank)) return 0;
  const double working = Working(rank);
  if (!rank.cpu_seconds || working <= 0) return 0;
  return std::clamp((working - *rank.cpu_seconds) / working, 0.0, 1.0);
}
double StoppedShare(const RankWindow& rank) {
  return rank.looks == 0 ? 0 : static_cast<double>(rank.stopped_looks) / rank.looks;
}
// The reason that held the GPU's clocks down the longest, and its share of the window.
std::pair<std::string, double> Throttling(const RankWindow& rank, double seconds) {
  std::pair<std::string, double> worst{"", 0};
  if (!rank.gpu || seconds <= 0) return worst;
  for (const auto& [reason, throttled] : rank.gpu->throttle_seconds) {
    if (throttled / seconds > worst.second) worst = {reason, std::min(throttled / seconds, 1.0)};
  }
  return worst;
}

// Of the others: the middle one, so that a second odd rank does not matter.
template <typename Measure>
double Median(const std::vector<const RankWindow*>& others, const Measure& measure) {
  std::vector<double> values;
  values.reserve(others.size());
  for (const RankWindow* rank : others) values.push_back(measure(*rank));
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>((values.size() - 1) / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

std::string Time(double seconds) {
  if (seconds < 0.0095) return absl::StrFormat("%.1f ms", seconds * 1e3);
  return seconds < 0.9995 ? absl::StrFormat("%.0f ms", seconds * 1e3)
                          : absl::StrFormat("%.1f s", seconds);
}
std::string Percent(double ratio) {
  return absl::StrFormat("%.0f %%", ratio * 100);
}

const char* ThrottleWords(const std::string& reason) {
  if (reason == "power") return "its power limit";
  if (reason == "thermal") return "heat";
  if (reason == "power_brake") return "the power brake of its machine";
  if (reason == "sync_boost") return "the clocks of the GPUs it is bound to";
  if (reason == "hardware_slowdown") return "its hardware (heat or power)";
  return "its driver";
}

// Sets the cause and returns its words.
std::string FindCause(const StragglerWindow& window, const RankWindow& slow,
                      const std::vector<const RankWindow*>& others, StragglerCause* cause) {
  const double steps = static_cast<double>(window.steps);
  const double data = ForData(slow), data_others = Median(others, ForData);
  const double computing = Computing(slow), computing_others = Median(others, Computing);
  const double beyond = std::max(data + computing - data_others - computing_others, 0.0);

  const double idle = IdleShare(slow), idle_others = Median(others, IdleShare);
  const double stopped = StoppedShare(slow);
  *cause = StragglerCause::kNotRunning;
  if (stopped > kStoppedShare && stopped > 2 * Median(others, StoppedShare)) {
    return absl::StrCat("its process is stopped (SIGSTOP or a debugger) ", Percent(stopped),
                        " of the time");
  }
  if (idle - idle_others > kIdleDifference && idle * Working(slow) > kExplains * beyond) {
    return absl::StrCat("its process gets no CPU in ", Percent(idle),
                        " of the time it has work, the others in ", Percent(idle_others),
                        " (stopped, or other load on its cores)");
  }
  *cause = StragglerCause::kDataLoader;
  if (data > data_others && data - data_others > kExplains * beyond) {
    return absl::StrCat("its data loader is slow (", Time(data / steps),
                        " a step waiting for data, the others ", Time(data_others / steps), ")");
  }
  const auto [reason, throttled] = Throttling(slow, window.seconds);
  const double throttled_others = Median(
      others, [&](const RankWindow& rank) { return Throttling(rank, window.seconds).second; });
  *cause = StragglerCause::kGpuThrottled;
  if (throttled - throttled_others > kThrottledShare) {
    return absl::StrCat("its GPU is slowed down by ", ThrottleWords(reason), " in ",
                        Percent(throttled), " of the time, the others' in ",
                        Percent(throttled_others));
  }
  *cause = StragglerCause::kPcieLink;
  // A link as narrow as the others' is slow for them too. Where theirs is not told the GPU's own
  // greatest width must do.
  const int width_others = static_cast<int>(
      Median(others, [](const RankWindow& rank) { return rank.gpu ? rank.gpu->pcie_width : 0; }));
  if (slow.gpu && slow.gpu->pcie_width > 0) {
    const GpuWindow& gpu = *slow.gpu;
    const int usual = width_others > 0 ? width_others : gpu.pcie_width_max;
    if (gpu.pcie_width < usual) {
      return absl::StrCat("its GPU's PCIe link has ", gpu.pcie_width, " lanes of ",
                          std::max(gpu.pcie_width_max, usual),
                          width_others > 0 ? absl::StrCat(", the others' ", width_others) : "");
    }
  }
  *cause = StragglerCause::kCompute;
  return absl::StrCat("it computes slower (", Time(computing / steps), " a step, the others ",
                      Time(computing_others / steps), ")");
}

}  // namespace

const char* StragglerCauseName(StragglerCause cause) {
  switch (cause) {
    case StragglerCause::kDataLoader:
      return "data_loader";
    case StragglerCause::kGpuThrottled:
      return "gpu_throttled";
    case StragglerCause::kPcieLink:
      return "pcie_link";
    case StragglerCause::kNotRunning:
      return "not_running";
    case StragglerCause::kCompute:
      return "compute";
  }
  return "compute";
}

Straggler FindStraggler(const StragglerWindow& window) {
  if (window.ranks.size() < 2 || window.steps < kStragglerSteps) return {};
  const auto slow = std::max_element(
      window.ranks.begin(), window.ranks.end(),
      [](const RankWindow& a, const RankWindow& b) { return a.slowest_steps < b.slowest_steps; });
  std::vector<const RankWindow*> others;
  double least_wait = std::numeric_limits<double>::infinity();
  for (const RankWindow& rank : window.ranks) {
    if (&rank == &*slow) continue;
    others.push_back(&rank);
    least_wait = std::min(least_wait, Waited(rank));
  }
  const double steps = static_cast<double>(window.steps);
  Straggler straggler;
  straggler.share = std::min(static_cast<double>(slow->slowest_steps) / steps, 1.0);
  straggler.seconds_per_step = (least_wait - Waited(*slow)) / steps;
  const double step_seconds = Stepping(*slow) / steps;
  if (straggler.share <= kStragglerShare ||
      straggler.seconds_per_step <= kStragglerCost * step_seconds) {
    return {};
  }
  straggler.rank = slow->rank;
  const std::string why = FindCause(window, *slow, others, &straggler.cause);
  straggler.text =
      absl::StrCat("rank ", straggler.rank, " is the slowest in ", Percent(straggler.share),
                   " of the steps and costs ", Time(straggler.seconds_per_step), " a step: ", why);
  return straggler;
}

}  // namespace lockstep::launch
