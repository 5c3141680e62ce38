// The cost ledger: every second of every rank of a run belongs to one phase, and costs something.
//
// An Account follows one run. The ranks tell their own time, phase by phase, as totals of their
// attempt (config/rank_board.h); what they cannot see is added here: the time until they were
// started, what was not told any more when an attempt ended, the gaps without processes (recovery,
// pause). So for each rank the phases add up to the run's wall time since its first launch.
//
// Money is hardware time x price + energy x price + moved bytes x price, counted in integers:
// microseconds, microjoules, bytes, and millionths of the currency. What an account has counted
// lies in open lines; from time to time, at midnight (UTC) and at the end of each interval they are
// posted: handed out by TakeLines(), never to change again. The cost of the run is the sum of the
// posted and the open lines, exactly, and never falls.
//
// Plain data and arithmetic: the clocks are arguments, so it can be stored, restored and tested.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "config/rank_board.h"
#include "metrics/pricing.h"

namespace lockstep::metrics {

using PhaseSeconds = std::array<double, config::kPhaseCount>;

double Sum(const PhaseSeconds& phases);

// Money by what it was paid for; millionths of the currency unless said otherwise.
struct Money {
  int64_t hardware = 0;
  int64_t energy = 0;
  int64_t transfer = 0;

  int64_t total() const { return hardware + energy + transfer; }
  Money& operator+=(const Money& other);
  bool operator==(const Money&) const = default;
};

// What one rank did in one phase of one attempt, between two moments.
struct LedgerLine {
  int attempt = 0;
  int rank = 0;
  config::Phase phase = config::Phase::kStartup;
  bool held = true;  // Slots were held; a pause without processes holds none and costs nothing.
  double from_unix = 0;
  double to_unix = 0;
  int64_t microseconds = 0;
  int64_t microjoules = 0;
  bool estimated = false;  // Some of the energy was not metered.
  int64_t bytes = 0;       // Moved: in data_wait read, in checkpoint_stall saved, in
                           // allreduce_exposed sent.
  Money money;
};

// What is known of one rank of the attempt.
struct RankUsage {
  bool known = false;            // It came up and tells of itself.
  PhaseSeconds phase_seconds{};  // Totals of the attempt; the open phase until now, while it lives.
  double unsettled_seconds = 0;  // Passed, but which phase they belong to is not clear yet.
  int64_t dataset_bytes = 0;     // Totals of the attempt.
  int64_t allreduce_bytes = 0;
  std::string device = "cpu";     // Name of its GPU, or cpu.
  std::optional<double> joules;   // Metered since the last Observe(); nullopt = nobody meters it.
  bool joules_estimated = false;  // Some of that was not metered.
};

struct AccountTime {
  double monotonic = 0;  // CLOCK_MONOTONIC, seconds: how long.
  double unix = 0;       // Since 1970: which day, which tariff.
};

class Account {
 public:
  enum class Interval : int {
    kIdle,        // Before the first launch and after the end: not part of the wall time.
    kAttempt,     // Processes exist (also when they stand still: the ranks tell that as paused).
    kRecovery,    // Slots are held, no attempt runs.
    kPausedFree,  // Without processes and slots: paused, queued again, or no daemon was there to
                  // hold them (the host may have been off). Costs nothing.
  };

  /// Ends the interval and begins the next; `attempt` is the number of the one that begins or goes
  /// on. `crashed`: what the ranks did not tell is recovery, otherwise it is `other`.
  void Switch(Interval next, int attempt, int ranks, AccountTime now, const Pricing& pricing,
              bool crashed = false);

  /// Within an attempt: counts what the ranks tell. A rank that is not known yet starts up.
  void Observe(const std::vector<RankUsage>& ranks, AccountTime now, const Pricing& pricing);
  /// Between attempts: counts the time until now.
  void Advance(AccountTime now, const Pricing& pricing);
  /// Bytes of a checkpoint that rank 0 wrote.
  void AddCheckpointBytes(int64_t bytes, const Pricing& pricing);

  /// Lines that were posted since the last call.
  std::vector<LedgerLine> TakeLines();
  /// Lines that are still counted on.
  std::vector<LedgerLine> OpenLines() const;
  /// What TakeLines() would give, and OpenLines().
  std::vector<LedgerLine> PendingLines() const;

  /// Totals over the run's life, posted and open. Time is the mean over the ranks, so that the
  /// phases add up to the wall time; energy and money are sums.
  struct Totals {
    PhaseSeconds seconds{};
    std::array<double, config::kPhaseCount> joules{};
    std::array<Money, config::kPhaseCount> money{};
    bool estimated = false;

    Money cost() const;
    double energy_joules() const;
  };
  Totals totals() const;
  Money cost() const { return totals().cost(); }
  /// Of all ranks in an hour, at the newest prices and power; 0 while nothing is held.
  double CostPerHour(double unix_seconds, const Pricing& pricing) const;
  double watts() const;  // Newest, of all ranks.

  /// Seconds in which slots were held, until now.
  double HeldSeconds(double monotonic) const;
  Interval interval() const { return state_.interval; }
  double counted_until() const { return state_.counted.monotonic; }
  /// Until when (monotonic) the attempt lived at least, by what was counted and by what its ranks
  /// tell: those are durations, so a reboot in between does not matter.
  double LivedUntil(const std::vector<RankUsage>& ranks) const;

  /// Its time comes from a store that had no ledger, and has no price yet.
  bool unpriced() const { return state_.opened_unix == 0 && !state_.ranks.empty(); }
  /// Gives time that was counted without money its price, as of `at`, and posts it.
  void PriceOpenLines(AccountTime at, const Pricing& pricing);

  // Quantities of one line.
  struct Amount {
    int64_t microseconds = 0;
    int64_t microjoules = 0;
    int64_t bytes = 0;
    bool estimated = false;
    Money whole{};  // Millionths; what is less adds up in `rest`, in 1e-12 of the currency.
    Money rest{};

    Money money() const;
    bool operator==(const Amount&) const = default;
  };
  // One row a phase, and one for pauses that hold nothing.
  static constexpr int kRows = config::kPhaseCount + 1;
  using Rows = std::array<Amount, kRows>;

  // Sums of what was posted.
  struct Posted {
    int64_t microseconds = 0;
    int64_t microjoules = 0;
    bool estimated = false;
    Money money;
    bool operator==(const Posted&) const = default;
  };

  struct RankState {
    std::array<int64_t, config::kPhaseCount> counted{};  // Microseconds of this attempt.
    int64_t overhead = 0;  // Microseconds from the launch until the rank's own account begins.
    bool known = false;
    int64_t dataset_bytes = 0;  // Counted of this attempt.
    int64_t allreduce_bytes = 0;
    double joules = 0;  // Metered, not yet spread over phases.
    bool joules_estimated = false;
    double watts = 0;  // Newest.
    std::string device = "cpu";
    Rows open{};
  };
  // Everything, for the store.
  struct State {
    Interval interval = Interval::kIdle;
    int attempt = 0;
    double interval_began = 0;  // Monotonic.
    AccountTime counted;        // How far time was counted.
    double opened_unix = 0;     // When the open lines began.
    double held_before = 0;     // Seconds with slots, of closed intervals.
    std::vector<RankState> ranks;
    std::array<Posted, kRows> posted{};  // Sums over ranks and lines.
  };
  const State& state() const { return state_; }
  /// `shift` is added to monotonic times: another boot has another clock.
  static Account Load(State state, double shift);

 private:
  using Spent = std::array<int64_t, kRows>;  // Microseconds.

  void Charge(RankState& rank, const Spent& spent, bool draws, AccountTime now,
              const Pricing& pricing);
  void ChargeEnergy(RankState& rank, const Spent& spent, double joules, bool estimated,
                    double per_kwh);
  Spent Told(RankState& rank, const RankUsage& usage, AccountTime now) const;
  int64_t Uncounted(const RankState& rank, AccountTime now) const;
  void PostIfDue(AccountTime now);
  void Post(double to_unix);

  State state_;
  std::vector<LedgerLine> lines_;
};

/// Rows by name for people and labels: config::PhaseName; what moved bytes of a phase are about.
std::optional<config::TransferSource> TransferOf(config::Phase phase);

}  // namespace lockstep::metrics
