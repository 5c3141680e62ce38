#include "trainer/comm/threads.h"

#include <latch>

#include "tests/trainer/comm/communicator_contract.h"
#include "tests/trainer/comm/run_ranks.h"

namespace lockstep::trainer {
namespace {

class ThreadsTest : public ::testing::TestWithParam<int> {
 protected:
  int world_size() const { return GetParam(); }
};

TEST_P(ThreadsTest, SumsFloat32InRankOrder) {
  RunRanks(world_size(), [](Communicator& c) { contract::SumsAnyTensor<float>(c, at::kFloat); });
}

TEST_P(ThreadsTest, SumsFloat64InRankOrder) {
  RunRanks(world_size(), [](Communicator& c) { contract::SumsAnyTensor<double>(c, at::kDouble); });
}

TEST_P(ThreadsTest, SumsInt64) {
  RunRanks(world_size(), [](Communicator& c) { contract::SumsAnyTensor<int64_t>(c, at::kLong); });
}

TEST_P(ThreadsTest, SumsAllocatedMemory) {
  RunRanks(world_size(), [](Communicator& c) { contract::SumsAllocatedMemory(c); });
}

TEST_P(ThreadsTest, BroadcastsFromEveryRoot) {
  RunRanks(world_size(), [](Communicator& c) { contract::BroadcastsFromEveryRoot(c); });
}

TEST_P(ThreadsTest, RefusesWhatItCannotSum) {
  RunRanks(world_size(), [](Communicator& c) { contract::RefusesWhatItCannotSum(c); });
}

TEST_P(ThreadsTest, RepeatsTheSameBits) {
  RunRanks(world_size(), [](Communicator& c) { contract::RepeatsTheSameBits(c); });
}

TEST_P(ThreadsTest, NamesTheRankThatNeverArrives) {
  if (world_size() == 1) GTEST_SKIP() << "a world of one waits for nobody";
  const std::chrono::milliseconds deadline(400);
  std::latch others(world_size());
  RunRanks(
      world_size(),
      [&](Communicator& c) {
        contract::NamesTheRankThatNeverArrives(c, deadline, [&] { others.arrive_and_wait(); });
      },
      deadline);
}

TEST_P(ThreadsTest, AbortWakesEveryone) {
  RunRanks(world_size(), [](Communicator& c) { contract::AbortWakesEveryone(c); });
}

TEST_P(ThreadsTest, TellsRanksThatWentDifferentWays) {
  if (world_size() == 1) GTEST_SKIP() << "a world of one cannot disagree";
  RunRanks(world_size(), [](Communicator& c) { contract::TellsRanksThatWentDifferentWays(c); });
}

INSTANTIATE_TEST_SUITE_P(Worlds, ThreadsTest, ::testing::Values(1, 2, 3, 4, 7));

TEST(ThreadsMemoryTest, OutlivesTheCommunicator) {
  at::Tensor memory = MakeThreadCommunicators(1)[0]->Allocate(1000);
  memory.fill_(2.0f);
  EXPECT_EQ(memory.sum().item<float>(), 2000.0f);
}

}  // namespace
}  // namespace lockstep::trainer
