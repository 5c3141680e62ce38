#include "metrics/ledger.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

namespace lockstep::metrics {

using config::Phase;

namespace {

constexpr double kMicro = 1e6;
constexpr int64_t kPicosPerMicro = 1'000'000;
constexpr double kSecondsPerHour = 3600;
constexpr int kFreePause = config::kPhaseCount;  // The row of pauses that hold nothing.
// Open lines are posted at these moments of the day (midnight is one of them).
constexpr double kPostEverySeconds = 900;

int Row(Phase phase) {
  return static_cast<int>(phase);
}

int64_t Microseconds(double seconds) {
  constexpr double kMost = 1e12;  // What a rank tells may be anything.
  return std::isfinite(seconds) ? static_cast<int64_t>(std::clamp(seconds, 0.0, kMost) * kMicro)
                                : 0;
}

// Adds an amount of the currency to its whole millionths and the rest.
void AddMoney(double units, int64_t& whole, int64_t& rest) {
  const double micros = std::floor(units * kMicro);
  whole += static_cast<int64_t>(micros);
  rest += std::llround((units * kMicro - micros) * static_cast<double>(kPicosPerMicro));
  whole += rest / kPicosPerMicro;
  rest %= kPicosPerMicro;
}

Phase PhaseOf(int row) {
  return row == kFreePause ? Phase::kPaused : static_cast<Phase>(row);
}

LedgerLine LineOf(const Account::Amount& amount, int attempt, int rank, int row) {
  LedgerLine line;
  line.attempt = attempt;
  line.rank = rank;
  line.phase = PhaseOf(row);
  line.held = row != kFreePause;
  line.microseconds = amount.microseconds;
  line.microjoules = amount.microjoules;
  line.estimated = amount.estimated;
  line.bytes = amount.bytes;
  line.money = amount.money();
  return line;
}

bool IsEmpty(const Account::Amount& amount) {
  return amount.microseconds == 0 && amount.microjoules == 0 && amount.bytes == 0 &&
         amount.money().total() == 0;
}

// Counts bytes and what they cost; the totals of an attempt only grow.
void CountBytes(Account::Amount& amount, int64_t total, int64_t& counted, double per_gigabyte) {
  if (total <= counted) return;
  const int64_t bytes = total - counted;
  counted = total;
  amount.bytes += bytes;
  AddMoney(static_cast<double>(bytes) * 1e-9 * per_gigabyte, amount.whole.transfer,
           amount.rest.transfer);
}

}  // namespace

double Sum(const PhaseSeconds& phases) {
  return std::accumulate(phases.begin(), phases.end(), 0.0);
}

Money& Money::operator+=(const Money& other) {
  hardware += other.hardware;
  energy += other.energy;
  transfer += other.transfer;
  return *this;
}

Money Account::Amount::money() const {
  return {whole.hardware + rest.hardware / kPicosPerMicro,
          whole.energy + rest.energy / kPicosPerMicro,
          whole.transfer + rest.transfer / kPicosPerMicro};
}

Money Account::Totals::cost() const {
  Money sum;
  for (const Money& phase : money) sum += phase;
  return sum;
}

double Account::Totals::energy_joules() const {
  return std::accumulate(joules.begin(), joules.end(), 0.0);
}

std::optional<config::TransferSource> TransferOf(Phase phase) {
  switch (phase) {
    case Phase::kDataWait:
      return config::TransferSource::kDataset;
    case Phase::kCheckpointStall:
      return config::TransferSource::kCheckpoint;
    case Phase::kAllreduceExposed:
      return config::TransferSource::kAllreduce;
    default:
      return std::nullopt;
  }
}

// --- Counting.

// Time of the interval that no phase of this rank has yet.
int64_t Account::Uncounted(const RankState& rank, AccountTime now) const {
  const int64_t wall = Microseconds(now.monotonic - state_.interval_began);
  const int64_t counted = std::accumulate(rank.counted.begin(), rank.counted.end(), int64_t{0});
  return std::max<int64_t>(0, wall - counted);
}

void Account::Charge(RankState& rank, const Spent& spent, bool draws, AccountTime now,
                     const Pricing& pricing) {
  const double from = state_.counted.unix;
  const double per_hour = pricing.HardwarePerHour(rank.device, from, now.unix);
  int64_t held = 0;
  for (int row = 0; row < kRows; ++row) {
    Amount& amount = rank.open[static_cast<size_t>(row)];
    const int64_t microseconds = spent[static_cast<size_t>(row)];
    amount.microseconds += microseconds;
    if (row == kFreePause) continue;
    rank.counted[static_cast<size_t>(row)] += microseconds;
    held += microseconds;
    AddMoney(static_cast<double>(microseconds) / kMicro / kSecondsPerHour * per_hour,
             amount.whole.hardware, amount.rest.hardware);
  }
  const double per_kwh = pricing.EnergyPerKwh(from, now.unix);
  if (rank.joules > 0) {
    // Without time told there is no phase yet that it belongs to.
    if (held > 0) {
      const bool estimated = std::exchange(rank.joules_estimated, false);
      ChargeEnergy(rank, spent, std::exchange(rank.joules, 0), estimated, per_kwh);
    }
  } else if (draws) {
    rank.watts = pricing.EstimatedWatts(rank.device);
    const double joules = rank.watts * static_cast<double>(held) / kMicro;
    ChargeEnergy(rank, spent, joules, true, per_kwh);
  }
}

// Spreads energy over the phases as the time was spread.
void Account::ChargeEnergy(RankState& rank, const Spent& spent, double joules, bool estimated,
                           double per_kwh) {
  const double total = static_cast<double>(
      std::accumulate(spent.begin(), spent.begin() + config::kPhaseCount, int64_t{0}));
  if (total <= 0) return;
  for (int row = 0; row < config::kPhaseCount; ++row) {
    const auto part = static_cast<double>(spent[static_cast<size_t>(row)]);
    if (part == 0) continue;
    Amount& amount = rank.open[static_cast<size_t>(row)];
    const double share = joules * part / total;
    amount.microjoules += std::llround(share * kMicro);
    amount.estimated = amount.estimated || estimated;
    AddMoney(share / kJoulesPerKwh * per_kwh, amount.whole.energy, amount.rest.energy);
  }
}

// What the rank has told since the last time, by row. Never more than the time that has passed.
Account::Spent Account::Told(RankState& rank, const RankUsage& usage, AccountTime now) const {
  Spent spent{};
  int64_t left = Uncounted(rank, now);
  if (!usage.known) {
    if (!rank.known) spent[static_cast<size_t>(Row(Phase::kStartup))] = left;
    return spent;
  }
  if (!rank.known) {
    const double told = Sum(usage.phase_seconds) + usage.unsettled_seconds;
    const double passed = now.monotonic - state_.interval_began;
    rank.overhead = Microseconds(passed - told);
    rank.known = true;
  }
  for (size_t phase = 0; phase < usage.phase_seconds.size(); ++phase) {
    int64_t total = Microseconds(usage.phase_seconds[phase]);
    if (phase == static_cast<size_t>(Phase::kStartup)) total += rank.overhead;
    const int64_t more = std::clamp<int64_t>(total - rank.counted[phase], 0, left);
    spent[phase] = more;
    left -= more;
  }
  return spent;
}

void Account::Observe(const std::vector<RankUsage>& ranks, AccountTime now,
                      const Pricing& pricing) {
  if (state_.interval != Interval::kAttempt) return;
  PostIfDue(now);
  for (size_t i = 0; i < std::min(ranks.size(), state_.ranks.size()); ++i) {
    RankState& rank = state_.ranks[i];
    const RankUsage& usage = ranks[i];
    rank.device = usage.device;
    if (usage.joules) {
      const double joules = std::max(0.0, *usage.joules);
      rank.joules += joules;
      if (joules > 0) {
        rank.watts = joules / std::max(1e-3, now.monotonic - state_.counted.monotonic);
      }
    }
    rank.joules_estimated = rank.joules_estimated || usage.joules_estimated;
    Charge(rank, Told(rank, usage, now), !usage.joules, now, pricing);
    CountBytes(rank.open[static_cast<size_t>(Row(Phase::kDataWait))], usage.dataset_bytes,
               rank.dataset_bytes, pricing.PerGigabyte(config::TransferSource::kDataset));
    CountBytes(rank.open[static_cast<size_t>(Row(Phase::kAllreduceExposed))], usage.allreduce_bytes,
               rank.allreduce_bytes, pricing.PerGigabyte(config::TransferSource::kAllreduce));
  }
  state_.counted = now;
}

void Account::Advance(AccountTime now, const Pricing& pricing) {
  if (state_.interval != Interval::kRecovery && state_.interval != Interval::kPausedFree) return;
  PostIfDue(now);
  const bool held = state_.interval == Interval::kRecovery;
  for (RankState& rank : state_.ranks) {
    Spent spent{};
    if (held) {
      spent[static_cast<size_t>(Row(Phase::kRecovery))] = Uncounted(rank, now);
    } else {
      // Not in `counted`, which is about held time: counted from moment to moment.
      spent[kFreePause] = Microseconds(now.monotonic - state_.interval_began) -
                          Microseconds(state_.counted.monotonic - state_.interval_began);
      spent[kFreePause] = std::max<int64_t>(0, spent[kFreePause]);
    }
    Charge(rank, spent, /*draws=*/false, now, pricing);
  }
  state_.counted = now;
}

void Account::AddCheckpointBytes(int64_t bytes, const Pricing& pricing) {
  if (state_.ranks.empty()) return;
  int64_t none = 0;
  CountBytes(state_.ranks[0].open[static_cast<size_t>(Row(Phase::kCheckpointStall))], bytes, none,
             pricing.PerGigabyte(config::TransferSource::kCheckpoint));
}

void Account::Switch(Interval next, int attempt, int ranks, AccountTime now, const Pricing& pricing,
                     bool crashed) {
  if (state_.interval == Interval::kAttempt) {
    PostIfDue(now);
    const Phase rest = crashed ? Phase::kRecovery : Phase::kOther;
    for (RankState& rank : state_.ranks) {
      Spent spent{};
      spent[static_cast<size_t>(Row(rank.known ? rest : Phase::kStartup))] = Uncounted(rank, now);
      Charge(rank, spent, /*draws=*/false, now, pricing);
    }
  } else {
    Advance(now, pricing);
  }
  if (state_.interval == Interval::kAttempt || state_.interval == Interval::kRecovery) {
    state_.held_before += std::max(0.0, now.monotonic - state_.interval_began);
  }
  Post(now.unix);
  state_.interval = next;
  state_.attempt = attempt;
  state_.interval_began = now.monotonic;
  state_.counted = now;
  state_.opened_unix = now.unix;
  state_.ranks.resize(static_cast<size_t>(ranks));
  for (RankState& rank : state_.ranks) {
    rank = {.device = std::move(rank.device),
            .open = rank.open};  // Keeps what is too little to post.
  }
}

void Account::PriceOpenLines(AccountTime at, const Pricing& pricing) {
  state_.counted.unix = state_.opened_unix = at.unix;
  for (RankState& rank : state_.ranks) {
    const double per_hour = pricing.HardwarePerHour(rank.device, at.unix);
    for (size_t row = 0; row < rank.open.size(); ++row) {
      if (row == kFreePause) continue;
      Amount& amount = rank.open[row];
      const double hours = static_cast<double>(amount.microseconds) / kMicro / kSecondsPerHour;
      AddMoney(hours * per_hour, amount.whole.hardware, amount.rest.hardware);
    }
  }
  Post(at.unix);
}

// --- Posting.

void Account::PostIfDue(AccountTime now) {
  const auto period = [](double unix) { return std::floor(unix / kPostEverySeconds); };
  if (period(state_.counted.unix) != period(now.unix)) Post(state_.counted.unix);
}

void Account::Post(double to_unix) {
  for (size_t i = 0; i < state_.ranks.size(); ++i) {
    for (int row = 0; row < kRows; ++row) {
      Amount& open = state_.ranks[i].open[static_cast<size_t>(row)];
      if (IsEmpty(open)) continue;
      LedgerLine line = LineOf(open, state_.attempt, static_cast<int>(i), row);
      line.from_unix = state_.opened_unix;
      line.to_unix = to_unix;
      Posted& posted = state_.posted[static_cast<size_t>(row)];
      posted.microseconds += line.microseconds;
      posted.microjoules += line.microjoules;
      posted.estimated = posted.estimated || line.estimated;
      posted.money += line.money;
      // What is less than a millionth goes into the next line.
      open = {.rest = {open.rest.hardware % kPicosPerMicro, open.rest.energy % kPicosPerMicro,
                       open.rest.transfer % kPicosPerMicro}};
      lines_.push_back(line);
    }
  }
  state_.opened_unix = to_unix;
}

std::vector<LedgerLine> Account::TakeLines() {
  return std::exchange(lines_, {});
}

std::vector<LedgerLine> Account::OpenLines() const {
  std::vector<LedgerLine> lines;
  for (size_t i = 0; i < state_.ranks.size(); ++i) {
    for (int row = 0; row < kRows; ++row) {
      const Amount& open = state_.ranks[i].open[static_cast<size_t>(row)];
      if (IsEmpty(open)) continue;
      LedgerLine line = LineOf(open, state_.attempt, static_cast<int>(i), row);
      line.from_unix = state_.opened_unix;
      line.to_unix = state_.counted.unix;
      lines.push_back(line);
    }
  }
  return lines;
}

std::vector<LedgerLine> Account::PendingLines() const {
  std::vector<LedgerLine> lines = lines_;
  for (LedgerLine& line : OpenLines()) lines.push_back(line);
  return lines;
}

// --- Looking.

Account::Totals Account::totals() const {
  Totals totals;
  const double ranks = std::max<double>(1, static_cast<double>(state_.ranks.size()));
  const auto add = [&](int row, int64_t microseconds, int64_t microjoules, bool estimated,
                       const Money& money) {
    const auto phase = static_cast<size_t>(PhaseOf(row));
    totals.seconds[phase] += static_cast<double>(microseconds) / kMicro / ranks;
    totals.joules[phase] += static_cast<double>(microjoules) / kMicro;
    totals.money[phase] += money;
    totals.estimated = totals.estimated || estimated;
  };
  for (int row = 0; row < kRows; ++row) {
    const Posted& posted = state_.posted[static_cast<size_t>(row)];
    add(row, posted.microseconds, posted.microjoules, posted.estimated, posted.money);
    for (const RankState& rank : state_.ranks) {
      const Amount& open = rank.open[static_cast<size_t>(row)];
      add(row, open.microseconds, open.microjoules, open.estimated, open.money());
    }
  }
  return totals;
}

double Account::CostPerHour(double unix_seconds, const Pricing& pricing) const {
  if (state_.interval != Interval::kAttempt && state_.interval != Interval::kRecovery) return 0;
  double per_hour = 0;
  for (const RankState& rank : state_.ranks) {
    per_hour += pricing.HardwarePerHour(rank.device, unix_seconds);
  }
  return per_hour + watts() * kSecondsPerHour / kJoulesPerKwh * pricing.EnergyPerKwh(unix_seconds);
}

double Account::watts() const {
  if (state_.interval != Interval::kAttempt) return 0;
  return std::accumulate(state_.ranks.begin(), state_.ranks.end(), 0.0,
                         [](double sum, const RankState& rank) { return sum + rank.watts; });
}

double Account::HeldSeconds(double monotonic) const {
  const bool holds =
      state_.interval == Interval::kAttempt || state_.interval == Interval::kRecovery;
  return state_.held_before + (holds ? std::max(0.0, monotonic - state_.interval_began) : 0);
}

double Account::LivedUntil(const std::vector<RankUsage>& ranks) const {
  double until = state_.counted.monotonic;
  if (state_.interval != Interval::kAttempt) return until;
  for (size_t i = 0; i < std::min(ranks.size(), state_.ranks.size()); ++i) {
    const double told = Sum(ranks[i].phase_seconds) + ranks[i].unsettled_seconds;
    if (!ranks[i].known || !std::isfinite(told)) continue;
    const double overhead = static_cast<double>(state_.ranks[i].overhead) / kMicro;
    until = std::max(until, state_.interval_began + overhead + told);
  }
  return until;
}

Account Account::Load(State state, double shift) {
  Account account;
  account.state_ = std::move(state);
  account.state_.interval_began += shift;
  account.state_.counted.monotonic += shift;
  return account;
}

}  // namespace lockstep::metrics
