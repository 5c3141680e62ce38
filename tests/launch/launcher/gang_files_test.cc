#include "launch/launcher/gang_files.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <fstream>
#include <thread>

#include "config/exit_code.h"
#include "config/run_directory.h"

namespace lockstep::launch {
namespace {

using config::TrainerExit;
using testing::HasSubstr;

constexpr int Exited(int code) {
  return code << 8;
}  // As waitpid tells it.

class GangFilesTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string path = testing::TempDir() + "gang-XXXXXX";
    ASSERT_NE(mkdtemp(path.data()), nullptr);
    dir_ = path;
    std::filesystem::create_directories(Attempt());
  }
  void TearDown() override { std::filesystem::remove_all(dir_); }

  std::filesystem::path Attempt() const { return dir_ / "attempt-2"; }
  void Write(const std::filesystem::path& path, const std::string& text) {
    std::ofstream(dir_ / path) << text;
  }
  GangEnd Explain(const EndEvidence& evidence) { return ExplainEnd(dir_, 2, evidence); }

  std::filesystem::path dir_;
};

TEST_F(GangFilesTest, NothingKnownIsMinusOne) {
  const GangEnd end = Explain({});
  EXPECT_EQ(end.exit_code, -1);
  EXPECT_THAT(end.reason, HasSubstr("left no word"));
}

TEST_F(GangFilesTest, TheEarliestCauseIsTold) {
  Write(
      "attempt-2/failure-rank-0.json",
      R"({"rank":0,"exit_code":21,"reason":"lost","message":"rank 2 is gone","step":4,"time":10.0})");
  Write("attempt-2/failure-rank-1.json",
        R"({"rank":1,"exit_code":20,"message":"bad picture","step":4,"time":12.5})");
  Write("attempt-2/failure-rank-2.json",
        R"({"rank":2,"exit_code":20,"message":"worse picture","step":4,"time":12.0})");
  const GangEnd end = Explain({.wait_status = Exited(21)});
  EXPECT_EQ(end.exit_code, 20);
  EXPECT_EQ(end.reason, "rank 2 at step 4: worse picture");
}

TEST_F(GangFilesTest, AKilledRankComesBeforeThoseWhoLostIt) {
  Write("attempt-2/failure-rank-0.json",
        R"({"rank":0,"exit_code":21,"reason":"lost","step":4,"time":10.0})");
  Write("attempt-2/trainer.log",
        "mpirun noticed that process rank 3 with PID 0 on node a.b exited on signal 9 (Killed).\n");
  const GangEnd end = Explain({.wait_status = Exited(137)});
  EXPECT_EQ(end.exit_code, 137);
  EXPECT_EQ(end.reason, "rank 3 was killed by signal 9");
}

TEST_F(GangFilesTest, AKillWhileMemoryRanOutIsCalledOutOfMemory) {
  Write("attempt-2/trainer.log",
        "mpirun noticed that process rank 0 with PID 0 on node vm exited on signal 9 (Killed).\n");
  EndEvidence evidence{.wait_status = Exited(137)};
  evidence.out_of_memory = true;
  const GangEnd end = Explain(evidence);
  EXPECT_EQ(end.exit_code, static_cast<int>(TrainerExit::kOutOfMemory));
  EXPECT_THAT(end.reason, HasSubstr("micro_batch_size"));
}

TEST_F(GangFilesTest, AFailureWithoutMessageGivesItsReason) {
  Write("attempt-2/failure-rank-1.json", R"({"rank":1,"exit_code":23,"reason":"NONFINITE_LOSS"})");
  EXPECT_EQ(Explain({.wait_status = Exited(23)}).reason, "rank 1: NONFINITE_LOSS");
}

TEST_F(GangFilesTest, DamagedFilesAreNoEvidence) {
  for (const char* text : {"", "{", "[1,2]", "\"x\"", "{\"rank\":\"one\",", "\xff\xfe"}) {
    Write("attempt-2/failure-rank-0.json", text);
    Write("attempt-2/gang.json", text);
    Write("attempt-2/end.json", text);
    Write("result.json", text);
    EXPECT_EQ(Explain({}).exit_code, -1) << text;
    EXPECT_FALSE(ReadGangRecord(Attempt()).has_value()) << text;
    EXPECT_FALSE(ReadGangEnd(Attempt()).has_value()) << text;
  }
}

TEST_F(GangFilesTest, OfWrongTypesTheRestIsTaken) {
  Write("attempt-2/failure-rank-0.json", R"({"rank":"one","exit_code":23,"message":7,"time":"x"})");
  EXPECT_EQ(Explain({}).exit_code, 23);
}

TEST_F(GangFilesTest, AResultWrittenBeforeTheAttemptDoesNotCount) {
  Write("result.json", R"({"state":"completed"})");
  Write("attempt-2/token", "x");
  const auto start = std::filesystem::last_write_time(Attempt() / "token");
  std::filesystem::last_write_time(dir_ / "result.json", start - std::chrono::hours(1));
  EXPECT_EQ(Explain({}).exit_code, -1);
  std::filesystem::last_write_time(dir_ / "result.json", start + std::chrono::hours(1));
  EXPECT_EQ(Explain({}).exit_code, 0);
}

TEST_F(GangFilesTest, AKillIsOursEvenWhenMpirunNamesARank) {
  Write("attempt-2/trainer.log",
        "mpirun noticed that process rank 0 with PID 0 on node vm exited on signal 9 (Killed).\n");
  EndEvidence evidence{.wait_status = SIGKILL};
  evidence.killed = true;
  EXPECT_EQ(Explain(evidence).reason, "killed by the coordinator");
}

TEST_F(GangFilesTest, ARecordIsReadBack) {
  GangRecord record;
  record.gang = {4711, 18446744073709551ULL};
  record.boot_id = "boot";
  record.tmp_dir = "/tmp/lockstep-gang-abcdef";
  record.run_id = "r";
  record.out_of_memory_kills = 3;
  ASSERT_TRUE(WriteGangRecord(Attempt(), record).ok());
  const std::optional<GangRecord> read = ReadGangRecord(Attempt());
  ASSERT_TRUE(read.has_value());
  EXPECT_EQ(read->gang.pid, 4711);
  EXPECT_EQ(read->gang.start_time_ticks, 18446744073709551ULL);
  EXPECT_EQ(read->boot_id, "boot");
  EXPECT_EQ(read->tmp_dir, "/tmp/lockstep-gang-abcdef");
  EXPECT_EQ(read->run_id, "r");
  EXPECT_EQ(read->out_of_memory_kills, 3);
}

TEST_F(GangFilesTest, AnEndWithBytesThatAreNoTextIsReadBack) {
  WriteGangEnd(Attempt(), {7, "bad \xff byte"});
  const std::optional<GangEnd> read = ReadGangEnd(Attempt());
  ASSERT_TRUE(read.has_value());
  EXPECT_EQ(read->exit_code, 7);
  EXPECT_THAT(read->reason, HasSubstr("bad "));
}

TEST_F(GangFilesTest, ALogKeepsItsEnd) {
  const std::filesystem::path log = Attempt() / "trainer.log";
  Write(log, std::string(1000, 'a') + "end");
  BoundLog(log, 2000);
  EXPECT_EQ(std::filesystem::file_size(log), 1003U);
  BoundLog(log, 400);
  EXPECT_EQ(ReadTail(log, 10000), "[older output was dropped]\n" + std::string(97, 'a') + "end");
}

bool CanCutTheFrontOff(const std::filesystem::path& folder) {
  const std::filesystem::path file = folder / "two-blocks";
  std::ofstream(file) << std::string(8192, 'a');
  const int fd = open(file.c_str(), O_WRONLY | O_CLOEXEC);
  const bool can = fallocate(fd, FALLOC_FL_COLLAPSE_RANGE, 0, 4096) == 0;
  close(fd);
  return can;
}

TEST_F(GangFilesTest, NoLineIsLostBetweenTheDroppedOnesAndTheEnd) {
  if (!CanCutTheFrontOff(dir_)) GTEST_SKIP() << dir_ << " cannot cut the front off a file";
  constexpr int64_t kLimit = 20000;
  const std::filesystem::path log = Attempt() / "trainer.log";
  Write(log, "");
  std::atomic<bool> enough = false;
  int written = 0;
  std::thread writer([&] {
    const int fd = open(log.c_str(), O_WRONLY | O_APPEND | O_CLOEXEC);
    for (; !enough; ++written) {
      const std::string line = std::to_string(written) + '\n';
      EXPECT_EQ(write(fd, line.data(), line.size()), static_cast<ssize_t>(line.size()));
    }
    close(fd);
  });
  for (int times = 0; times < 10;) {
    if (std::filesystem::file_size(log) <= kLimit) continue;
    BoundLog(log, kLimit);
    ++times;
  }
  enough = true;
  writer.join();
  std::ifstream kept(log);
  std::string line;
  std::getline(kept, line);
  EXPECT_EQ(line, "[older output was dropped]");
  std::getline(kept, line);  // The end of one.
  std::getline(kept, line);
  int next = std::stoi(line) + 1;
  while (std::getline(kept, line)) ASSERT_EQ(line, std::to_string(next++));
  EXPECT_EQ(next, written);
}

TEST_F(GangFilesTest, ALinkInTheLogsPlaceIsLeftAlone) {
  const std::filesystem::path precious = dir_ / "precious";
  Write(precious, std::string(1000, 'a'));
  std::filesystem::create_symlink(precious, Attempt() / "trainer.log");
  BoundLog(Attempt() / "trainer.log", 10);
  EXPECT_EQ(std::filesystem::file_size(precious), 1000U);
  EXPECT_EQ(ReadTail(Attempt() / "trainer.log", 10), "");
}

}  // namespace
}  // namespace lockstep::launch
