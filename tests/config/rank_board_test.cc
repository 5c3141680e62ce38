#include "config/rank_board.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <fstream>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "config/run_directory.h"
#include "tests/config/test_files.h"

namespace lockstep::config {
namespace {

TEST(RankBoard, ShowsWhatARankWrote) {
  const TempFolder folder;
  const auto path = folder.path() / "board";
  absl::StatusOr<RankBoard> board = RankBoard::Open(path, 3);
  ASSERT_TRUE(board.ok()) << board.status();
  board->Claim(1);
  board->Set(1, 120, Phase::kBackward);
  board->CountCollective(1);
  board->CountCollective(1);

  const absl::StatusOr<std::vector<RankState>> ranks = RankBoard::Read(path);
  ASSERT_TRUE(ranks.ok()) << ranks.status();
  ASSERT_EQ(ranks->size(), 3u);
  EXPECT_EQ((*ranks)[0].pid, 0);
  EXPECT_EQ((*ranks)[1].rank, 1);
  EXPECT_EQ((*ranks)[1].pid, getpid());
  EXPECT_GT((*ranks)[1].start_time_ticks, 0u);
  EXPECT_EQ((*ranks)[1].step, 120);
  EXPECT_EQ((*ranks)[1].phase, Phase::kBackward);
  EXPECT_EQ((*ranks)[1].collectives, 2u);
  EXPECT_GT((*ranks)[1].updated_seconds, 0);
}

TEST(RankBoard, TimesAreOfOneMomentHoweverFastTheyAreWritten) {
  const TempFolder folder;
  const auto path = folder.path() / "board";
  absl::StatusOr<RankBoard> board = RankBoard::Open(path, 2);
  ASSERT_TRUE(board.ok()) << board.status();
  board->Claim(1);
  board->SetLoaded(1, 10, 2, 3000);
  std::atomic<bool> stop{false};
  std::thread writer([&] {
    RankTime time;
    for (int i = 1; !stop; ++i) {
      time.phase_seconds.fill(i);
      time.entered_seconds = time.unsettled_seconds = i;
      time.open_phase = static_cast<Phase>(i % kPhaseCount);
      board->SetTime(1, time);
      if (i % 200 == 0) std::this_thread::sleep_for(std::chrono::microseconds(100));
    }
  });
  int torn = 0;
  constexpr int kReads = 2000;
  for (int i = 0; i < kReads; ++i) {
    const auto ranks = RankBoard::Read(path);
    if (!ranks.ok()) break;
    const RankState& rank = (*ranks)[1];
    const bool one = std::all_of(rank.phase_seconds.begin(), rank.phase_seconds.end(),
                                 [&](double seconds) { return seconds == rank.entered_seconds; });
    if (!one || rank.unsettled_seconds != rank.entered_seconds) ++torn;
  }
  stop = true;
  writer.join();
  // A writer that loses its core in the middle of writing for long is taken for dead; without the
  // sequence every tenth reading is torn.
  EXPECT_LT(torn, kReads / 100);
  const RankState last = (*RankBoard::Read(path))[1];
  EXPECT_EQ(last.loaded_samples, 10);
  EXPECT_EQ(last.replaced_samples, 2);
  EXPECT_EQ(last.loaded_bytes, 3000);
}

TEST(RankBoard, ARankThatDiedInTheMiddleOfWritingIsReadAllTheSame) {
  const TempFolder folder;
  const auto path = folder.path() / "board";
  absl::StatusOr<RankBoard> board = RankBoard::Open(path, 1);
  ASSERT_TRUE(board.ok()) << board.status();
  RankTime time;
  time.phase_seconds.fill(5);
  board->SetTime(0, time);
  // The header is 64 bytes; the seventh word of a slot is odd while its time is written.
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  const uint64_t odd = 3;
  file.seekp(64 + 6 * 8).write(reinterpret_cast<const char*>(&odd), sizeof(odd));
  file.close();
  const auto dead = RankBoard::Read(path);
  ASSERT_TRUE(dead.ok()) << dead.status();
  EXPECT_EQ(dead->front().phase_seconds[0], 5);
  // Another process that takes the slot over is read as if nothing had been.
  time.phase_seconds.fill(7);
  board->SetTime(0, time);
  uint64_t even = 1;
  std::ifstream(path, std::ios::binary).seekg(64 + 6 * 8).read(reinterpret_cast<char*>(&even), 8);
  EXPECT_EQ(even, 4u);
  EXPECT_EQ(RankBoard::Read(path)->front().phase_seconds[0], 7);
}

TEST(RankBoard, IsSharedByProcessesAndOutlivesThem) {
  const TempFolder folder;
  const auto path = folder.path() / "board";
  constexpr int kRanks = 4;
  std::vector<pid_t> children;
  for (int rank = 0; rank < kRanks; ++rank) {
    const pid_t child = fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      absl::StatusOr<RankBoard> board = RankBoard::Open(path, kRanks);
      if (!board.ok()) _exit(1);
      board->Claim(rank);
      for (int step = 0; step <= 1000; ++step) {
        board->Set(rank, step, Phase::kForward);
        board->CountCollective(rank);
      }
      _exit(0);
    }
    children.push_back(child);
  }
  for (const pid_t child : children) {
    int status = -1;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    EXPECT_EQ(status, 0);
  }
  const absl::StatusOr<std::vector<RankState>> ranks = RankBoard::Read(path);
  ASSERT_TRUE(ranks.ok()) << ranks.status();
  std::set<int64_t> pids;
  for (const RankState& rank : *ranks) {
    EXPECT_EQ(rank.step, 1000);
    EXPECT_EQ(rank.collectives, 1001u);
    pids.insert(rank.pid);
  }
  EXPECT_EQ(pids, std::set<int64_t>(children.begin(), children.end()));
}

TEST(RankBoard, MayBeOpenedByManyAtOnce) {
  const TempFolder folder;
  for (int round = 0; round < 50; ++round) {
    const auto path = folder.path() / std::to_string(round);
    std::vector<std::jthread> ranks;
    ranks.reserve(4);
    for (int rank = 0; rank < 4; ++rank) {
      ranks.emplace_back([&path, rank] {
        absl::StatusOr<RankBoard> board = RankBoard::Open(path, 4);
        ASSERT_TRUE(board.ok()) << board.status();
        board->Set(rank, rank + 1, Phase::kEval);
      });
    }
    ranks.clear();
    const absl::StatusOr<std::vector<RankState>> read = RankBoard::Read(path);
    ASSERT_TRUE(read.ok()) << read.status();
    for (int rank = 0; rank < 4; ++rank) EXPECT_EQ((*read)[rank].step, rank + 1);
  }
}

TEST(RankBoard, MovesWithItsFile) {
  const TempFolder folder;
  absl::StatusOr<RankBoard> first = RankBoard::Open(folder.path() / "a", 1);
  absl::StatusOr<RankBoard> second = RankBoard::Open(folder.path() / "b", 1);
  ASSERT_TRUE(first.ok() && second.ok());
  RankBoard moved = *std::move(first);
  moved.Set(0, 1, Phase::kOther);
  moved = *std::move(second);
  moved.Set(0, 2, Phase::kOther);
  EXPECT_EQ(RankBoard::Read(folder.path() / "a")->front().step, 1);
  EXPECT_EQ(RankBoard::Read(folder.path() / "b")->front().step, 2);
}

TEST(RankBoard, RefusesAnotherWorldAndWhatIsNoBoard) {
  const TempFolder folder;
  const auto path = folder.path() / "board";
  ASSERT_TRUE(RankBoard::Open(path, 2).ok());
  const absl::Status other = RankBoard::Open(path, 3).status();
  EXPECT_EQ(other.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(other.message()), testing::HasSubstr("another world"));

  ASSERT_TRUE(WriteFileDurably(path, std::string(192, 'x')).ok());
  EXPECT_EQ(RankBoard::Open(path, 2).status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(RankBoard::Read(path).status().code(), absl::StatusCode::kFailedPrecondition);
  ASSERT_TRUE(WriteFileDurably(path, "").ok());
  EXPECT_FALSE(RankBoard::Read(path).ok());
  EXPECT_EQ(RankBoard::Read(folder.path() / "none").status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(RankBoard::Open(path, 0).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(RankBoardDeathTest, StopsAtARankThatIsNotOnIt) {
  const TempFolder folder;
  absl::StatusOr<RankBoard> board = RankBoard::Open(folder.path() / "board", 2);
  ASSERT_TRUE(board.ok());
  EXPECT_DEATH(board->Set(2, 0, Phase::kOther), "rank 2 is not on a board of 2 ranks");
}

TEST(Phase, EveryPhaseHasANameOfItsOwn) {
  std::set<std::string> names;
  for (int phase = 0; phase < kPhaseCount; ++phase) {
    names.insert(PhaseName(static_cast<Phase>(phase)));
  }
  EXPECT_EQ(names.size(), static_cast<size_t>(kPhaseCount));
}

}  // namespace
}  // namespace lockstep::config
