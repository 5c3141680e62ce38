// What runs may spend: their own limits, the month's budget, and whether more training is worth it.
#include <algorithm>
#include <cmath>
#include <ctime>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "launch/coordinator/coordinator.h"

namespace lockstep::launch {
namespace {

using metrics::kJoulesPerKwh;
using metrics::kMicrosPerUnit;

constexpr double kSecondsPerHour = 3600;
constexpr double kLimitAgainSeconds = 60;
// An order is given at most so much late: the caller's tick.
constexpr double kTickSeconds = 0.1;
constexpr int kFirstWarning = 80;
constexpr int kLastWarning = 95;
// Evaluations that Judge() looks back over.
constexpr size_t kJudged = 3;
constexpr size_t kMostMetricPoints = 64;

double Units(int64_t micros) {
  return static_cast<double>(micros) / kMicrosPerUnit;
}

// Months since year 0, of the UTC calendar.
int MonthOf(double unix) {
  const auto seconds = static_cast<time_t>(std::floor(unix));
  tm date{};
  gmtime_r(&seconds, &date);
  return 12 * (1900 + date.tm_year) + date.tm_mon;
}

int PercentToWarnOf(double ratio) {
  return ratio >= kLastWarning / 100.0    ? kLastWarning
         : ratio >= kFirstWarning / 100.0 ? kFirstWarning
                                          : 0;
}

bool LowerIsBetter(const std::string& metric) {
  return metric == "loss" || metric == "mae" || metric == "mse";
}

// How much better `now` is than `before`: percentage points of a ratio, percent of an error.
double Gain(const std::string& metric, double before, double now) {
  if (!LowerIsBetter(metric)) return 100 * (now - before);
  return before == 0 ? 0 : 100 * (before - now) / std::abs(before);
}

}  // namespace

double Coordinator::RanksPerHour(const Run& run, Now now) const {
  if (const double held = run.account.CostPerHour(now.unix, pricing_); held > 0) return held;
  const auto& ranks = run.account.state().ranks;
  if (ranks.empty()) return run.spec.ranks * pricing_.HardwarePerHour("cpu", now.unix);
  double per_hour = 0;
  for (const auto& rank : ranks) per_hour += pricing_.HardwarePerHour(rank.device, now.unix);
  return per_hour;
}

double Coordinator::Cost(const Run& run, Now now) const {
  using Interval = metrics::Account::Interval;
  const Interval interval = run.account.interval();
  const double counted = Units(run.account.cost().total());
  if (interval != Interval::kAttempt && interval != Interval::kRecovery) return counted;
  const double since = std::max(0.0, now.monotonic - run.account.counted_until());
  return counted + run.account.CostPerHour(now.unix, pricing_) * since / kSecondsPerHour;
}

double Coordinator::ProjectedCost(const Run& run, Now now) const {
  const double cost = Cost(run, now);
  if (IsTerminal(run.state)) return cost;
  const auto live = live_.find(run.spec.id);
  if (live == live_.end() || live->second.eta_seconds < 0) return -1;
  return cost + RanksPerHour(run, now) * live->second.eta_seconds / kSecondsPerHour;
}

std::pair<double, std::string> Coordinator::NearestLimit(const Run& run, Now now) const {
  const Limits& limits = run.spec.limits;
  std::pair<double, std::string> nearest{0, ""};
  const auto consider = [&](double used, double limit, const std::string& text) {
    if (limit > 0 && used / limit >= nearest.first) nearest = {used / limit, text};
  };
  consider(Cost(run, now), limits.max_cost,
           absl::StrFormat("cost.max_cost %.2f %s%s", limits.max_cost, pricing_.currency(),
                           pricing_.free() ? " (the daemon's config sets no price)" : ""));
  consider(run.account.totals().energy_joules(), limits.max_joules,
           absl::StrFormat("cost.max_energy %g kWh", limits.max_joules / kJoulesPerKwh));
  consider(run.account.HeldSeconds(now.monotonic), limits.max_seconds,
           absl::StrFormat("cost.max_time %.0f s", limits.max_seconds));
  return nearest;
}

// How long slots are still held after an order to end: the step under way, a checkpoint, and the
// end of the processes.
double Coordinator::SecondsToEnd(const Run& run) const {
  const auto live = live_.find(run.spec.id);
  const double step = live == live_.end() ? 0 : live->second.mean_step_seconds;
  return kTickSeconds + step + run.last_checkpoint.write_seconds + leave_seconds_;
}

// Which limit is used up when the run goes on for so long; empty = none.
std::string Coordinator::LimitReached(const Run& run, double ahead_seconds, Now now) const {
  const Limits& limits = run.spec.limits;
  const double held = run.account.HeldSeconds(now.monotonic);
  if (limits.max_seconds > 0 && held + ahead_seconds >= limits.max_seconds) {
    return absl::StrFormat("budget: ran for %.0f s, cost.max_time is %.0f s", held,
                           limits.max_seconds);
  }
  const double cost = Cost(run, now);
  const double ahead = RanksPerHour(run, now) * ahead_seconds / kSecondsPerHour;
  if (limits.max_cost > 0 && cost + ahead >= limits.max_cost) {
    return absl::StrFormat("budget: cost %.4f %s, cost.max_cost is %.4f", cost, pricing_.currency(),
                           limits.max_cost);
  }
  const double joules = run.account.totals().energy_joules();
  if (limits.max_joules > 0 && joules + run.account.watts() * ahead_seconds >= limits.max_joules) {
    return absl::StrFormat("budget: used %.4f kWh, cost.max_energy is %.4f", joules / kJoulesPerKwh,
                           limits.max_joules / kJoulesPerKwh);
  }
  return {};
}

absl::Status Coordinator::ChangeLimits(Run& run, const LimitChanges& changes, Now now) {
  const Limits before = run.spec.limits;
  Limits& limits = run.spec.limits;
  limits.max_seconds = changes.max_seconds.value_or(limits.max_seconds);
  limits.max_cost = changes.max_cost.value_or(limits.max_cost);
  limits.max_joules = changes.max_joules.value_or(limits.max_joules);
  if (const std::string limit = LimitReached(run, SecondsToEnd(run), now); !limit.empty()) {
    limits = before;
    return absl::ResourceExhaustedError(
        absl::StrCat("cannot resume run ", run.spec.id, ": ", limit,
                     "; a higher limit lets it go on: lockstep resume ", run.spec.id,
                     " --max-cost, --max-energy or --max-time"));
  }
  if (limits == before) return absl::OkStatus();
  run.warned_percent = 0;
  LiveOf(run).limit_tried_at = 0;
  Persist(run);
  Notify(run);
  return absl::OkStatus();
}

void Coordinator::CheckLimits(Run& run, Live& live, Now now) {
  const bool spends = run.state == RunState::kStarting || run.state == RunState::kRunning ||
                      run.state == RunState::kRecovering ||
                      (run.state == RunState::kPaused && run.has_processes);
  if (!spends || !Outstanding(run, OrderKind::kPause).empty()) return;
  Warn(run, now);
  if (live.limit_tried_at != 0 && now.monotonic - live.limit_tried_at < kLimitAgainSeconds) return;
  std::string limit = LimitReached(run, SecondsToEnd(run), now);
  bool stop = run.spec.limits.stop;
  if (limit.empty() && options_.budget.monthly > 0 && MonthIsSpent(UnitsToEnd(now))) {
    limit = MonthReason(now);
    stop = options_.budget.at_limit == config::LimitAction::kStop;
  }
  if (limit.empty()) return;
  live.limit_tried_at = now.monotonic;
  // The order may fail (a full disk); then it is tried again later.
  if (stop) {
    (void)Stop(run, limit, now);
  } else {
    (void)Pause(run, false, limit, now);
  }
}

void Coordinator::Warn(Run& run, Now now) {
  const auto [ratio, limit] = NearestLimit(run, now);
  const int percent = PercentToWarnOf(ratio);
  if (percent <= run.warned_percent) return;
  run.warned_percent = percent;
  Emit(Action::Kind::kWarn, run).reason =
      absl::StrFormat("%.0f %% of %s is used up", 100 * ratio, limit);
  Persist(run);
}

// --- The month.

int64_t Coordinator::AllMicros() const {
  int64_t micros = ended_micros_;
  for (const auto& [id, live] : live_) micros += runs_.at(id).account.cost().total();
  return micros;
}

// What the live runs have spent since their accounts were last brought up to date, and would still
// spend if all were told to end now.
double Coordinator::UnitsToEnd(Now now) const {
  double spent = 0;
  for (const auto& [id, live] : live_) {
    const Run& run = runs_.at(id);
    if (!run.has_processes) continue;
    spent += Cost(run, now) - Units(run.account.cost().total()) +
             RanksPerHour(run, now) * SecondsToEnd(run) / kSecondsPerHour;
  }
  return spent;
}

int64_t Coordinator::MonthMicros() const {
  return AllMicros() - before_month_micros_;
}

bool Coordinator::MonthHasChanged(Now now) const {
  return MonthOf(now.unix) != month_;
}

void Coordinator::SetMonth(int64_t spent_micros, Now now) {
  month_ = MonthOf(now.unix);
  before_month_micros_ = AllMicros() - spent_micros;
  month_warned_percent_ = 0;
}

void Coordinator::WarnOfMonth() {
  const double budget = options_.budget.monthly;
  if (budget <= 0) return;
  const double ratio = Units(MonthMicros()) / budget;
  const int percent = PercentToWarnOf(ratio);
  if (percent <= month_warned_percent_) return;
  month_warned_percent_ = percent;
  Action warning;
  warning.kind = Action::Kind::kWarn;
  warning.reason = absl::StrFormat("%.0f %% of the monthly budget of %.2f %s is used up",
                                   100 * ratio, budget, pricing_.currency());
  actions_.push_back(std::move(warning));
}

bool Coordinator::MonthIsSpent(double ahead) const {
  const double budget = options_.budget.monthly;
  return budget > 0 && Units(MonthMicros()) + ahead >= budget;
}

std::string Coordinator::MonthReason(Now now) const {
  const int next = MonthOf(now.unix) + 1;
  return absl::StrFormat(
      "budget: the monthly budget of %.2f %s (budget.monthly) is spent; the next month begins on "
      "%04d-%02d-01",
      options_.budget.monthly, pricing_.currency(), next / 12, next % 12 + 1);
}

// --- Is more training worth its money?

void Coordinator::Evaluated(const std::string& id, int attempt, int64_t step, double value,
                            Now now) {
  Run* run = Current(id, attempt);
  if (run == nullptr || !std::isfinite(value)) return;
  std::vector<MetricPoint>& points = run->metric_points;
  if (!points.empty() && points.back().step == step) return;  // Told again after a reconnect.
  std::erase_if(points, [&](const MetricPoint& point) { return point.step >= step; });
  points.push_back({step, value, std::llround(Cost(*run, now) * kMicrosPerUnit)});
  if (points.size() > kMostMetricPoints) points.erase(points.begin());
  Persist(*run);
  Judge(*run, now);
}

void Coordinator::Judge(Run& run, Now now) {
  const Limits& limits = run.spec.limits;
  const std::vector<MetricPoint>& points = run.metric_points;
  if (limits.gain_per_cost <= 0 || points.size() <= kJudged) return;
  if (run.state != RunState::kRunning) return;
  const bool lower = LowerIsBetter(limits.metric);
  const auto better = [&](const MetricPoint& a, const MetricPoint& b) {
    return lower ? a.value < b.value : a.value > b.value;
  };
  const auto since = points.end() - static_cast<std::ptrdiff_t>(kJudged);
  // The best of before, at what it had cost when the judged evaluations began.
  const auto before = std::min_element(points.begin(), since, better);
  const auto latest = std::min_element(since, points.end(), better);
  const double spent = Units(points.back().cost_micros - (since - 1)->cost_micros);
  if (spent <= 0) return;
  const double gain = std::max(0.0, Gain(limits.metric, before->value, latest->value));
  if (gain / spent >= limits.gain_per_cost) return;
  const std::string next = gain > 0 ? absl::StrFormat("the next 1 %% would cost %.2f %s",
                                                      spent / gain, pricing_.currency())
                                    : "more would buy nothing";
  (void)Stop(run,
             absl::StrFormat("not worth it: the last %d evaluations bought %.2f %% of %s for %.2f "
                             "%s, so %s; cost.stop_when.metric_gain_per_cost is %g",
                             kJudged, gain, limits.metric, spent, pricing_.currency(), next,
                             limits.gain_per_cost),
             now);
}

std::vector<std::pair<std::string, metrics::LedgerLine>> Coordinator::TakeLines() {
  std::vector<std::pair<std::string, metrics::LedgerLine>> lines;
  for (auto& [id, run] : runs_) {
    for (metrics::LedgerLine& line : run.account.TakeLines()) lines.emplace_back(id, line);
  }
  return lines;
}

}  // namespace lockstep::launch
