#include "trainer/probe/sampled_dataset.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace lockstep::trainer {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

// Label n is sample n; with views, view v of it is 1,000 v + n.
class Numbers final : public Dataset {
 public:
  Numbers(int64_t size, std::vector<int64_t> runs) : size_(size), runs_(std::move(runs)) {}
  int64_t size() const override { return size_; }
  int width() const override { return 1; }
  int height() const override { return 1; }
  int channels() const override { return 3; }
  const std::vector<std::string>& classes() const override { return classes_; }
  int64_t views() const override { return 2; }
  int64_t LabelOf(int64_t index) const override { return index % size_ + 1000 * (index / size_); }
  std::vector<int64_t> ClassCounts() const override { return {size_}; }
  std::vector<int64_t> StoredRuns() const override { return runs_; }
  std::string Fingerprint() const override { return "numbers"; }
  const Preprocessing& preprocessing() const override { std::abort(); }
  void Read(int64_t index, Sample& sample) const override { sample.label = LabelOf(index); }

 private:
  const int64_t size_;
  const std::vector<int64_t> runs_;
  const std::vector<std::string> classes_ = {"number"};
};

std::vector<int64_t> Labels(const SampledDataset& sampled) {
  std::vector<int64_t> labels;
  Sample sample;
  for (int64_t i = 0; i < sampled.size(); ++i) {
    sampled.Read(i, sample);
    EXPECT_EQ(sampled.LabelOf(i), sample.label);
    labels.push_back(sample.label);
  }
  return labels;
}

TEST(SampledDatasetTest, SamplesAreSpreadOverTheWhole) {
  const Numbers all(100, {});
  EXPECT_THAT(Labels(SampledDataset(all, 4)), ElementsAre(0, 25, 50, 75));
}

TEST(SampledDatasetTest, WhatIsStoredInRunsIsReadFromTheFirstOnes) {
  const Numbers all(100, {2, 50, 100});
  const SampledDataset sampled(all, 4);
  EXPECT_THAT(Labels(sampled), ElementsAre(0, 1, 2, 3));
  EXPECT_THAT(sampled.StoredRuns(), ElementsAre(2, 4));
}

TEST(SampledDatasetTest, ALargerSampleRepeatsTheData) {
  const Numbers all(3, {3});
  const SampledDataset sampled(all, 7);
  EXPECT_THAT(Labels(sampled), ElementsAre(0, 1, 2, 0, 1, 2, 0));
  EXPECT_THAT(sampled.StoredRuns(), IsEmpty());
}

TEST(SampledDatasetTest, ViewsStayViewsOfTheSameSample) {
  const Numbers all(100, {});
  const SampledDataset sampled(all, 4);
  EXPECT_EQ(sampled.LabelOf(1), 25);
  EXPECT_EQ(sampled.LabelOf(1 + 4), 1025);
}

TEST(SampledDatasetTest, NothingOfNothing) {
  const Numbers none(0, {});
  EXPECT_EQ(SampledDataset(none, 5).size(), 0);
  const Numbers all(10, {});
  EXPECT_EQ(SampledDataset(all, 0).size(), 0);
}

TEST(SampledDatasetTest, WeightsOfClassesAndCachesKnowWhatItIs) {
  const Numbers all(100, {});
  EXPECT_THAT(SampledDataset(all, 4).ClassCounts(), ElementsAre(100));
  EXPECT_NE(SampledDataset(all, 4).Fingerprint(), SampledDataset(all, 5).Fingerprint());
  EXPECT_NE(SampledDataset(all, 4).Fingerprint(), all.Fingerprint());
}

}  // namespace
}  // namespace lockstep::trainer
