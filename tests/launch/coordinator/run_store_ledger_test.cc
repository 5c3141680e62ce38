// The ledger in the run store: summed up, only added to, and there for stores from before it.
#include <SQLiteCpp/SQLiteCpp.h>
#include <sqlite3.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <functional>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <random>

#include "launch/coordinator/run_store_rows.h"
#include "run_store_fixture.h"

namespace lockstep::launch {
namespace {

metrics::LedgerLine Line(int rank, config::Phase phase, double to_unix, int64_t micros) {
  metrics::LedgerLine line;
  line.attempt = 1;
  line.rank = rank;
  line.phase = phase;
  line.from_unix = to_unix - 60;
  line.to_unix = to_unix;
  line.microseconds = 60'000'000;
  line.microjoules = 5;
  line.bytes = 7;
  line.money = {micros, 2, 3};
  return line;
}

TEST_F(RunStoreTest, TheLedgerIsSummedUpByRunRankPhaseAndDayAndIsOnlyAddedTo) {
  constexpr double kDay = 86400;
  constexpr double kMidnight = 1000 * kDay;
  {
    auto store = MustOpen();
    RunStore::Batch batch = BatchOf(Full("a"));
    using config::Phase;
    batch.lines = {{"a", Line(0, Phase::kForward, kMidnight + 10, 100)},
                   {"a", Line(0, Phase::kForward, kMidnight + 20, 10)},
                   {"a", Line(0, Phase::kForward, kMidnight + kDay, 1)},
                   {"a", Line(1, Phase::kForward, kMidnight + 10, 1000)},
                   {"b", Line(0, Phase::kRedone, kMidnight + 10, 10000)}};
    ASSERT_TRUE(store->Commit(batch).ok());
    const auto all = store->SumLines("", 0);
    ASSERT_TRUE(all.ok()) << all.status();
    EXPECT_EQ(all->size(), 4u);
    const auto a = store->SumLines("a", kMidnight + 15);
    ASSERT_EQ(a->size(), 2u);
    EXPECT_EQ((*a)[0].line.money.hardware, 10) << "the first ended before";
    EXPECT_EQ((*a)[1].line.to_unix, kMidnight + kDay);
  }
  auto store = MustOpen();
  const auto all = store->SumLines("", 0);
  ASSERT_EQ(all->size(), 4u);
  const metrics::LedgerLine& line = (*all)[0].line;
  EXPECT_EQ(line.money, (metrics::Money{110, 4, 6}));
  EXPECT_EQ(line.microseconds, 120'000'000);
  EXPECT_EQ(line.microjoules, 10);
  EXPECT_EQ(line.bytes, 14);
  EXPECT_EQ(std::count_if(all->begin(), all->end(),
                          [](const StoredLine& sum) {
                            return sum.run == "b" && sum.line.phase == config::Phase::kRedone;
                          }),
            1);
  store.reset();
  sqlite3* db = nullptr;
  ASSERT_EQ(sqlite3_open(File().c_str(), &db), SQLITE_OK);
  for (const char* change :
       {"UPDATE ledger SET hardware_micros = 0", "DELETE FROM ledger", "DELETE FROM ledger_days"}) {
    EXPECT_EQ(sqlite3_exec(db, change, nullptr, nullptr, nullptr), SQLITE_CONSTRAINT) << change;
  }
  sqlite3_close(db);
}

// What a store said of sums before it kept any: every line is read.
constexpr const char* kSumOfLines =
    "SELECT run, rank, phase, held, CAST(to_unix / 86400 AS INTEGER) * 86400 AS day, "
    "SUM(microseconds), SUM(microjoules), MAX(estimated), SUM(bytes), SUM(hardware_micros), "
    "SUM(energy_micros), SUM(transfer_micros) FROM ledger "
    "WHERE (?1 = '' OR run = ?1) AND to_unix > ?2 GROUP BY run, rank, phase, held, day";

// Of years of training on eight GPUs, in a store of schema 2.
constexpr int64_t kManyLines = 1'000'000;
constexpr const char* kFillLedger = R"sql(
DROP TRIGGER ledger_is_summed_up;
DROP TRIGGER ledger_days_lose_none;
DROP TABLE ledger_days;
DROP INDEX ledger_by_end;
CREATE INDEX ledger_by_run ON ledger(run);
PRAGMA user_version=2;
WITH RECURSIVE line(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM line WHERE n < ?1 - 1)
INSERT INTO ledger(run, attempt, rank, phase, held, from_unix, to_unix, microseconds, microjoules,
    estimated, bytes, hardware_micros, energy_micros, transfer_micros)
  SELECT 'run-' || (n / 80 / 192), 1, n % 8,
    CASE n / 8 % 10 WHEN 0 THEN 'forward' WHEN 1 THEN 'backward' WHEN 2 THEN 'eval'
      WHEN 3 THEN 'paused' ELSE 'phase ' || (n / 8 % 10) END,
    n / 8 % 10 != 3, 1.6e9 + n / 80 * 900 - 900, 1.6e9 + n / 80 * 900 + n % 7 / 8.0,
    n * 7919 % 900000000, n * 104729 % 1000000007, n % 1001 = 0, n * 31 % 4096,
    n * 7907 % 1000003, n * 17 % 9973, n % 3
  FROM line;
)sql";

using Sums = std::map<std::string, std::array<int64_t, 7>>;

Sums SumsOfLines(SQLite::Database& db, const std::string& run, double since_unix) {
  SQLite::Statement row(db, kSumOfLines);
  row.bind(1, run);
  row.bind(2, since_unix);
  Sums sums;
  while (row.executeStep()) {
    const auto text = [&](int i) { return row.getColumn(i).getString(); };
    const std::string phase = config::PhaseName(config::ParsePhase(text(2)));
    auto& sum = sums[text(0) + " " + text(1) + " " + phase + " " + text(3) + " " + text(4)];
    for (int i = 0; i < 7; ++i) sum[static_cast<size_t>(i)] += row.getColumn(5 + i).getInt64();
  }
  return sums;
}

Sums SumsOf(const std::vector<StoredLine>& lines) {
  Sums sums;
  for (const auto& [run, line] : lines) {
    auto& sum = sums[run + " " + std::to_string(line.rank) + " " + config::PhaseName(line.phase) +
                     " " + std::to_string(line.held ? 1 : 0) + " " +
                     std::to_string(static_cast<int64_t>(line.to_unix))];
    const std::array<int64_t, 7> values = {
        line.microseconds,   line.microjoules,  line.estimated,     line.bytes,
        line.money.hardware, line.money.energy, line.money.transfer};
    for (size_t i = 0; i < values.size(); ++i) sum[i] += values[i];
  }
  return sums;
}

double Seconds(const std::function<void()>& work) {
  const auto began = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
}

TEST_F(RunStoreTest, AMillionLinesOfAnOlderStoreAreSummedUpAlikeAndInLittleTime) {
  constexpr double kMidnight = 1'604'966'400;  // 2020-11-10; the 58th day of the lines.
  const std::vector<std::pair<std::string, double>> questions = {{"", 0},
                                                                 {"", kMidnight},
                                                                 {"", kMidnight + 4000.5},
                                                                 {"run-7", 0},
                                                                 {"run-28", kMidnight + 900},
                                                                 {"run-28", 2e9},
                                                                 {"nobody", 0}};
  MustOpen();
  std::vector<Sums> expected;
  std::vector<double> before;
  {
    SQLite::Database db(File().string(), SQLite::OPEN_READWRITE);
    std::string fill = kFillLedger;
    fill.replace(fill.find("?1"), 2, std::to_string(kManyLines));
    SQLite::Transaction transaction(db);
    db.exec(fill);
    transaction.commit();
    for (const auto& [run, since] : questions) {
      before.push_back(Seconds([&] { expected.push_back(SumsOfLines(db, run, since)); }));
    }
  }
  std::unique_ptr<RunStore> store;
  const double upgrade = Seconds([&] { store = MustOpen(); });
  ASSERT_NE(store, nullptr);
  std::printf("opened and upgraded in %.2f s\n", upgrade);
  double all_before = 0;
  double all_after = 0;
  for (size_t i = 0; i < questions.size(); ++i) {
    const auto& [run, since] = questions[i];
    absl::StatusOr<std::vector<StoredLine>> lines;
    const double after = Seconds([&] { lines = store->SumLines(run, since); });
    ASSERT_TRUE(lines.ok()) << lines.status();
    EXPECT_EQ(SumsOf(*lines), expected[i]) << run << " since " << since;
    std::printf("run '%s' since %.1f: %zu sums, %.4f s from the lines, %.4f s now\n", run.c_str(),
                since, lines->size(), before[i], after);
    all_before += before[i];
    all_after += after;
  }
  EXPECT_FALSE(expected[0].empty());
  EXPECT_LT(all_after, all_before / 5);
}

TEST_F(RunStoreTest, TheSumsAreThoseOfTheLinesWhateverIsAddedAndAsked) {
  std::mt19937 random(11);
  const auto pick = [&](int64_t most) { return static_cast<int64_t>(random() % most); };
  constexpr double kDay = 86400;
  auto store = MustOpen();
  for (int i = 0; i < 40; ++i) {
    RunStore::Batch batch;
    for (int64_t n = pick(20); n >= 0; --n) {
      // At midnight and one rounding before it, too.
      double end = kDay * static_cast<double>(18'000 + pick(4));
      if (pick(3) == 0) end = std::nextafter(end, 0);
      if (pick(2) == 0) end += static_cast<double>(pick(86400));
      metrics::LedgerLine line =
          Line(static_cast<int>(pick(2)), config::Phase::kForward, end, pick(1'000'000'000'000));
      line.held = pick(4) != 0;
      line.estimated = pick(9) == 0;
      batch.lines.push_back({pick(2) == 0 ? "a" : "b", line});
    }
    ASSERT_TRUE(store->Commit(batch).ok());
  }
  for (const std::string run : {"", "a", "b", "c"}) {
    for (double since :
         {0.0, -1.0, kDay * 18'001, std::nextafter(kDay * 18'001, 0), kDay * 18'002 + 40'000.25,
          kDay * 18'003.999, kDay * 18'009, std::numeric_limits<double>::infinity(),
          std::numeric_limits<double>::quiet_NaN()}) {
      const auto lines = store->SumLines(run, since);
      ASSERT_TRUE(lines.ok()) << lines.status();
      store.reset();
      {
        SQLite::Database db(File().string(), SQLite::OPEN_READONLY);
        EXPECT_EQ(SumsOf(*lines), SumsOfLines(db, run, since)) << run << " since " << since;
      }
      store = MustOpen();
    }
  }
}

TEST_F(RunStoreTest, TheLedgerHasOneCurrency) {
  EXPECT_TRUE(MustOpen()->UseCurrency("USD", true).ok());
  EXPECT_TRUE(MustOpen()->UseCurrency("EUR", true).ok()) << "nothing was spent in the other";
  auto store = MustOpen();
  EXPECT_TRUE(store->UseCurrency("EUR", false).ok());
  const absl::Status other = store->UseCurrency("USD", false);
  EXPECT_EQ(other.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_NE(other.message().find("EUR"), std::string::npos) << other;
}

TEST_F(RunStoreTest, AFileFromBeforeTheLedgerIsUpgradedAndItsClocksBecomeAccounts) {
  StoredRun stored = Full("a");
  ASSERT_TRUE(MustOpen()->Commit(BatchOf(stored)).ok());
  // The record of 0.1.0 had a clock in the place of the account.
  auto record = nlohmann::json::parse(ToJson(stored.run));
  record.erase("account");
  record.erase("checkpoint_costs");
  std::vector<double> earlier(13, 0);
  earlier[3] = 40;   // Forward.
  earlier[10] = 60;  // Paused, 50 of them without slots.
  record["clock"] = {{"interval", 0},      {"interval_start", 900}, {"earlier", earlier},
                     {"unpaid", 50},       {"reported", earlier},   {"launch_overhead", 0},
                     {"has_report", false}};
  const std::string text = record.dump();
  const std::string sum = Checksum(
      {&stored.run.spec.id, &text, &stored.run.spec.config_yaml, &stored.progress, &stored.totals});
  {
    SQLite::Database db(File().string(), SQLite::OPEN_READWRITE);
    SQLite::Statement put(db, "UPDATE runs SET record = ?, checksum = ?");
    put.bind(1, text);
    put.bind(2, sum);
    put.exec();
    db.exec("DROP TRIGGER ledger_days_lose_none");
    db.exec("DROP TABLE ledger_days");
    db.exec("DROP TABLE ledger");
    db.exec("PRAGMA user_version=1");
  }
  auto store = MustOpen();
  auto runs = store->LoadRuns({1000, 1e9, "boot"});
  ASSERT_TRUE(runs.ok()) << runs.status();
  metrics::Account& account = (*runs)[0].run.account;
  EXPECT_TRUE(account.unpriced());
  account.PriceOpenLines({1000, 1e9}, metrics::Pricing({.per_rank_hour = 3600}, "host"));
  EXPECT_FALSE(account.unpriced());
  EXPECT_DOUBLE_EQ(metrics::Sum(account.totals().seconds), 100);
  EXPECT_EQ(account.cost().total(), 3 * 50'000'000) << "three ranks held slots for 50 s";
  int64_t posted = 0;
  for (const metrics::LedgerLine& line : account.TakeLines()) posted += line.money.total();
  EXPECT_EQ(posted, account.cost().total());
  ASSERT_TRUE(store->Commit(BatchOf((*runs)[0])).ok());
  EXPECT_FALSE((*store->LoadRuns({1000, 1e9, "boot"}))[0].run.account.unpriced());
}

}  // namespace
}  // namespace lockstep::launch
