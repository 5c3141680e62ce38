// What was committed is there after anything that may happen to the process or the file.
#include "launch/coordinator/run_store.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sqlite3.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <random>

#include "run_store_fixture.h"

namespace lockstep::launch {
namespace {

TEST_F(RunStoreTest, ARunComesBackAsItWas) {
  const StoredRun stored = Full("a");
  ASSERT_TRUE(MustOpen()->Commit(BatchOf(stored)).ok());
  auto runs = MustOpen()->LoadRuns({1000, 1e9, "boot"});
  ASSERT_TRUE(runs.ok()) << runs.status();
  ASSERT_EQ(runs->size(), 1u);
  EXPECT_EQ(ToJson((*runs)[0].run), ToJson(stored.run));
  EXPECT_EQ((*runs)[0].run.spec.config_yaml, stored.run.spec.config_yaml);
  EXPECT_EQ((*runs)[0].progress, stored.progress);
  EXPECT_EQ((*runs)[0].totals, stored.totals);
}

TEST_F(RunStoreTest, OnAnotherBootTimesAreRebasedByTheCalendarWhichMayNotRunBackwards) {
  ASSERT_TRUE(MustOpen()->Commit(BatchOf(Full("a"))).ok());
  {
    auto runs = MustOpen()->LoadRuns({50, 1e9 + 3600, "another"});
    ASSERT_TRUE(runs.ok());
    const launch::Run& run = (*runs)[0].run;
    // 400 seconds before the last commit, which was an hour before 50.
    EXPECT_NEAR(run.retry_at, 50 - 3600 - 400, 1e-3);
    EXPECT_NEAR(run.orders[0].issued_at, 50 - 3600 - 500, 1e-3);
    EXPECT_NEAR(run.account.HeldSeconds(50), 30 + 550 + 3600, 1e-3);
  }
  auto runs = MustOpen()->LoadRuns({50, 1e9 - 3e8, "another"});
  ASSERT_TRUE(runs.ok());
  EXPECT_NEAR((*runs)[0].run.retry_at, 50 - 400, 1e-3);
}

TEST_F(RunStoreTest, ARequestKeepsItsAnswerAndFindsItsOrder) {
  auto store = MustOpen();
  RunStore::Batch batch;
  StoredRequest request;
  request.id = "r1";
  request.method = "PauseRun";
  request.digest = "d";
  request.run = "a";
  request.order_id = "o1";
  batch.requests.push_back(request);
  ASSERT_TRUE(store->Commit(batch).ok());
  auto waiting = store->FindRequestsOfOrder("o1");
  ASSERT_TRUE(waiting.ok());
  ASSERT_EQ(waiting->size(), 1u);
  EXPECT_FALSE((*waiting)[0].done);
  request.done = true;
  request.code = 9;
  request.message = "no";
  request.step = 5;
  request.run_bytes = std::string("\0b", 2);
  batch.requests = {request};
  ASSERT_TRUE(store->Commit(batch).ok());
  EXPECT_TRUE(store->FindRequestsOfOrder("o1")->empty()) << "nobody waits any more";
  auto found = store->FindRequest("r1");
  ASSERT_TRUE(found.ok() && found->has_value());
  EXPECT_EQ((*found)->run_bytes, request.run_bytes);
  EXPECT_EQ((*found)->code, 9);
  EXPECT_EQ((*found)->order_id, "o1");
  EXPECT_FALSE(store->FindRequest("r2")->has_value());
  EXPECT_TRUE(store->FindRequestsOfOrder("")->empty());
}

TEST_F(RunStoreTest, OldRequestsArePrunedNewOnesStay) {
  auto store = MustOpen();
  RunStore::Batch batch;
  for (int i = 0; i < 12'000; ++i) {
    StoredRequest request;
    request.id = "r" + std::to_string(i);
    request.done = true;
    batch.requests.push_back(request);
  }
  ASSERT_TRUE(store->Commit(batch).ok());
  EXPECT_FALSE(store->FindRequest("r1000")->has_value());
  EXPECT_TRUE(store->FindRequest("r2001")->has_value());
  EXPECT_TRUE(store->FindRequest("r11999")->has_value());
}

TEST_F(RunStoreTest, TransitionsAreCounted) {
  auto store = MustOpen();
  RunStore::Batch batch;
  batch.transitions = {{"a", RunState::kQueued, RunState::kStarting, "attempt 1", 1},
                       {"a", RunState::kStarting, RunState::kRunning, "", 2},
                       {"b", RunState::kQueued, RunState::kStarting, "attempt 1", 3}};
  ASSERT_TRUE(store->Commit(batch).ok());
  store.reset();
  const auto counts = MustOpen()->CountTransitions();
  ASSERT_TRUE(counts.ok());
  EXPECT_EQ((counts->at({RunState::kQueued, RunState::kStarting})), 2);
  EXPECT_EQ(counts->size(), 2u);
}

// A child commits numbered batches and says so through a pipe until it is killed; everything it
// said, and at most one batch more, must be there.
TEST_F(RunStoreTest, NothingThatWasCommittedIsLostWhenTheProcessIsKilled) {
  std::mt19937 random(7);
  int64_t expected = 0;
  for (int round = 0; round < 12; ++round) {
    int pipe_fds[2];
    ASSERT_EQ(pipe(pipe_fds), 0);
    const pid_t child = fork();
    if (child == 0) {
      close(pipe_fds[0]);
      auto store = Open();
      if (!store.ok()) _exit(1);
      for (int64_t number = expected + 1;; ++number) {
        StoredRun stored = Full("run-" + std::to_string(number % 20));
        stored.run.step = number;
        RunStore::Batch batch = BatchOf(std::move(stored));
        batch.transitions.push_back({"a", RunState::kQueued, RunState::kPaused, "", 0});
        if (!(*store)->Commit(batch).ok()) _exit(2);
        if (write(pipe_fds[1], &number, sizeof(number)) != sizeof(number)) _exit(3);
      }
    }
    close(pipe_fds[1]);
    const int reports = 1 + static_cast<int>(random() % 40);
    int64_t said = 0;
    for (int i = 0; i < reports && read(pipe_fds[0], &said, sizeof(said)) == sizeof(said); ++i) {
    }
    kill(child, SIGKILL);
    int status = 0;
    waitpid(child, &status, 0);
    ASSERT_TRUE(WIFSIGNALED(status)) << "the child ended by itself: " << WEXITSTATUS(status);
    while (read(pipe_fds[0], &said, sizeof(said)) == sizeof(said)) {
    }
    close(pipe_fds[0]);
    auto store = MustOpen();
    ASSERT_NE(store, nullptr);
    auto runs = store->LoadRuns({1000, 1e9, "boot"});
    ASSERT_TRUE(runs.ok()) << runs.status();
    int64_t newest = 0;
    for (const StoredRun& stored : *runs) newest = std::max(newest, stored.run.step);
    EXPECT_GE(newest, said);
    EXPECT_LE(newest, said + 1);
    const auto counts = store->CountTransitions();
    EXPECT_EQ((counts->at({RunState::kQueued, RunState::kPaused})), newest)
        << "a batch is whole or not there";
    expected = newest;
  }
}

TEST_F(RunStoreTest, ASecondProcessCannotOpenIt) {
  auto store = MustOpen();
  ASSERT_TRUE(store->Commit(BatchOf(Full("a"))).ok());
  const pid_t child = fork();
  if (child == 0) _exit(absl::IsUnavailable(Open().status()) ? 0 : 1);
  int status = 0;
  waitpid(child, &status, 0);
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

TEST_F(RunStoreTest, AFileOfANewerVersionIsRefusedAndLeftAlone) {
  (void)MustOpen();
  sqlite3* db = nullptr;
  ASSERT_EQ(sqlite3_open(File().c_str(), &db), SQLITE_OK);
  ASSERT_EQ(sqlite3_exec(db, "PRAGMA user_version=99", nullptr, nullptr, nullptr), SQLITE_OK);
  sqlite3_close(db);
  const auto store = Open();
  EXPECT_EQ(store.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_NE(store.status().message().find("newer"), std::string::npos) << store.status();
  EXPECT_NE(store.status().message().find("schema 99"), std::string::npos) << store.status();
}

void Overwrite(const fs::path& file, int64_t offset, const std::string& bytes) {
  std::fstream stream(file, std::ios::in | std::ios::out | std::ios::binary);
  stream.seekp(offset);
  stream << bytes;
}

TEST_F(RunStoreTest, ADamagedFileIsRefusedWithTheCommandThatRestoresIt) {
  {
    auto store = MustOpen();
    ASSERT_TRUE(store->Commit(BatchOf(Full("a"))).ok());
    ASSERT_TRUE(store->Backup("2026-01-01", 3).ok());
    ASSERT_TRUE(store->Backup("2026-01-02", 3).ok());
  }
  Overwrite(File(), 0, "this is no database, whatever its name says");
  const auto store = Open();
  EXPECT_EQ(store.status().code(), absl::StatusCode::kDataLoss) << store.status();
  const std::string message(store.status().message());
  const size_t command = message.find("mv '");
  ASSERT_NE(command, std::string::npos) << message;
  ASSERT_NE(message.find("lockstep-2026-01-02.db"), std::string::npos) << message;
  ASSERT_EQ(std::system(message.substr(command).c_str()), 0) << "the command must work as it is";
  auto runs = MustOpen()->LoadRuns({1000, 1e9, "boot"});
  ASSERT_TRUE(runs.ok()) << runs.status();
  EXPECT_EQ(runs->size(), 1u);
}

// Every byte of the file in turn: refused, or harmless; never a run that is not the one stored.
TEST_F(RunStoreTest, NoFlippedBitChangesARunUnseen) {
  const StoredRun stored = Full("a");
  ASSERT_TRUE(MustOpen()->Commit(BatchOf(stored)).ok());
  std::string good;
  {
    std::ifstream in(File(), std::ios::binary);
    good.assign(std::istreambuf_iterator<char>(in), {});
  }
  std::mt19937 random(3);
  int refused = 0;
  for (int i = 0; i < 300; ++i) {
    std::string bad = good;
    bad[random() % bad.size()] ^= static_cast<char>(1u << (random() % 8));
    std::ofstream(File(), std::ios::binary) << bad;
    auto store = Open();
    if (!store.ok()) {
      ++refused;
      continue;
    }
    auto runs = (*store)->LoadRuns({1000, 1e9, "boot"});
    if (!runs.ok()) {
      EXPECT_EQ(runs.status().code(), absl::StatusCode::kDataLoss) << runs.status();
      ++refused;
      continue;
    }
    for (const StoredRun& run : *runs) {
      ASSERT_EQ(ToJson(run.run), ToJson(stored.run)) << "a damaged run was believed";
      ASSERT_EQ(run.progress, stored.progress);
    }
  }
  EXPECT_GT(refused, 0);
}

TEST_F(RunStoreTest, ABackupADayAndThreeAreKept) {
  auto store = MustOpen();
  ASSERT_TRUE(store->Commit(BatchOf(Full("a"))).ok());
  for (const char* day : {"2026-01-01", "2026-01-02", "2026-01-03", "2026-01-03", "2026-01-04"}) {
    ASSERT_TRUE(store->Backup(day, 3).ok());
  }
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(Backups())) {
    names.push_back(entry.path().filename().string());
  }
  std::sort(names.begin(), names.end());
  EXPECT_EQ(names, (std::vector<std::string>{"lockstep-2026-01-02.db", "lockstep-2026-01-03.db",
                                             "lockstep-2026-01-04.db"}));
  ASSERT_TRUE(store->Commit(BatchOf(Full("b"))).ok()) << "the store goes on after a backup";
}

TEST_F(RunStoreTest, AFullDiskRefusesTheCommitAndKeepsWhatWasThere) {
  // A page limit does what a full disk does, without needing one.
  auto store = MustOpen();
  ASSERT_TRUE(store->Commit(BatchOf(Full("a"))).ok());
  store.reset();
  rlimit limit{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &limit), 0);
  const pid_t child = fork();
  if (child == 0) {
    signal(SIGXFSZ, SIG_IGN);
    rlimit small = limit;
    small.rlim_cur = 64 << 10;
    setrlimit(RLIMIT_FSIZE, &small);
    auto opened = Open();
    if (!opened.ok()) _exit(1);
    StoredRun large = Full("b");
    large.progress.assign(1 << 20, 'x');
    if ((*opened)->Commit(BatchOf(large)).ok()) _exit(2);
    _exit((*opened)->Commit(BatchOf(Full("a"))).ok() ? 0 : 3);
  }
  int status = 0;
  waitpid(child, &status, 0);
  EXPECT_EQ(WEXITSTATUS(status), 0);
  auto runs = MustOpen()->LoadRuns({1000, 1e9, "boot"});
  ASSERT_TRUE(runs.ok()) << runs.status();
  EXPECT_EQ(runs->size(), 1u);
}

}  // namespace
}  // namespace lockstep::launch
