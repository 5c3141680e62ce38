#include <gtest/gtest.h>

#include <chrono>
#include <cstdlib>

#include "tests/trainer/comm/communicator_contract.h"
#include "trainer/comm/world.h"

namespace lockstep::trainer {
namespace {

// As on a machine without mpirun: nothing on PATH, nothing in the environment.
class WorldAloneTest : public ::testing::Test {
 protected:
  void SetUp() override {
    for (const char* name : {"OMPI_COMM_WORLD_SIZE", "PMIX_RANK", "PMI_RANK"}) unsetenv(name);
    setenv("PATH", "/nowhere", 1);
  }
};

TEST_F(WorldAloneTest, IsAWorldOfOneAtOnce) {
  const auto start = std::chrono::steady_clock::now();
  const World world(nullptr, nullptr);
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(1));
  EXPECT_EQ(world.rank(), 0);
  EXPECT_EQ(world.size(), 1);
  EXPECT_EQ(world.local_rank(), 0);
  EXPECT_EQ(world.ranks_on_host(), 1);
  EXPECT_EQ(world.BroadcastText("text", 0), "text");
  EXPECT_EQ(world.GatherTexts("text"), std::vector<std::string>{"text"});
  EXPECT_EQ(world.AllGather(7), std::vector<int64_t>{7});
}

TEST_F(WorldAloneTest, CommunicatorOfOneKeepsTheContract) {
  const World world(nullptr, nullptr);
  const auto cpu = OpenCpu();
  const auto communicator = world.MakeCommunicator(*cpu, std::chrono::seconds(10));
  contract::SumsAnyTensor<float>(*communicator, at::kFloat);
  contract::SumsAllocatedMemory(*communicator);
  contract::BroadcastsFromEveryRoot(*communicator);
  contract::AbortWakesEveryone(*communicator);
}

TEST_F(WorldAloneTest, AbortEndsTheProcessWithTheCode) {
  EXPECT_EXIT(World(nullptr, nullptr).Abort(17), ::testing::ExitedWithCode(17), "");
}

}  // namespace
}  // namespace lockstep::trainer
