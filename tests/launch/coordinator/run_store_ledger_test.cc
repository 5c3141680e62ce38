// The ledger in the run store: summed up, only added to, and there for stores from before it.
#include <SQLiteCpp/SQLiteCpp.h>
#include <sqlite3.h>

#include <nlohmann/json.hpp>

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
  EXPECT_EQ((*all)[3].line.phase, config::Phase::kRedone);
  store.reset();
  sqlite3* db = nullptr;
  ASSERT_EQ(sqlite3_open(File().c_str(), &db), SQLITE_OK);
  for (const char* change : {"UPDATE ledger SET hardware_micros = 0", "DELETE FROM ledger"}) {
    EXPECT_EQ(sqlite3_exec(db, change, nullptr, nullptr, nullptr), SQLITE_CONSTRAINT) << change;
  }
  sqlite3_close(db);
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
