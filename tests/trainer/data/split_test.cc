#include "trainer/data/split.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>
#include <vector>

#include "trainer/pictures/counter_rng.h"

namespace lockstep::trainer {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::vector<int64_t> Totals(const PartCounts& counts) {
  std::vector<int64_t> totals(counts.front().size());
  for (const auto& of_class : counts) {
    for (size_t part = 0; part < totals.size(); ++part) totals[part] += of_class[part];
  }
  return totals;
}

TEST(ShareOut, ThePartsAddUpExactlyToTheShares) {
  EXPECT_THAT(Totals(ShareOut({100, 90, 60}, {150, 50, 50})), ElementsAre(150, 50, 50));
  EXPECT_THAT(Totals(ShareOut({83, 84, 83}, {150, 50, 50})), ElementsAre(150, 50, 50));
  EXPECT_THAT(Totals(ShareOut(std::vector<int64_t>(25, 10), {150, 50, 50})),
              ElementsAre(150, 50, 50));
  EXPECT_THAT(Totals(ShareOut({33, 33, 34}, {80, 20})), ElementsAre(80, 20));
  EXPECT_THAT(Totals(ShareOut({10}, {0.7, 0.1, 0.2})), ElementsAre(7, 1, 2));
}

TEST(ShareOut, EveryClassGetsItsShareInEachPart) {
  EXPECT_THAT(ShareOut({100, 50, 10}, {80, 20}),
              ElementsAre(ElementsAre(80, 20), ElementsAre(40, 10), ElementsAre(8, 2)));
  EXPECT_THAT(ShareOut({3}, {90, 10}), ElementsAre(ElementsAre(2, 1)));
  EXPECT_THAT(ShareOut({2, 98}, {90, 10}), ElementsAre(ElementsAre(1, 1), ElementsAre(89, 9)));
  EXPECT_THAT(ShareOut({3}, {1000, 1, 1}), ElementsAre(ElementsAre(1, 1, 1)));
}

// For any counts and shares: nothing is lost, totals are the rounded shares, no part of a class is
// empty, none is far from its exact share.
TEST(ShareOut, HoldsItsPromisesForRandomCounts) {
  CounterRng rng(7, RandomPurpose::kSplit);
  for (int round = 0; round < 3000; ++round) {
    std::vector<double> shares;
    for (uint32_t i = 0; i < 2 + rng.Below(2); ++i) shares.push_back(1 + rng.Below(100));
    std::vector<int64_t> class_counts;
    for (uint32_t i = 0; i < 1 + rng.Below(30); ++i) class_counts.push_back(20 + rng.Below(500));
    const PartCounts counts = ShareOut(class_counts, shares);
    const double sum = std::accumulate(shares.begin(), shares.end(), 0.0);
    const int64_t all = std::accumulate(class_counts.begin(), class_counts.end(), int64_t{0});
    const std::vector<int64_t> totals = Totals(counts);
    bool moved = false;
    for (size_t c = 0; c < counts.size(); ++c) {
      ASSERT_EQ(std::accumulate(counts[c].begin(), counts[c].end(), int64_t{0}), class_counts[c]);
      for (size_t part = 0; part < shares.size(); ++part) {
        const double exact = static_cast<double>(class_counts[c]) * shares[part] / sum;
        ASSERT_GE(counts[c][part], 1);
        ASSERT_LT(std::abs(static_cast<double>(counts[c][part]) - exact), 3.0);
        moved |= exact < 1;
      }
    }
    for (size_t part = 0; part < shares.size() && !moved; ++part) {
      const double exact = static_cast<double>(all) * shares[part] / sum;
      ASSERT_LT(std::abs(static_cast<double>(totals[part]) - exact), 1.0);
    }
  }
}

struct Samples {
  std::vector<std::string> names;
  std::vector<uint32_t> labels;
};

Samples Some() {
  Samples samples;
  for (int i = 0; i < 100; ++i) {
    samples.names.push_back("p" + std::to_string(i % 50));
    samples.labels.push_back(static_cast<uint32_t>(i / 50));
  }
  return samples;
}

std::vector<uint8_t> PartsOf(const Samples& samples, uint64_t seed) {
  return SplitSamples({.names = samples.names,
                       .labels = samples.labels,
                       .classes = {"cat", "dog"},
                       .shares = {80, 20},
                       .seed = seed});
}

TEST(SplitSamples, TheOrderOfTheListDoesNotMatter) {
  Samples samples = Some();
  const std::vector<uint8_t> parts = PartsOf(samples, 3);
  EXPECT_EQ(std::count(parts.begin(), parts.begin() + 50, 1), 10);
  EXPECT_EQ(std::count(parts.begin() + 50, parts.end(), 1), 10);
  std::reverse(samples.names.begin(), samples.names.end());
  std::reverse(samples.labels.begin(), samples.labels.end());
  std::vector<uint8_t> reversed = PartsOf(samples, 3);
  std::reverse(reversed.begin(), reversed.end());
  EXPECT_EQ(reversed, parts);
  EXPECT_NE(PartsOf(Some(), 4), parts);
}

TEST(SplitSamples, AllClassesThatAreTooSmallAreNamed) {
  try {
    SplitSamples({.names = {"a", "b", "c", "d"},
                  .labels = {0, 1, 1, 2},
                  .classes = {"ant", "bee", "cow"},
                  .shares = {80, 20},
                  .seed = 1});
    FAIL() << "no error";
  } catch (const DataError& error) {
    EXPECT_THAT(error.what(), AllOf(HasSubstr("'ant' has 1"), HasSubstr("'cow' has 1"),
                                    testing::Not(HasSubstr("bee"))));
  }
}

}  // namespace
}  // namespace lockstep::trainer
