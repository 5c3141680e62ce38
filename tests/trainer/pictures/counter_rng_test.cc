#include "trainer/pictures/counter_rng.h"

#include <gtest/gtest.h>

#include <array>
#include <set>
#include <vector>

namespace lockstep::trainer {
namespace {

// From the known-answer file that the algorithm's authors publish with Random123.
TEST(CounterRng, PhiloxGivesThePublishedAnswers) {
  EXPECT_EQ(Philox({0, 0, 0, 0}, {0, 0}),
            (PhiloxBlock{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(Philox({~0u, ~0u, ~0u, ~0u}, {~0u, ~0u}),
            (PhiloxBlock{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(Philox({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (PhiloxBlock{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(CounterRng, EveryPartOfTheAddressChangesTheStream) {
  const auto first = [](uint64_t seed, RandomPurpose purpose, uint32_t a, uint32_t b) {
    return CounterRng(seed, purpose, a, b).Next();
  };
  const std::set<uint32_t> numbers = {
      first(1, RandomPurpose::kAugment, 0, 0), first(1ull << 32, RandomPurpose::kAugment, 0, 0),
      first(1, RandomPurpose::kSampleOrder, 0, 0), first(1, RandomPurpose::kAugment, 1, 0),
      first(1, RandomPurpose::kAugment, 0, 1)};
  EXPECT_EQ(numbers.size(), 5u);
}

TEST(CounterRng, BelowReachesEveryNumberAboutEquallyOften) {
  CounterRng rng(7, RandomPurpose::kAugment);
  constexpr uint32_t kBound = 7;
  std::array<int, kBound> counts{};
  for (int i = 0; i < 70000; ++i) {
    const uint32_t number = rng.Below(kBound);
    ASSERT_LT(number, kBound);
    ++counts[number];
  }
  // 10,000 expected, standard deviation 93: five of them.
  for (const int count : counts) EXPECT_NEAR(count, 10000, 465);
}

TEST(CounterRng, BelowOneIsZeroAndBelowTheLargestBoundStaysBelow) {
  CounterRng rng(7, RandomPurpose::kAugment);
  for (int i = 0; i < 100; ++i) {
    EXPECT_EQ(rng.Below(1), 0u);
    EXPECT_LT(rng.Below(0xFFFFFFFF), 0xFFFFFFFF);
  }
}

TEST(CounterRng, UniformStaysInRangeAndCentres) {
  CounterRng rng(3, RandomPurpose::kAugment);
  double sum = 0;
  for (int i = 0; i < 10000; ++i) {
    const float value = rng.Uniform(-1.0f, 3.0f);
    ASSERT_GE(value, -1.0f);
    ASSERT_LT(value, 3.0f);
    sum += value;
  }
  EXPECT_NEAR(sum / 10000, 1.0, 0.06);  // Standard deviation of the mean: 0.012.
}

}  // namespace
}  // namespace lockstep::trainer
