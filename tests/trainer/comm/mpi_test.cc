// The communicator of processes and the world, run by ctest under mpirun with several numbers of
// ranks. Every rank runs every test; a rank that fails makes mpirun fail.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <mpi.h>

#include <chrono>
#include <cstdlib>

#include "tests/trainer/comm/communicator_contract.h"
#include "trainer/comm/shared_window.h"
#include "trainer/comm/world.h"

namespace lockstep::trainer {
namespace {

World* world = nullptr;

std::unique_ptr<Communicator> Make(SharedWindowOptions options = {}) {
  return MakeSharedWindowCommunicator(MPI_COMM_WORLD, options);
}

void WaitForOthers() {
  MPI_Barrier(MPI_COMM_WORLD);
}

TEST(SharedWindowTest, SumsEveryTypeInRankOrder) {
  const auto communicator = Make();
  contract::SumsAnyTensor<float>(*communicator, at::kFloat);
  contract::SumsAnyTensor<double>(*communicator, at::kDouble);
  contract::SumsAnyTensor<int64_t>(*communicator, at::kLong);
}

TEST(SharedWindowTest, SumsAllocatedMemory) {
  contract::SumsAllocatedMemory(*Make());
}

TEST(SharedWindowTest, BroadcastsFromEveryRoot) {
  contract::BroadcastsFromEveryRoot(*Make());
}

TEST(SharedWindowTest, RefusesWhatItCannotSum) {
  contract::RefusesWhatItCannotSum(*Make());
}

TEST(SharedWindowTest, RepeatsTheSameBits) {
  contract::RepeatsTheSameBits(*Make());
}

TEST(SharedWindowTest, NamesTheRankThatNeverArrives) {
  if (world->size() == 1) GTEST_SKIP() << "a world of one waits for nobody";
  const std::chrono::milliseconds deadline(500);
  contract::NamesTheRankThatNeverArrives(*Make({.deadline = deadline}), deadline, WaitForOthers);
}

TEST(SharedWindowTest, AbortWakesEveryone) {
  contract::AbortWakesEveryone(*Make());
}

TEST(SharedWindowTest, TellsRanksThatWentDifferentWays) {
  if (world->size() == 1) GTEST_SKIP() << "a world of one cannot disagree";
  contract::TellsRanksThatWentDifferentWays(*Make());
}

// More than this machine can have: every rank gets the same answer instead of a bus error later.
TEST(SharedWindowTest, RefusesMemoryThatIsNotThere) {
  const auto communicator = Make();
  const std::string text = contract::LostText([&] { communicator->Allocate(int64_t{1} << 58); });
  EXPECT_THAT(text, ::testing::HasSubstr("bytes among the ranks of this host"));
}

// Every two ranks play a host of their own, so the sums go over MPI as well.
class SeveralHostsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (world->size() < 3) GTEST_SKIP() << "two hosts of two need three ranks";
  }
  static constexpr int kRanksPerHost = 2;
};

TEST_F(SeveralHostsTest, SumToTheSameBitsEverywhere) {
  const auto communicator = Make({.ranks_per_host = kRanksPerHost});
  for (const int64_t size : contract::kSizes) {
    for (const at::Tensor& tensor : {at::zeros({size}), communicator->Allocate(size)}) {
      contract::FillTerms<float>(tensor, communicator->rank());
      communicator->AllReduce(tensor);
      for (int64_t i = 0; i < size; i += 101) {
        double sum = 0;
        for (int rank = 0; rank < world->size(); ++rank) {
          sum += static_cast<float>(contract::Term(rank, i));
        }
        // Terms of 1e7 cancel, so float32 leaves an error of some units.
        ASSERT_NEAR(tensor[i].item<float>(), sum, 8.0) << i;
      }
      const at::Tensor first = tensor.clone();
      communicator->Broadcast(first, 0);
      EXPECT_TRUE(first.equal(tensor)) << "rank 0 has other bits";
    }
  }
}

TEST_F(SeveralHostsTest, SumInt64Exactly) {
  const auto communicator = Make({.ranks_per_host = kRanksPerHost});
  contract::SumsAnyTensor<int64_t>(*communicator, at::kLong);
}

TEST_F(SeveralHostsTest, BroadcastFromEveryRoot) {
  contract::BroadcastsFromEveryRoot(*Make({.ranks_per_host = kRanksPerHost}));
}

TEST_F(SeveralHostsTest, NameTheHostThatNeverArrives) {
  const auto communicator =
      Make({.deadline = std::chrono::milliseconds(500), .ranks_per_host = kRanksPerHost});
  communicator->Barrier();
  if (communicator->rank() < kRanksPerHost) {
    const std::string text =
        contract::LostText([&] { communicator->AllReduce(at::zeros({12}, at::kFloat)); });
    EXPECT_THAT(text, ::testing::HasSubstr("host 1 (ranks 2"));
  }
  WaitForOthers();
}

TEST(WorldTest, BroadcastsText) {
  const int last = world->size() - 1;
  const std::string mine = "text of rank " + std::to_string(world->rank());
  EXPECT_EQ(world->BroadcastText(mine, last), "text of rank " + std::to_string(last));
  EXPECT_EQ(world->BroadcastText(world->rank() == 0 ? "" : "not empty", 0), "");
  const std::vector<std::string> texts = world->GatherTexts(mine);
  ASSERT_EQ(texts.size(), static_cast<size_t>(world->size()));
  for (int rank = 0; rank < world->size(); ++rank) {
    EXPECT_EQ(texts[static_cast<size_t>(rank)], "text of rank " + std::to_string(rank));
  }
}

TEST(WorldTest, GathersEveryRanksValue) {
  const std::vector<int64_t> values = world->AllGather(int64_t{1} << (33 + world->rank()));
  ASSERT_EQ(values.size(), static_cast<size_t>(world->size()));
  for (int rank = 0; rank < world->size(); ++rank)
    EXPECT_EQ(values[rank], int64_t{1} << (33 + rank));
}

TEST(WorldTest, KnowsItsHost) {
  EXPECT_EQ(world->ranks_on_host(), world->size());
  EXPECT_EQ(world->local_rank(), world->rank());
  EXPECT_FALSE(world->host().empty());
  EXPECT_EQ(std::to_string(world->size()), std::getenv("LOCKSTEP_TEST_WORLD_SIZE"));
}

TEST(WorldTest, MakesACommunicatorOfItsSize) {
  const auto cpu = OpenCpu();
  const auto communicator = world->MakeCommunicator(*cpu, std::chrono::seconds(60));
  EXPECT_EQ(communicator->rank(), world->rank());
  EXPECT_EQ(communicator->size(), world->size());
  contract::SumsAnyTensor<float>(*communicator, at::kFloat);
}

}  // namespace
}  // namespace lockstep::trainer

int main(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  lockstep::trainer::World world(&argc, &argv);
  lockstep::trainer::world = &world;
  return RUN_ALL_TESTS();
}
