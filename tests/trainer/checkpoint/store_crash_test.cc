// The process stops, or the disk fails, at every call that a commit makes: what was acknowledged
// loads afterwards, and nothing half is ever visible.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <ctime>
#include <random>

#include "absl/strings/str_cat.h"
#include "tests/trainer/checkpoint/checkpoint_fixture.h"
#include "trainer/checkpoint/store.h"

namespace lockstep::trainer {
namespace {

namespace fs = std::filesystem;
using ::testing::AnyOf;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr Retention kKeepTwo{.keep_last = 2, .keep_best = 0};

absl::Status CommitSample(CheckpointStore& store, int64_t step) {
  const SampleContents contents(step);
  return store.Commit(step, contents.View(), {});
}

// Steps 1 and 2 are committed; the commit of step 3, which also prunes step 1, is what is
// disturbed.
class CrashTest : public ::testing::Test {
 protected:
  void SetUp() override {
    CheckpointStore store(start(), 1, kKeepTwo);
    ASSERT_TRUE(store.Open().ok());
    ASSERT_TRUE(CommitSample(store, 1).ok());
    ASSERT_TRUE(CommitSample(store, 2).ok());
    Reset();
  }
  // Copies what was committed once: a copy waits for no disk.
  void Reset() {
    fs::remove_all(folder());
    fs::copy(start(), folder(), fs::copy_options::recursive);
  }
  fs::path start() const { return temp_.path() / "start"; }
  fs::path folder() const { return temp_.path() / "checkpoints"; }

  // As the next attempt finds it: leftovers go, `oldest_allowed` or a newer one loads, all that is
  // visible is whole.
  int64_t Recover(int64_t oldest_allowed) {
    CheckpointStore store(folder(), 2, kKeepTwo);
    EXPECT_TRUE(store.Open().ok());
    EXPECT_THAT(NamesIn(folder()), Each(Not(HasSubstr("tmp"))));
    std::vector<std::string> refused;
    const auto loaded = store.LoadNewestGood(refused);
    EXPECT_TRUE(loaded.ok()) << loaded.status();
    if (!loaded.ok()) return -1;
    EXPECT_THAT(refused, ElementsAre());
    EXPECT_TRUE(IsWhole(*loaded));
    EXPECT_GE(loaded->info.step, oldest_allowed);
    const auto list = store.List();
    EXPECT_TRUE(list.ok());
    for (const CheckpointInfo& info : *list) EXPECT_TRUE(store.Verify(info.path).ok()) << info.path;
    return loaded->info.step;
  }

  TempFolder temp_;
};

// The calls of one undisturbed commit, so that the loops below are known to cover them.
TEST_F(CrashTest, ACommitIsTheseCalls) {
  CallCounter counter;
  CheckpointStore store(folder(), 1, kKeepTwo, {}, counter.Operations());
  ASSERT_TRUE(CommitSample(store, 3).ok());
  EXPECT_THAT(counter.log,
              ElementsAre("remove_all step-000000003.tmp-1", "write_file weights.safetensors",
                          "write_file optimizer.safetensors", "write_file state.json",
                          "write_file manifest.json", "sync_folder step-000000003.tmp-1",
                          "rename step-000000003", "sync_folder checkpoints",
                          "remove_all step-000000001.tmp-1-old", "rename step-000000001.tmp-1-old",
                          "sync_folder checkpoints", "remove_all step-000000001.tmp-1-old"));
}

// Runs `disturb` for each call of the commit of step 3 until the commit gets through undisturbed.
template <typename Disturb>
int ForEveryCall(Disturb disturb) {
  for (int at = 0; at < 100; ++at) {
    SCOPED_TRACE(absl::StrCat("call ", at));
    if (!disturb(at)) return at;
    if (::testing::Test::HasFailure()) return -1;
  }
  return -1;
}

TEST_F(CrashTest, StoppingBeforeAnyCallLeavesTheOldOrTheNewOne) {
  const int calls = ForEveryCall([&](int at) {
    Reset();
    CallCounter counter;
    counter.at = at;
    counter.strike = [](const auto&) -> absl::Status { throw Crash(); };
    CheckpointStore store(folder(), 1, kKeepTwo, {}, counter.Operations());
    try {
      EXPECT_TRUE(CommitSample(store, 3).ok());
      return false;
    } catch (const Crash&) {
      const int64_t loaded = Recover(2);
      EXPECT_EQ(loaded, at <= 6 ? 2 : 3);
      return true;
    }
  });
  EXPECT_EQ(calls, 12);
}

TEST_F(CrashTest, StoppingAfterAnyCallLeavesTheOldOrTheNewOne) {
  const int calls = ForEveryCall([&](int at) {
    Reset();
    CallCounter counter;
    counter.at = at;
    counter.strike = [](const auto& real) -> absl::Status {
      EXPECT_TRUE(real().ok());
      throw Crash();
    };
    CheckpointStore store(folder(), 1, kKeepTwo, {}, counter.Operations());
    try {
      EXPECT_TRUE(CommitSample(store, 3).ok());
      return false;
    } catch (const Crash&) {
      EXPECT_EQ(Recover(2), at < 6 ? 2 : 3);
      return true;
    }
  });
  EXPECT_EQ(calls, 12);
}

TEST_F(CrashTest, StoppingInTheMiddleOfAFileLeavesTheOldOne) {
  for (int at = 1; at <= 4; ++at) {
    Reset();
    CallCounter counter;
    counter.at = at;
    counter.half_written = true;
    counter.strike = [](const auto&) -> absl::Status { throw Crash(); };
    CheckpointStore store(folder(), 1, kKeepTwo, {}, counter.Operations());
    EXPECT_THROW(CommitSample(store, 3).IgnoreError(), Crash);
    EXPECT_EQ(Recover(2), 2);
  }
}

TEST_F(CrashTest, StoppingInTheMiddleOfADeletionLeavesNoHalfCheckpoint) {
  CallCounter counter;
  counter.at = 11;  // The removal of the pruned folder.
  counter.strike = [&](const auto&) -> absl::Status {
    fs::remove(folder() / "step-000000001.tmp-1-old" / "weights.safetensors");
    throw Crash();
  };
  CheckpointStore store(folder(), 1, kKeepTwo, {}, counter.Operations());
  EXPECT_THROW(CommitSample(store, 3).IgnoreError(), Crash);
  EXPECT_EQ(Recover(3), 3);
}

// The power fails before the folder is synced: the kernel may have kept the rename or not.
TEST_F(CrashTest, AnUnsyncedRenameThatIsLostLeavesTheOldOne) {
  CallCounter counter;
  counter.at = 7;
  counter.strike = [&](const auto&) -> absl::Status {
    fs::rename(folder() / "step-000000003", folder() / "step-000000003.tmp-1");
    throw Crash();
  };
  CheckpointStore store(folder(), 1, kKeepTwo, {}, counter.Operations());
  EXPECT_THROW(CommitSample(store, 3).IgnoreError(), Crash);
  EXPECT_EQ(Recover(2), 2);
}

TEST_F(CrashTest, EveryFailingCallReportsItAndLeavesTheOthersAsTheyWere) {
  struct Trouble {
    int error;
    absl::StatusCode code;
  };
  for (const Trouble trouble : {Trouble{ENOSPC, absl::StatusCode::kResourceExhausted},
                                Trouble{EIO, absl::StatusCode::kDataLoss}}) {
    const int calls = ForEveryCall([&](int at) {
      Reset();
      CallCounter counter;
      counter.at = at;
      counter.half_written = true;
      counter.strike = [&](const auto&) { return FileError(trouble.error, "call", "/the/path"); };
      CheckpointStore store(folder(), 1, kKeepTwo, {}, counter.Operations());
      const absl::Status status = CommitSample(store, 3);
      const bool struck = counter.calls > at;
      if (struck && at < 8) {
        EXPECT_EQ(status.code(), trouble.code) << status;
        EXPECT_THAT(std::string(status.message()), HasSubstr("/the/path"));
        EXPECT_THAT(NamesIn(folder()), ElementsAre("step-000000001", "step-000000002"));
        EXPECT_EQ(Recover(2), 2);
        // With the trouble gone the same store goes on.
        EXPECT_TRUE(CommitSample(store, 3).ok());
      } else {
        // Trouble with deleting is no trouble with the checkpoint.
        EXPECT_TRUE(status.ok()) << status;
      }
      EXPECT_EQ(Recover(3), 3);
      return struck;
    });
    EXPECT_EQ(calls, 12);
  }
}

TEST_F(CrashTest, AFailedFsyncIsNeverTriedAgainOnTheSameFiles) {
  CallCounter counter;
  counter.at = 5;
  counter.strike = [](const auto&) { return absl::DataLossError("fsync"); };
  CheckpointStore store(folder(), 1, kKeepTwo, {}, counter.Operations());
  EXPECT_TRUE(absl::IsDataLoss(CommitSample(store, 3)));
  EXPECT_THAT(counter.log.back(), "remove_all step-000000003.tmp-1");
  EXPECT_EQ(std::count(counter.log.begin(), counter.log.end(), "sync_folder step-000000003.tmp-1"),
            1);
}

TEST_F(CrashTest, EveryCallOfReplacingADamagedOneMayFail) {
  const int calls = ForEveryCall([&](int at) {
    Reset();
    WriteAll(folder() / "step-000000002" / "weights.safetensors", "damaged");
    CallCounter counter;
    counter.at = at;
    counter.strike = [](const auto&) { return absl::DataLossError("trouble"); };
    CheckpointStore store(folder(), 1, kKeepTwo, {}, counter.Operations());
    const absl::Status status = CommitSample(store, 2);
    if (!status.ok()) {
      EXPECT_EQ(ReadAll(folder() / "step-000000002" / "weights.safetensors"), "damaged");
      EXPECT_TRUE(store.Verify(folder() / "step-000000001").ok());
    } else {
      EXPECT_EQ(Recover(2), 2);
    }
    return counter.calls > at;
  });
  EXPECT_EQ(calls, 11);
}

// A real process, killed at a random moment while it commits one checkpoint after another. It tells
// through a pipe which step was acknowledged.
TEST_F(CrashTest, KilledAtAnyMomentNoAcknowledgedCheckpointIsLost) {
  std::mt19937_64 random(std::random_device{}());
  int64_t acknowledged_in_all = 0;
  for (int round = 0; round < 20 && !HasFailure(); ++round) {
    Reset();
    std::array<int, 2> pipe_ends{};
    ASSERT_EQ(::pipe2(pipe_ends.data(), O_CLOEXEC), 0);
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      CheckpointStore store(folder(), 1, kKeepTwo);
      for (int64_t step = 3;; ++step) {
        if (!CommitSample(store, step).ok()) ::_exit(1);
        if (::write(pipe_ends[1], &step, sizeof(step)) != sizeof(step)) ::_exit(2);
      }
    }
    ::close(pipe_ends[1]);
    int64_t acknowledged = 2;
    // The first acknowledgement starts the clock, so that the blow falls among commits.
    ASSERT_EQ(::read(pipe_ends[0], &acknowledged, sizeof(acknowledged)),
              static_cast<ssize_t>(sizeof(acknowledged)));
    const timespec moment{0, static_cast<long>(random() % 20'000'000)};
    ::nanosleep(&moment, nullptr);
    ASSERT_EQ(::kill(child, SIGKILL), 0);
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    EXPECT_TRUE(WIFSIGNALED(status)) << "the child ended by itself";
    while (::read(pipe_ends[0], &acknowledged, sizeof(acknowledged)) > 0) {
    }
    ::close(pipe_ends[0]);
    const int64_t loaded = Recover(acknowledged);
    EXPECT_LE(loaded, acknowledged + 1);
    acknowledged_in_all += acknowledged - 2;
  }
  EXPECT_GE(acknowledged_in_all, 20);
}

}  // namespace
}  // namespace lockstep::trainer
