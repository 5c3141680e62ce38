#include "launch/supervisor/rank_watch.h"

#include <algorithm>
#include <utility>

namespace lockstep::launch {
namespace {

constexpr double kWindowSeconds = 60;
constexpr double kLongestWindowSeconds = 600;
constexpr double kShortestWindowSeconds = 10;
// Together with the longest window: at most 1,200 looks, 300 bytes a rank each.
constexpr double kBetweenLooksSeconds = 0.5;

// Its totals until now. What it waits for in an open reduce is not settled: it is left for later.
std::array<double, config::kPhaseCount> PhasesUntil(const config::RankState& slot, double now) {
  auto phases = slot.phase_seconds;
  const config::Phase open = slot.open_phase;
  if (open != config::Phase::kAllreduceExposed && open != config::Phase::kDevice &&
      slot.entered_seconds > 0) {
    phases[static_cast<size_t>(open)] += std::max(now - slot.entered_seconds, 0.0);
  }
  return phases;
}

}  // namespace

RankWatch::RankWatch(ReadStat read_stat) : read_stat_(std::move(read_stat)) {}

void RankWatch::Look(double now, int attempt, const std::vector<config::RankState>& board,
                     const ArrivalCounts& counts, const std::map<int, metrics::GpuReading>& gpus) {
  Moment moment{now, counts.steps, {}};
  for (const config::RankState& slot : board) {
    if (slot.pid <= 0 || slot.rank < 0) continue;
    RankLook look;
    look.rank = slot.rank;
    const auto index = static_cast<size_t>(slot.rank);
    if (index < counts.slowest_steps.size()) look.slowest_steps = counts.slowest_steps[index];
    look.phase_seconds = PhasesUntil(slot, now);
    if (const auto stat = read_stat_(slot.pid, slot.start_time_ticks)) {
      look.cpu_seconds = stat->cpu_seconds;
      look.stopped = stat->stopped();
    }
    if (const auto gpu = gpus.find(slot.rank); gpu != gpus.end()) {
      look.gpu = GpuWindow{gpu->second.throttle_seconds, gpu->second.pcie_width,
                           gpu->second.pcie_width_max};
    }
    moment.ranks.push_back(std::move(look));
  }
  const bool another =
      !looks_.empty() && (attempt != attempt_ || counts.steps < looks_.back().steps ||
                          moment.ranks.size() != looks_.back().ranks.size());
  if (another) {
    looks_.clear();
    straggler_ = {};
  }
  attempt_ = attempt;
  // Before the first report nothing is known of the steps; the start is not part of the window.
  if (counts.steps == 0) return;
  if (!looks_.empty() && now - looks_.back().at < kBetweenLooksSeconds) return;
  looks_.push_back(std::move(moment));
  Trim();
  const StragglerWindow window = Window();
  straggler_ = window.seconds < kShortestWindowSeconds ? Straggler{} : FindStraggler(window);
}

void RankWatch::Trim() {
  const Moment& newest = looks_.back();
  const auto still_enough = [&](const Moment& begin) {
    return newest.at - begin.at >= kWindowSeconds &&
           (newest.steps - begin.steps >= kStragglerSteps ||
            newest.at - begin.at >= kLongestWindowSeconds);
  };
  while (looks_.size() > 2 && still_enough(looks_[1])) looks_.pop_front();
}

StragglerWindow RankWatch::Window() const {
  const Moment& begin = looks_.front();
  const Moment& end = looks_.back();
  StragglerWindow window{end.at - begin.at, end.steps - begin.steps, {}};
  for (size_t i = 0; i < end.ranks.size(); ++i) {
    const RankLook& from = begin.ranks[i];
    const RankLook& to = end.ranks[i];
    RankWindow rank;
    rank.rank = to.rank;
    rank.slowest_steps = to.slowest_steps - from.slowest_steps;
    for (size_t phase = 0; phase < rank.phase_seconds.size(); ++phase) {
      rank.phase_seconds[phase] =
          std::max(to.phase_seconds[phase] - from.phase_seconds[phase], 0.0);
    }
    if (from.cpu_seconds && to.cpu_seconds) rank.cpu_seconds = *to.cpu_seconds - *from.cpu_seconds;
    for (auto look = looks_.begin() + 1; look != looks_.end(); ++look) {
      ++rank.looks;
      if (look->ranks[i].stopped) ++rank.stopped_looks;
    }
    if (to.gpu) {
      rank.gpu = *to.gpu;
      for (auto& [reason, seconds] : rank.gpu->throttle_seconds) {
        if (!from.gpu) continue;
        const auto before = from.gpu->throttle_seconds.find(reason);
        if (before != from.gpu->throttle_seconds.end()) seconds -= before->second;
      }
    }
    window.ranks.push_back(std::move(rank));
  }
  return window;
}

}  // namespace lockstep::launch
