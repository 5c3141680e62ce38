#include "trainer/comm/rendezvous.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <chrono>
#include <thread>
#include <vector>

namespace lockstep::trainer {
namespace {

// A process that ends without a word is noticed long before the deadline.
TEST(RendezvousTest, NamesAProcessThatIsGone) {
  signal(SIGCHLD, SIG_IGN);  // The kernel reaps the child, as mpirun would.
  void* memory = mmap(nullptr, Rendezvous::Bytes(2), PROT_READ | PROT_WRITE,
                      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(memory, MAP_FAILED);
  const auto options = [](int index) {
    return RendezvousOptions{.index = index,
                             .ranks = {0, 1},
                             .world_size = 2,
                             .deadline = std::chrono::minutes(10),
                             .processes = true};
  };
  if (fork() == 0) {
    Rendezvous child(memory, options(1));
    child.Begin({.kind = Collective::Kind::kBarrier});
    _exit(0);
  }
  Rendezvous parent(memory, options(0));
  parent.Begin({.kind = Collective::Kind::kBarrier});
  const auto start = std::chrono::steady_clock::now();
  try {
    parent.Begin({.kind = Collective::Kind::kAllReduce, .dtype = 6, .count = 10, .detail = 0});
    FAIL() << "waited for nobody";
  } catch (const CommunicatorLost& lost) {
    EXPECT_THAT(lost.what(), ::testing::HasSubstr("all-reduce of 10 Float"));
    EXPECT_THAT(lost.what(), ::testing::HasSubstr("rank 1 is gone"));
  }
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(10));
  munmap(memory, Rendezvous::Bytes(2));
}

TEST(RendezvousTest, KeepsALongReasonWithinItsBounds) {
  alignas(64) static char memory[4096] = {};
  ASSERT_LE(Rendezvous::Bytes(1), sizeof(memory));
  Rendezvous alone(memory, {.index = 0, .ranks = {0}});
  alone.Abort(std::string(5000, 'x'));
  try {
    alone.ThrowIfAborted();
    FAIL() << "not aborted";
  } catch (const CommunicatorLost& lost) {
    EXPECT_THAT(std::string(lost.what()).size(),
                ::testing::AllOf(::testing::Gt(500), ::testing::Lt(2000)));
  }
}

// Who looks while another rank is still writing the reason waits for the end of the sentence.
TEST(RendezvousTest, EveryRankIsToldTheWholeReason) {
  constexpr int kWatchers = 3;
  const std::string reason(900, 'x');
  for (int round = 0; round < 300; ++round) {
    alignas(64) char memory[8192] = {};
    ASSERT_LE(Rendezvous::Bytes(kWatchers + 1), sizeof(memory));
    std::string told[kWatchers];
    {
      std::vector<std::jthread> watchers;
      for (int index = 0; index < kWatchers; ++index) {
        watchers.emplace_back([&, index] {
          const Rendezvous rank(memory, {.index = index, .ranks = {0, 1, 2, 3}, .world_size = 4});
          try {
            while (true) rank.ThrowIfAborted();
          } catch (const CommunicatorLost& lost) {
            told[index] = lost.what();
          }
        });
      }
      Rendezvous(memory, {.index = 3, .ranks = {0, 1, 2, 3}, .world_size = 4}).Abort(reason);
    }
    for (const std::string& text : told) ASSERT_EQ(text, reason) << "round " << round;
  }
}

// As mpirun binds the ranks of a small world: each sees one core. What counts is that they are two.
bool SpinsBetweenTwoRanksBoundTo(int first, int second) {
  alignas(64) char memory[8192] = {};
  bool spins[2] = {};
  {
    std::vector<std::jthread> ranks;
    for (int index = 0; index < 2; ++index) {
      ranks.emplace_back([&, index] {
        cpu_set_t one;
        CPU_ZERO(&one);
        CPU_SET(index == 0 ? first : second, &one);
        sched_setaffinity(0, sizeof(one), &one);
        Rendezvous rank(memory, {.index = index, .ranks = {0, 1}, .world_size = 2});
        rank.Meet();
        spins[index] = rank.spins();
      });
    }
  }
  EXPECT_EQ(spins[0], spins[1]);
  return spins[0];
}

TEST(RendezvousTest, SpinsExactlyWhereEachRankHasACore) {
  ASSERT_LE(Rendezvous::Bytes(2), 8192u);
  cpu_set_t usable;
  ASSERT_EQ(sched_getaffinity(0, sizeof(usable), &usable), 0);
  std::vector<int> cores;
  for (int core = 0; core < CPU_SETSIZE; ++core) {
    if (CPU_ISSET(core, &usable)) cores.push_back(core);
  }
  EXPECT_FALSE(SpinsBetweenTwoRanksBoundTo(cores[0], cores[0]));
  if (cores.size() < 2) GTEST_SKIP() << "this host has one core";
  EXPECT_TRUE(SpinsBetweenTwoRanksBoundTo(cores[0], cores[1]));
}

}  // namespace
}  // namespace lockstep::trainer
