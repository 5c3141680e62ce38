// The store as its user sees it: what is kept, found, refused and deleted.
#include "trainer/checkpoint/store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>

#include "tests/trainer/checkpoint/checkpoint_fixture.h"

namespace lockstep::trainer {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr Retention kKeepAll{.keep_last = 1000, .keep_best = 0};

class StoreTest : public ::testing::Test {
 protected:
  CheckpointStore Store(Retention retention = kKeepAll,
                        std::function<absl::Status()> may_commit = {}) {
    return {folder(), 3, retention, std::move(may_commit)};
  }
  fs::path folder() const { return temp_.path() / "checkpoints"; }

  static void Commit(CheckpointStore& store, int64_t step, std::optional<double> metric = {}) {
    const SampleContents contents(step);
    const absl::Status status = store.Commit(step, contents.View(), metric);
    ASSERT_TRUE(status.ok()) << status;
  }

  static std::vector<int64_t> Steps(const CheckpointStore& store) {
    std::vector<int64_t> steps;
    const auto list = store.List();
    EXPECT_TRUE(list.ok()) << list.status();
    for (const CheckpointInfo& info : *list) steps.push_back(info.step);
    return steps;
  }

  TempFolder temp_;
};

TEST_F(StoreTest, WhatIsCommittedIsLoadedBitForBit) {
  CheckpointStore store = Store();
  ASSERT_TRUE(store.Open().ok());
  Commit(store, 120, 0.5);
  std::vector<std::string> refused;
  const auto loaded = store.LoadNewestGood(refused);
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_THAT(refused, IsEmpty());
  EXPECT_TRUE(IsWhole(*loaded));
  EXPECT_EQ(loaded->info.step, 120);
  EXPECT_EQ(loaded->info.metric, 0.5);
  EXPECT_FALSE(loaded->info.pinned);
  EXPECT_EQ(loaded->weights.metadata.at("lockstep_step"), "120");
}

TEST_F(StoreTest, TheFolderIsAsDocumented) {
  CheckpointStore store = Store();
  ASSERT_TRUE(store.Open().ok());
  Commit(store, 123);
  EXPECT_THAT(NamesIn(folder()), ElementsAre("step-000000123"));
  const fs::path path = store.PathOf(123);
  EXPECT_THAT(NamesIn(path), ElementsAre("manifest.json", "optimizer.safetensors", "state.json",
                                         "weights.safetensors"));
  const auto manifest = nlohmann::json::parse(ReadAll(path / "manifest.json"));
  EXPECT_EQ(manifest["format"], "lockstep-checkpoint");
  EXPECT_EQ(manifest["format_version"], 1);
  EXPECT_EQ(manifest["step"], 123);
  EXPECT_EQ(manifest["files"]["state.json"]["size"], fs::file_size(path / "state.json"));
  EXPECT_EQ(manifest["files"]["weights.safetensors"]["xxh3_128"].get<std::string>().size(), 32u);
}

// What other programs count on: 8 bytes of length, JSON, and every tensor aligned to its elements.
TEST_F(StoreTest, TensorsAreAlignedToTheirElementsWhateverOrderTheyCameIn) {
  CheckpointStore store = Store();
  ASSERT_TRUE(store.Open().ok());
  const std::vector<std::byte> bytes(64);
  const auto first = [&](size_t n) { return std::span(bytes).first(n); };
  const CheckpointContents contents{{{"u8", "U8", {3}, first(3)},
                                     {"f32", "F32", {1}, first(4)},
                                     {"bf16", "BF16", {3}, first(6)},
                                     {"i64", "I64", {2}, first(16)}},
                                    {},
                                    "{}"};
  ASSERT_TRUE(store.Commit(1, contents, {}).ok());
  const std::string file = ReadAll(store.PathOf(1) / "weights.safetensors");
  uint64_t length = 0;
  std::memcpy(&length, file.data(), 8);
  EXPECT_EQ((8 + length) % 64, 0u);
  const auto header = nlohmann::json::parse(file.substr(8, length));
  EXPECT_THAT(header["i64"]["data_offsets"], ElementsAre(0, 16));
  EXPECT_THAT(header["f32"]["data_offsets"], ElementsAre(16, 20));
  EXPECT_THAT(header["bf16"]["data_offsets"], ElementsAre(20, 26));
  EXPECT_THAT(header["u8"]["data_offsets"], ElementsAre(26, 29));
}

TEST_F(StoreTest, WithNothingThereTheAnswerIsNotFound) {
  CheckpointStore store = Store();
  std::vector<std::string> refused;
  EXPECT_TRUE(absl::IsNotFound(store.LoadNewestGood(refused).status()));
  ASSERT_TRUE(store.Open().ok());
  EXPECT_TRUE(absl::IsNotFound(store.LoadNewestGood(refused).status()));
  EXPECT_TRUE(absl::IsNotFound(store.Verify(store.PathOf(1))));
  EXPECT_THAT(Steps(store), IsEmpty());
}

TEST_F(StoreTest, ListIsOldestFirstAlsoBeyondNineDigits) {
  CheckpointStore store = Store();
  ASSERT_TRUE(store.Open().ok());
  for (const int64_t step : {int64_t{12'345'678'901}, int64_t{5}, int64_t{999'999'999}}) {
    Commit(store, step);
  }
  EXPECT_THAT(Steps(store), ElementsAre(5, 999'999'999, 12'345'678'901));
  EXPECT_EQ(store.PathOf(12'345'678'901).filename(), "step-12345678901");
}

TEST_F(StoreTest, ForeignNamesAreLeftAlone) {
  CheckpointStore store = Store({.keep_last = 1, .keep_best = 0});
  ASSERT_TRUE(store.Open().ok());
  for (const char* name : {"step-5", "step-0000000000005", "step-00000000x", "notes",
                           "step-000000005.bak", "x.tmp-1", "step-5.tmp-1"}) {
    fs::create_directory(folder() / name);
  }
  ASSERT_TRUE(store.Open().ok());
  Commit(store, 6);
  EXPECT_THAT(Steps(store), ElementsAre(6));
  EXPECT_EQ(NamesIn(folder()).size(), 8u);
}

TEST_F(StoreTest, OpenRemovesWhatAnyAttemptLeft) {
  CheckpointStore store = Store();
  ASSERT_TRUE(store.Open().ok());
  Commit(store, 1);
  for (const char* name :
       {"step-000000002.tmp-1", "step-000000002.tmp-3", "step-000000001.tmp-2-old"}) {
    fs::create_directory(folder() / name);
    WriteAll(folder() / name / "weights.safetensors", "half");
  }
  ASSERT_TRUE(store.Open().ok());
  EXPECT_THAT(NamesIn(folder()), ElementsAre("step-000000001"));
}

TEST_F(StoreTest, AGoodCheckpointOfTheSameStepIsKeptAsItIs) {
  CheckpointStore store = Store();
  ASSERT_TRUE(store.Open().ok());
  Commit(store, 7, 0.25);
  const std::string manifest = ReadAll(store.PathOf(7) / "manifest.json");
  const SampleContents other(8);
  EXPECT_TRUE(store.Commit(7, other.View(), 0.75).ok());
  EXPECT_EQ(ReadAll(store.PathOf(7) / "manifest.json"), manifest);
}

TEST_F(StoreTest, ADamagedCheckpointOfTheSameStepIsReplaced) {
  CheckpointStore store = Store();
  ASSERT_TRUE(store.Open().ok());
  Commit(store, 7);
  WriteAll(store.PathOf(7) / "weights.safetensors", "gone");
  ASSERT_TRUE(absl::IsDataLoss(store.Verify(store.PathOf(7))));
  Commit(store, 7);
  EXPECT_TRUE(store.Verify(store.PathOf(7)).ok());
  EXPECT_THAT(NamesIn(folder()), ElementsAre("step-000000007"));
}

TEST_F(StoreTest, AFencedCommitIsAbortedAndNothingIsVisible) {
  CheckpointStore first = Store();
  ASSERT_TRUE(first.Open().ok());
  Commit(first, 1);
  bool asked_before_rename = false;
  CheckpointStore fenced = Store(kKeepAll, [&] {
    asked_before_rename = fs::exists(folder() / "step-000000002.tmp-3" / "manifest.json") &&
                          !fs::exists(folder() / "step-000000002");
    return absl::FailedPreconditionError("attempt 4 has begun");
  });
  const SampleContents contents(2);
  const absl::Status status = fenced.Commit(2, contents.View(), {});
  EXPECT_TRUE(absl::IsAborted(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("attempt 4 has begun"));
  EXPECT_TRUE(asked_before_rename);
  EXPECT_THAT(NamesIn(folder()), ElementsAre("step-000000001"));
}

TEST_F(StoreTest, RefusesContentsThatNobodyCouldLoad) {
  CheckpointStore store = Store();
  ASSERT_TRUE(store.Open().ok());
  const std::vector<std::byte> bytes(8);
  const CheckpointContents wrong{{{"w", "F32", {3}, bytes}}, {}, "{}"};
  EXPECT_TRUE(absl::IsInvalidArgument(store.Commit(1, wrong, {})));
  EXPECT_TRUE(absl::IsInvalidArgument(store.Commit(-1, {}, {})));
  EXPECT_THAT(NamesIn(folder()), IsEmpty());
}

TEST_F(StoreTest, KeepsTheNewest) {
  CheckpointStore store = Store({.keep_last = 2, .keep_best = 0});
  ASSERT_TRUE(store.Open().ok());
  for (int64_t step = 10; step <= 50; step += 10) Commit(store, step);
  EXPECT_THAT(Steps(store), ElementsAre(40, 50));
  EXPECT_THAT(NamesIn(folder()), ElementsAre("step-000000040", "step-000000050"));
}

TEST_F(StoreTest, NeverDeletesTheNewestWhateverTheRuleSays) {
  CheckpointStore store = Store({.keep_last = 0, .keep_best = 0});
  ASSERT_TRUE(store.Open().ok());
  Commit(store, 1);
  Commit(store, 2);
  EXPECT_THAT(Steps(store), ElementsAre(2));
}

TEST_F(StoreTest, KeepsTheBestWhenHigherIsBetter) {
  CheckpointStore store = Store({.keep_last = 1, .keep_best = 2, .higher_is_better = true});
  ASSERT_TRUE(store.Open().ok());
  const double metrics[] = {0.5, 0.9, 0.7, 0.9, 0.1};
  for (int i = 0; i < 5; ++i) Commit(store, i + 1, metrics[i]);
  EXPECT_THAT(Steps(store), ElementsAre(2, 4, 5));
  Commit(store, 6, 0.9);  // No better than the two that are kept: of equal ones the earlier stay.
  Commit(store, 7, 0.2);
  EXPECT_THAT(Steps(store), ElementsAre(2, 4, 7));
}

TEST_F(StoreTest, KeepsTheBestWhenLowerIsBetter) {
  CheckpointStore store = Store({.keep_last = 1, .keep_best = 1, .higher_is_better = false});
  ASSERT_TRUE(store.Open().ok());
  const double metrics[] = {2.5, 0.4, 0.7, 1.5};
  for (int i = 0; i < 4; ++i) Commit(store, i + 1, metrics[i]);
  EXPECT_THAT(Steps(store), ElementsAre(2, 4));
}

TEST_F(StoreTest, OneWithoutAFiniteMetricIsNeverBest) {
  CheckpointStore store = Store({.keep_last = 1, .keep_best = 1, .higher_is_better = true});
  ASSERT_TRUE(store.Open().ok());
  Commit(store, 1, 0.1);
  Commit(store, 2, std::numeric_limits<double>::quiet_NaN());
  Commit(store, 3, std::numeric_limits<double>::infinity());
  Commit(store, 4);
  Commit(store, 5);
  EXPECT_THAT(Steps(store), ElementsAre(1, 5));
}

TEST_F(StoreTest, KeepsThePinned) {
  CheckpointStore store = Store({.keep_last = 1, .keep_best = 0});
  ASSERT_TRUE(store.Open().ok());
  Commit(store, 1);
  WriteAll(store.PathOf(1) / "pinned", "");
  Commit(store, 2);
  Commit(store, 3);
  EXPECT_THAT(Steps(store), ElementsAre(1, 3));
  EXPECT_TRUE(store.List()->front().pinned);
  EXPECT_TRUE(store.Verify(store.PathOf(1)).ok());
  fs::remove(store.PathOf(1) / "pinned");
  ASSERT_TRUE(store.Prune().ok());
  EXPECT_THAT(Steps(store), ElementsAre(3));
}

TEST_F(StoreTest, ADamagedManifestNeitherCountsNorIsDeleted) {
  CheckpointStore store = Store({.keep_last = 2, .keep_best = 0});
  ASSERT_TRUE(store.Open().ok());
  Commit(store, 1);
  Commit(store, 2);
  WriteAll(store.PathOf(2) / "manifest.json", "{}");
  Commit(store, 3);
  Commit(store, 4);
  EXPECT_THAT(Steps(store), ElementsAre(3, 4));
  EXPECT_TRUE(fs::exists(store.PathOf(2)));
}

// A file system of its own that is too small: the kernel's ENOSPC, not a made-up one.
TEST_F(StoreTest, AFullDiskIsReportedAndLosesNothing) {
  const fs::path disk = temp_.path() / "disk";
  fs::create_directory(disk);
  constexpr size_t kDiskBytes = size_t{1} << 20;
  if (::mount("tmpfs", disk.c_str(), "tmpfs", MS_NOSUID | MS_NODEV, "size=1m") != 0) {
    GTEST_SKIP() << "mounting a tmpfs is not permitted here: " << std::strerror(errno);
  }
  struct Unmount {
    fs::path path;
    ~Unmount() { ::umount2(path.c_str(), MNT_DETACH); }
  } const unmount{disk};
  CheckpointStore store(disk / "checkpoints", 1, kKeepAll);
  ASSERT_TRUE(store.Open().ok());
  Commit(store, 1);

  // Twenty places across a checkpoint where the space ends.
  constexpr size_t kPart = size_t{96} << 10;
  const std::vector<std::byte> part(kPart);
  const CheckpointContents contents{
      {{"w", "U8", {kPart}, part}}, {{"m", "U8", {kPart}, part}}, "{}"};
  int refused = 0;
  for (int i = 0; i < 20; ++i) {
    const size_t left = kPart * 2 * static_cast<size_t>(i) / 18;
    const size_t used = 24u << 10;  // The first checkpoint, in pages.
    WriteAll(disk / "ballast", std::string(kDiskBytes - used - left, 'x'));
    const absl::Status status = store.Commit(2 + i, contents, {});
    if (!status.ok()) {
      ++refused;
      EXPECT_TRUE(absl::IsResourceExhausted(status)) << status;
      EXPECT_THAT(std::string(status.message()),
                  AllOf(HasSubstr("No space left on device"), HasSubstr(disk.string())));
      EXPECT_THAT(NamesIn(disk / "checkpoints"), ElementsAre("step-000000001"));
    } else {
      fs::remove_all(store.PathOf(2 + i));
    }
    std::vector<std::string> damaged;
    const auto loaded = store.LoadNewestGood(damaged);
    ASSERT_TRUE(loaded.ok()) << loaded.status();
    EXPECT_TRUE(IsWhole(*loaded));
    fs::remove(disk / "ballast");
  }
  EXPECT_GE(refused, 15);
  EXPECT_TRUE(store.Commit(100, contents, {}).ok()) << "with room again";
}

}  // namespace
}  // namespace lockstep::trainer
