#include "trainer/tensorboard/event_log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>

#include <memory>
#include <random>

#include "tests/trainer/tensorboard/event_reader.h"

namespace lockstep::trainer {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using testing::SizeIs;

class EventLogTest : public testing::Test {
 protected:
  std::unique_ptr<EventLog> Open(const EventPosition& from, int64_t step) {
    return std::make_unique<EventLog>(
        events_, from, step, [this](const std::string& line) { warnings_.push_back(line); });
  }
  static void Add(EventLog& log, int64_t step) {
    Summary summary;
    summary.Scalar("loss", static_cast<double>(step));
    log.Add(step, summary);
  }

  TemporaryFolder folder_;
  std::filesystem::path events_ = folder_.path() / "tensorboard";
  std::vector<std::string> warnings_;
};

TEST_F(EventLogTest, WritesNothingWhereThereIsNothingToWrite) {
  Open({}, 0).reset();
  EXPECT_FALSE(std::filesystem::exists(events_));
  EXPECT_THAT(warnings_, IsEmpty());
}

TEST_F(EventLogTest, OpensEachFileWithItsVersionAndTheStartOfASession) {
  {
    auto log = Open({}, 0);
    EXPECT_TRUE(log->fresh());
    Add(*log, 1);
    EXPECT_FALSE(log->Flush().file.empty());
    EXPECT_FALSE(log->fresh());
  }
  const Events events = ReadEvents(events_);
  EXPECT_EQ(events.files, 1);
  EXPECT_EQ(events.versions, 1);
  EXPECT_THAT(events.starts, ElementsAre(0));
  EXPECT_THAT(events.Steps("loss"), ElementsAre(1));
  const std::string name = EventFilesOf(events_)[0].filename();
  EXPECT_THAT(name, testing::MatchesRegex("events.out.tfevents.[0-9]+..+.[0-9]+.0"));
}

TEST_F(EventLogTest, GoesOnFromTheCheckpointsPosition) {
  EventPosition saved;
  {
    auto log = Open({}, 0);
    Add(*log, 1);
    Add(*log, 2);
    saved = log->Flush();
    Add(*log, 3);
    Add(*log, 4);
  }
  EXPECT_THAT(ReadEvents(events_).Steps("loss"), ElementsAre(1, 2, 3, 4));
  {
    auto log = Open(saved, 2);
    EXPECT_THAT(ReadEvents(events_).Steps("loss"), ElementsAre(1, 2));
    EXPECT_EQ(log->Flush(), saved) << "a checkpoint before the first event knows the file before";
    Add(*log, 3);
  }
  const Events events = ReadEvents(events_);
  EXPECT_THAT(events.Steps("loss"), ElementsAre(1, 2, 3));
  EXPECT_THAT(events.starts, ElementsAre(0, 3));
  EXPECT_EQ(events.files, 2);
}

// A running TensorBoard stays for ever at a file that has gone.
TEST_F(EventLogTest, EmptiesFilesOfLaterAttemptsAndRemovesNone) {
  auto log = Open({}, 0);
  Add(*log, 1);
  const EventPosition saved = log->Flush();
  for (int attempt = 0; attempt < 3; ++attempt) {
    log.reset();
    log = Open(saved, 1);
    Add(*log, 2);
  }
  log.reset();
  const Events events = ReadEvents(events_);
  EXPECT_EQ(events.files, 4);
  EXPECT_EQ(events.versions, 2);
  EXPECT_THAT(events.Steps("loss"), ElementsAre(1, 2));
}

TEST_F(EventLogTest, BeginsAgainWhereNoCheckpointKnowsOfAnything) {
  auto log = Open({}, 0);
  Add(*log, 1);
  log.reset();
  log = Open({}, 0);
  EXPECT_TRUE(log->fresh());
  Add(*log, 1);
  log.reset();
  const Events events = ReadEvents(events_);
  EXPECT_THAT(events.Steps("loss"), ElementsAre(1));
  EXPECT_THAT(events.starts, ElementsAre(0));
}

// An attempt of the same second, or after the clock was set back, must not be read first.
TEST_F(EventLogTest, NamesSortInTheOrderOfTheAttempts) {
  std::filesystem::create_directories(events_);
  const std::string later = "events.out.tfevents.4102444800.host.1.0";  // In the year 2100.
  std::ofstream(events_ / later) << std::string(100, 'x');
  for (int64_t step = 1; step <= 3; ++step) {
    auto log = Open({later, 100}, step - 1);
    Add(*log, step);
    EXPECT_GT(log->Flush().file, later);
  }
  const auto files = EventFilesOf(events_);
  ASSERT_THAT(files, SizeIs(4));
  EXPECT_EQ(files[0].filename(), later);
  EXPECT_EQ(std::filesystem::file_size(files[0]), 100u) << "it is the checkpoint's";
  EXPECT_EQ(std::filesystem::file_size(files[1]), 0u);
  EXPECT_GT(std::filesystem::file_size(files[3]), 0u);
}

// Attempts that die at any moment, with and without having flushed, and fall back to older
// checkpoints: what is left is each step once, none missing.
TEST_F(EventLogTest, HoldsEachStepOnceHoweverOftenTheRunDies) {
  std::mt19937 random(11);
  struct Saved {
    EventPosition position;
    int64_t step = 0;
  };
  std::vector<Saved> checkpoints = {{}};
  for (int attempt = 0; attempt < 60; ++attempt) {
    if (checkpoints.size() > 2 && random() % 5 == 0) checkpoints.pop_back();  // A damaged one.
    const Saved from = checkpoints.back();
    auto log = Open(from.position, from.step);
    const int64_t last = from.step + static_cast<int64_t>(random() % 12);
    for (int64_t step = from.step + 1; step <= last; ++step) {
      Add(*log, step);
      if (random() % 4 == 0) checkpoints.push_back({log->Flush(), step});
    }
  }
  auto log = Open(checkpoints.back().position, checkpoints.back().step);
  const std::vector<int64_t> steps = ReadEvents(events_).Steps("loss");
  ASSERT_THAT(steps, SizeIs(checkpoints.back().step));
  EXPECT_GT(steps.size(), 50u);
  for (size_t i = 0; i < steps.size(); ++i) EXPECT_EQ(steps[i], static_cast<int64_t>(i) + 1);
}

TEST_F(EventLogTest, WarnsOnceAndGoesOnWhereNothingCanBeWritten) {
  std::ofstream(events_) << "a file in place of the folder";
  auto log = Open({}, 0);
  for (int64_t step = 1; step < 5; ++step) Add(*log, step);
  EXPECT_EQ(log->Flush(), EventPosition{});
  log->Sync();
  ASSERT_THAT(warnings_, SizeIs(1));
  EXPECT_THAT(warnings_[0], testing::HasSubstr("tensorboard"));
}

// A disk with room for what is there and `bytes` more. Of this process, so call it in one that
// ends.
void LeaveRoom(rlim_t bytes) {
  signal(SIGXFSZ, SIG_IGN);
  const rlimit limit = {bytes, RLIM_INFINITY};
  setrlimit(RLIMIT_FSIZE, &limit);
}

TEST_F(EventLogTest, KeepsThePointsOfAFullDiskUntilThereIsRoom) {
  const auto fill = [this] {
    auto log = Open({}, 0);
    Add(*log, 1);
    const EventPosition good = log->Flush();
    LeaveRoom(static_cast<rlim_t>(good.bytes) + 10);
    Add(*log, 2);
    if (log->Flush() != good) _exit(1);
    Add(*log, 3);
    if (log->Flush() != good) _exit(2);
    LeaveRoom(RLIM_INFINITY);
    Add(*log, 4);
    if (log->Flush() == good) _exit(3);
    log.reset();
    _exit(warnings_.size() == 1 ? 0 : 4);
  };
  EXPECT_EXIT(fill(), testing::ExitedWithCode(0), "");
  EXPECT_THAT(ReadEvents(events_).Steps("loss"), ElementsAre(1, 2, 3, 4));
}

TEST_F(EventLogTest, IsOffWhenTooMuchWaitsAndGoesOnWithTheNextAttempt) {
  const auto fill = [this] {
    auto log = Open({}, 0);
    Add(*log, 1);
    const EventPosition good = log->Flush();
    LeaveRoom(static_cast<rlim_t>(good.bytes));
    Summary large;
    large.Text("text", std::string(kMostWaitingBytes / 4, 'x'));
    for (int64_t step = 2; step < 12; ++step) log->Add(step, large);
    if (warnings_.size() != 2) _exit(1);
    LeaveRoom(RLIM_INFINITY);
    if (log->Flush() != good) _exit(2);
    log = Open(good, 11);
    Add(*log, 12);
    log.reset();
    _exit(warnings_.size() == 2 ? 0 : 3);
  };
  EXPECT_EXIT(fill(), testing::ExitedWithCode(0), "");
  EXPECT_THAT(ReadEvents(events_).Steps("loss"), ElementsAre(1, 12));
}

}  // namespace
}  // namespace lockstep::trainer
