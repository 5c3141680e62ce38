#include "trainer/probe/measure.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <mutex>
#include <set>
#include <thread>

#include "trainer/comm/threads.h"
#include "trainer/data/input_file.h"
#include "trainer/pictures/picture.h"

namespace lockstep::trainer {
namespace {

TEST(MeasureTest, TheMiddleMeanLeavesOutStepsThatWereDisturbed) {
  EXPECT_NEAR(MiddleMean({1, 1.1, 0.9, 1, 1.05, 0.95, 50, 1}), 1.0, 0.03);
}

TEST(MeasureTest, TheMiddleMeanOfAlternatingStepsIsTheirMean) {
  // A loader with two threads: every other batch is there at once. A median would give 1 or 3.
  EXPECT_NEAR(MiddleMean({1, 3, 1, 3, 1, 3, 1, 3}), 2.0, 1e-12);
}

TEST(MeasureTest, FewValuesAreAllCounted) {
  EXPECT_EQ(MiddleMean({}), 0);
  EXPECT_EQ(MiddleMean({2}), 2);
  EXPECT_EQ(MiddleMean({2, 4}), 3);
}

TEST(MeasureTest, AllReducesAreTimedFromFourKibUpToTheGradient) {
  constexpr int kRanks = 2;
  std::vector<std::unique_ptr<Communicator>> ranks = MakeThreadCommunicators(kRanks);
  std::vector<std::vector<config::ProbedAllReduce>> timed(kRanks);
  {
    std::vector<std::jthread> threads;
    for (size_t rank = 0; rank < kRanks; ++rank) {
      threads.emplace_back([&, rank] {
        const std::unique_ptr<Device> device = OpenCpu();
        timed[rank] = TimeAllReduces(*ranks[rank], *device, 1 << 20);
      });
    }
  }
  for (const auto& one : timed) {
    ASSERT_EQ(one.size(), 4u);
    EXPECT_EQ(one[0].bytes, 4 << 10);
    EXPECT_EQ(one[1].bytes, 32 << 10);
    EXPECT_EQ(one[2].bytes, 256 << 10);
    EXPECT_EQ(one[3].bytes, 1 << 20);
    for (const auto& size : one) EXPECT_GT(size.seconds, 0);
  }
}

TEST(MeasureTest, OneRankTimesNoAllReduce) {
  const auto ranks = MakeThreadCommunicators(1);
  EXPECT_TRUE(TimeAllReduces(*ranks[0], *OpenCpu(), 1 << 20).empty());
}

// Pictures of 100 bytes in files; kept or not after the first look.
class Files final : public Dataset {
 public:
  Files(int64_t size, bool keeps) : size_(size), keeps_(keeps) {}
  int64_t size() const override { return size_; }
  int width() const override { return 1; }
  int height() const override { return 1; }
  int channels() const override { return 3; }
  const std::vector<std::string>& classes() const override { return classes_; }
  int64_t LabelOf(int64_t) const override { return 0; }
  std::vector<int64_t> ClassCounts() const override { return {size_}; }
  std::vector<int64_t> StoredRuns() const override { return {}; }
  std::string Fingerprint() const override { return "files"; }
  const Preprocessing& preprocessing() const override { std::abort(); }
  void Read(int64_t index, Sample&) const override {
    const std::lock_guard lock(mutex_);
    if (seen_.insert(index).second || !keeps_) CountInputBytes(100);
  }
  void ReadWhole(int64_t index, const PartOf&, Sample&) const override {
    if (index == 6) throw DataError("bad");
    const std::lock_guard lock(mutex_);
    whole_.insert(index);
  }
  size_t read() const { return seen_.size(); }
  size_t read_whole() const { return whole_.size(); }

 private:
  const int64_t size_;
  const bool keeps_;
  const std::vector<std::string> classes_ = {"picture"};
  mutable std::mutex mutex_;
  mutable std::set<int64_t> seen_;
  mutable std::set<int64_t> whole_;
};

TEST(MeasureTest, BytesOfASampleAreThoseOfItsFileAndNoneWhereItIsKept) {
  const SampleBytes read = ReadSamples(Files(1000, /*keeps=*/false));
  EXPECT_EQ(read.first, 100);
  EXPECT_EQ(read.again, 100);
  const SampleBytes kept = ReadSamples(Files(3, /*keeps=*/true));
  EXPECT_EQ(kept.first, 100);
  EXPECT_EQ(kept.again, 0);
}

TEST(MeasureTest, PicturesAreReadAheadAsTrainingReadsThem) {
  const Files files(6, /*keeps=*/true);
  ReadAhead(files, {}, 3);
  EXPECT_EQ(files.read(), 6u);
  EXPECT_EQ(files.read_whole(), 0u);
  ReadAhead(files, {.resized_crop = 0.5}, 3);
  EXPECT_EQ(files.read_whole(), 6u);
  EXPECT_THROW(ReadAhead(Files(7, true), {.resized_crop = 0.5}, 3), DataError);
}

TEST(MeasureTest, MemoryOfThisProcessAndHostIsRead) {
  EXPECT_GT(PeakHostBytes(), 1 << 20);
  EXPECT_GT(AvailableHostBytes(), 1 << 20);
}

}  // namespace
}  // namespace lockstep::trainer
