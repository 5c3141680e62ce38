// Training by processes under mpirun: the same promise as data_parallel_test, with the arena's
// region in memory that processes share.
#include <gtest/gtest.h>

#include "tests/trainer/step/small_net.h"
#include "trainer/comm/threads.h"
#include "trainer/comm/world.h"
#include "trainer/step/replica_guard.h"

namespace lockstep::trainer {
namespace {

World* world = nullptr;

at::Tensor Train(Communicator& communicator, bool batch_norm) {
  ReplicaOptions options;
  options.batch_norm = batch_norm;
  options.optimizer.learning_rate = 0.05;
  options.optimizer.weight_decay = 1e-3;
  options.clip = 1.0;
  Replica replica(communicator, options);
  for (int64_t step = 0; step < 20; ++step) replica.Step(step);
  CheckReplicas(replica.arena, communicator, 20);
  return replica.arena.parameters().clone();
}

TEST(DataParallelMpiTest, ProcessesTrainAsOneRankOnTheWholeBatch) {
  const auto cpu = OpenCpu();
  const auto communicator = world->MakeCommunicator(*cpu, std::chrono::seconds(60));
  const at::Tensor shared = Train(*communicator, /*batch_norm=*/false);
  const auto alone = MakeThreadCommunicators(1);
  EXPECT_LE(RelativeDifference(shared, Train(*alone[0], /*batch_norm=*/false)), 1e-5);
}

TEST(DataParallelMpiTest, ProcessesRepeatTheSameBits) {
  const auto cpu = OpenCpu();
  const auto first = world->MakeCommunicator(*cpu, std::chrono::seconds(60));
  const at::Tensor one = Train(*first, /*batch_norm=*/true);
  const auto second = world->MakeCommunicator(*cpu, std::chrono::seconds(60));
  EXPECT_TRUE(one.equal(Train(*second, /*batch_norm=*/true)));
}

TEST(DataParallelMpiTest, TheGuardNamesTheProcessThatDiffers) {
  if (world->size() < 3) GTEST_SKIP() << "two ranks have no majority";
  const auto cpu = OpenCpu();
  const auto communicator = world->MakeCommunicator(*cpu, std::chrono::seconds(60));
  Replica replica(*communicator, {});
  if (communicator->rank() == 1) replica.arena.parameters()[40] += 1e-6;
  try {
    CheckReplicas(replica.arena, *communicator, 5);
    FAIL() << "rank 1 was changed";
  } catch (const ReplicasDiffer& differ) {
    EXPECT_NE(std::string(differ.what()).find("step 5: rank 1 ("), std::string::npos)
        << differ.what();
  }
}

}  // namespace
}  // namespace lockstep::trainer

int main(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  lockstep::trainer::World world(&argc, &argv);
  lockstep::trainer::world = &world;
  return RUN_ALL_TESTS();
}
