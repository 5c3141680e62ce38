#include "trainer/affinity.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sched.h>

#include <numeric>
#include <set>

namespace lockstep::trainer {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

std::vector<int> Cores(int count) {
  std::vector<int> cores(count);
  std::iota(cores.begin(), cores.end(), 0);
  return cores;
}

TEST(AffinityTest, RanksThatFillTheHostShareNoCore) {
  for (const int ranks : {2, 3, 4, 7}) {
    for (const int threads : {1, 2, 5}) {
      // One core is over where there are more ranks than one: it still counts as full.
      const std::vector<int> all = Cores(ranks * threads + 1);
      std::set<int> taken;
      for (int rank = 0; rank < ranks; ++rank) {
        const Binding binding = ChooseBinding({rank, ranks, threads}, {all, all, 2});
        EXPECT_EQ(binding.cores.size(), static_cast<size_t>(threads));
        taken.insert(binding.cores.begin(), binding.cores.end());
      }
      EXPECT_EQ(taken.size(), static_cast<size_t>(ranks * threads)) << ranks << " x " << threads;
    }
  }
}

TEST(AffinityTest, CoresFollowTheHardwareOrderTheyAreGivenIn) {
  const std::vector<int> mine = {0, 1, 2, 3};
  const std::vector<int> siblings_adjacent = {0, 2, 1, 3};
  EXPECT_THAT(ChooseBinding({0, 2, 2}, {mine, siblings_adjacent, 2}).cores, ElementsAre(0, 2));
  EXPECT_THAT(ChooseBinding({1, 2, 2}, {mine, siblings_adjacent, 2}).cores, ElementsAre(1, 3));
}

TEST(AffinityTest, FreeCoresAreLeftToTheKernel) {
  const Binding binding = ChooseBinding({1, 2, 1}, {Cores(8), Cores(8)});
  EXPECT_EQ(binding.cores, Cores(8));
  EXPECT_EQ(binding.text, "left to the kernel");
}

TEST(AffinityTest, OnOnePackageAFullHostIsLeftToTheKernelToo) {
  const Binding binding = ChooseBinding({1, 2, 1}, {Cores(2), Cores(2), 1});
  EXPECT_EQ(binding.cores, Cores(2));
  EXPECT_EQ(binding.text, "left to the kernel");
}

TEST(AffinityTest, MoreThreadsThanCoresAreLeftToTheKernel) {
  EXPECT_EQ(ChooseBinding({3, 4, 1}, {Cores(2), Cores(2)}).cores, Cores(2));
}

TEST(AffinityTest, AMaskNarrowerThanTheThreadsIsWidened) {
  // mpirun -np 2 binds to a core each; the rank wants three threads of sixteen cores.
  const Binding binding = ChooseBinding({1, 2, 3}, {{1}, Cores(16)});
  EXPECT_EQ(binding.cores, Cores(16));
  EXPECT_THAT(binding.text, HasSubstr("widened to all 16 cores"));
}

TEST(AffinityTest, ANarrowMaskBecomesTheRanksOwnShareOfAFullHost) {
  const Binding binding = ChooseBinding({1, 2, 8}, {{1}, Cores(16), 2});
  EXPECT_THAT(binding.cores, ElementsAre(8, 9, 10, 11, 12, 13, 14, 15));
  EXPECT_EQ(binding.text, "each rank on its own 8 cores of 16");
}

TEST(AffinityTest, AMaskWideEnoughStaysAsItWasLaunched) {
  const Binding binding = ChooseBinding({1, 2, 1}, {{1}, Cores(2)});
  EXPECT_THAT(binding.cores, ElementsAre(1));
  EXPECT_EQ(binding.text, "as launched, 1 core a rank");
}

TEST(AffinityTest, OneRankKeepsEveryCore) {
  EXPECT_EQ(ChooseBinding({0, 1, 4}, {Cores(4), Cores(4)}).cores, Cores(4));
}

TEST(AffinityTest, AKernelThatTellsNothingChangesNothing) {
  EXPECT_TRUE(ChooseBinding({0, 2, 1}, {{}, {}}).cores.empty());
}

TEST(AffinityTest, AProcessThatNoLauncherStartedKeepsTheMaskOfItsUser) {
  cpu_set_t before;
  ASSERT_EQ(sched_getaffinity(0, sizeof(before), &before), 0);
  int first = 0;
  while (!CPU_ISSET(first, &before)) ++first;
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(first, &one);
  ASSERT_EQ(sched_setaffinity(0, sizeof(one), &one), 0);
  EXPECT_EQ(CoresOfHost(), 1);
  EXPECT_THAT(BindRank({0, 1, 4}).cores, ElementsAre(first));
  cpu_set_t after;
  ASSERT_EQ(sched_getaffinity(0, sizeof(after), &after), 0);
  EXPECT_TRUE(CPU_EQUAL(&after, &one));
  sched_setaffinity(0, sizeof(before), &before);
}

// As under mpirun: the parent may use every core, this process was bound to one.
TEST(AffinityTest, ALaunchersNarrowBindingIsUndoneForTheCallingThread) {
  cpu_set_t before;
  ASSERT_EQ(sched_getaffinity(0, sizeof(before), &before), 0);
  if (CPU_COUNT(&before) < 2) GTEST_SKIP() << "this host has one core";
  int first = 0;
  while (!CPU_ISSET(first, &before)) ++first;
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(first, &one);
  ASSERT_EQ(sched_setaffinity(0, sizeof(one), &one), 0);
  ASSERT_EQ(setenv("OMPI_COMM_WORLD_SIZE", "1", 1), 0);
  EXPECT_GE(CoresOfHost(), CPU_COUNT(&before));
  BindRank({0, 1, 2});
  unsetenv("OMPI_COMM_WORLD_SIZE");
  cpu_set_t after;
  ASSERT_EQ(sched_getaffinity(0, sizeof(after), &after), 0);
  EXPECT_GE(CPU_COUNT(&after), CPU_COUNT(&before));
  sched_setaffinity(0, sizeof(before), &before);
}

}  // namespace
}  // namespace lockstep::trainer
