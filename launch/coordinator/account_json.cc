#include "launch/coordinator/account_json.h"

#include <utility>

namespace lockstep::launch {
namespace {

using nlohmann::json;
using Account = metrics::Account;

// Most rows of most ranks are empty, so only the others are written, by their number. A phase keeps
// its number for ever; pauses that hold nothing are -1, whatever phases are still to come.
int NumberOf(size_t row) {
  return row == Account::kRows - 1 ? -1 : static_cast<int>(row);
}

size_t RowOf(const json& number) {
  const int row = number.get<int>();
  return row < 0 ? Account::kRows - 1 : static_cast<size_t>(row);
}

json OpenToJson(const Account::Rows& rows) {
  json list = json::array();
  for (size_t row = 0; row < rows.size(); ++row) {
    const Account::Amount& a = rows[row];
    if (a == Account::Amount()) continue;
    list.push_back({NumberOf(row), a.microseconds, a.microjoules, a.bytes, a.estimated,
                    a.rest.hardware, a.rest.energy, a.rest.transfer, a.whole.hardware,
                    a.whole.energy, a.whole.transfer});
  }
  return list;
}

Account::Rows OpenFromJson(const json& list) {
  Account::Rows rows{};
  for (const json& item : list) {
    Account::Amount& a = rows.at(RowOf(item.at(0)));
    item.at(1).get_to(a.microseconds);
    item.at(2).get_to(a.microjoules);
    item.at(3).get_to(a.bytes);
    item.at(4).get_to(a.estimated);
    item.at(5).get_to(a.rest.hardware);
    item.at(6).get_to(a.rest.energy);
    item.at(7).get_to(a.rest.transfer);
    if (item.size() == 8) continue;  // From when all of it was in the rest.
    item.at(8).get_to(a.whole.hardware);
    item.at(9).get_to(a.whole.energy);
    item.at(10).get_to(a.whole.transfer);
  }
  return rows;
}

template <size_t kSize>
json CountedToJson(const std::array<int64_t, kSize>& counted) {
  json list = json::array();
  for (size_t i = 0; i < kSize; ++i) {
    if (counted[i] != 0) list.push_back({i, counted[i]});
  }
  return list;
}

json RankToJson(const Account::RankState& rank) {
  return {{"counted", CountedToJson(rank.counted)},
          {"overhead", rank.overhead},
          {"known", rank.known},
          {"dataset_bytes", rank.dataset_bytes},
          {"allreduce_bytes", rank.allreduce_bytes},
          {"joules", rank.joules},
          {"joules_estimated", rank.joules_estimated},
          {"watts", rank.watts},
          {"device", rank.device},
          {"open", OpenToJson(rank.open)}};
}

Account::RankState RankFromJson(const json& value) {
  Account::RankState rank;
  for (const json& item : value.at("counted")) {
    rank.counted.at(item.at(0).get<size_t>()) = item.at(1).get<int64_t>();
  }
  value.at("overhead").get_to(rank.overhead);
  value.at("known").get_to(rank.known);
  value.at("dataset_bytes").get_to(rank.dataset_bytes);
  value.at("allreduce_bytes").get_to(rank.allreduce_bytes);
  value.at("joules").get_to(rank.joules);
  value.at("joules_estimated").get_to(rank.joules_estimated);
  value.at("watts").get_to(rank.watts);
  value.at("device").get_to(rank.device);
  rank.open = OpenFromJson(value.at("open"));
  return rank;
}

}  // namespace

json AccountToJson(const Account& account) {
  const Account::State& state = account.state();
  json ranks = json::array();
  for (const Account::RankState& rank : state.ranks) ranks.push_back(RankToJson(rank));
  json posted = json::array();
  for (size_t row = 0; row < state.posted.size(); ++row) {
    const Account::Posted& p = state.posted[row];
    if (p == Account::Posted()) continue;
    posted.push_back({NumberOf(row), p.microseconds, p.microjoules, p.estimated, p.money.hardware,
                      p.money.energy, p.money.transfer});
  }
  return {{"interval", static_cast<int>(state.interval)},
          {"attempt", state.attempt},
          {"interval_began", state.interval_began},
          {"counted_monotonic", state.counted.monotonic},
          {"counted_unix", state.counted.unix},
          {"opened_unix", state.opened_unix},
          {"held_before", state.held_before},
          {"ranks", std::move(ranks)},
          {"posted", std::move(posted)}};
}

Account AccountFromJson(const json& value, double shift) {
  Account::State state;
  state.interval = static_cast<Account::Interval>(value.at("interval").get<int>());
  value.at("attempt").get_to(state.attempt);
  value.at("interval_began").get_to(state.interval_began);
  value.at("counted_monotonic").get_to(state.counted.monotonic);
  value.at("counted_unix").get_to(state.counted.unix);
  value.at("opened_unix").get_to(state.opened_unix);
  value.at("held_before").get_to(state.held_before);
  for (const json& rank : value.at("ranks")) state.ranks.push_back(RankFromJson(rank));
  for (const json& item : value.at("posted")) {
    Account::Posted& p = state.posted.at(RowOf(item.at(0)));
    item.at(1).get_to(p.microseconds);
    item.at(2).get_to(p.microjoules);
    item.at(3).get_to(p.estimated);
    item.at(4).get_to(p.money.hardware);
    item.at(5).get_to(p.money.energy);
    item.at(6).get_to(p.money.transfer);
  }
  return Account::Load(std::move(state), shift);
}

// The clock that records had before there was a ledger: seconds per phase of the run, those of its
// pauses that held nothing among them. Each rank has spent them.
Account AccountFromClock(const json& clock, int attempt, int ranks, double shift) {
  Account::State state;
  state.interval = static_cast<Account::Interval>(clock.at("interval").get<int>());
  state.attempt = attempt;
  clock.at("interval_start").get_to(state.interval_began);
  state.counted.monotonic = state.interval_began;
  const double unpaid = clock.at("unpaid").get<double>();
  Account::RankState rank;
  const auto microseconds = [](double seconds) { return static_cast<int64_t>(1e6 * seconds); };
  double held = -unpaid;
  const json& earlier = clock.at("earlier");
  for (size_t phase = 0; phase < earlier.size(); ++phase) {
    const double seconds = earlier.at(phase).get<double>();
    rank.open.at(phase).microseconds = microseconds(seconds);
    held += seconds;
  }
  rank.open[static_cast<size_t>(config::Phase::kPaused)].microseconds -= microseconds(unpaid);
  rank.open[Account::kRows - 1].microseconds = microseconds(unpaid);
  state.held_before = held;
  state.ranks.assign(static_cast<size_t>(ranks), rank);
  return Account::Load(std::move(state), shift);
}

}  // namespace lockstep::launch
