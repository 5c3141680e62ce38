// The promise of the whole: ranks on shards of a batch train as one rank on all of it.
#include <gtest/gtest.h>

#include <mutex>

#include "tests/trainer/comm/run_ranks.h"
#include "tests/trainer/step/small_net.h"
#include "trainer/step/replica_guard.h"

namespace lockstep::trainer {
namespace {

constexpr int kSteps = 20;

ReplicaOptions Sgd() {
  ReplicaOptions options;
  options.optimizer.learning_rate = 0.05;
  options.optimizer.weight_decay = 1e-3;
  return options;
}

// Parameters of rank 0 after kSteps; checks that all ranks agree.
at::Tensor Train(int world_size, const ReplicaOptions& options) {
  at::Tensor result;
  RunRanks(world_size, [&](Communicator& communicator) {
    Replica replica(communicator, options);
    for (int64_t step = 0; step < kSteps; ++step) replica.Step(step);
    CheckReplicas(replica.arena, communicator, kSteps);
    if (communicator.rank() == 0) result = replica.arena.parameters().clone();
  });
  return result;
}

class WorldsTest : public ::testing::TestWithParam<int> {};

TEST_P(WorldsTest, TrainsAsOneRankOnTheWholeBatch) {
  const at::Tensor alone = Train(1, Sgd());
  const at::Tensor shared = Train(GetParam(), Sgd());
  EXPECT_LE(RelativeDifference(shared, alone), 1e-5);
  // The comparison means something: training moved the weights a hundred times further.
  ReplicaOptions still = Sgd();
  still.optimizer.learning_rate = 0;
  EXPECT_GT(RelativeDifference(alone, Train(1, still)), 1e-2);
}

TEST_P(WorldsTest, RepeatsTheSameBits) {
  EXPECT_TRUE(Train(GetParam(), Sgd()).equal(Train(GetParam(), Sgd())));
}

TEST_P(WorldsTest, ClipsAsOneRankDoes) {
  ReplicaOptions options = Sgd();
  options.clip = 0.2;
  const at::Tensor alone = Train(1, options);
  EXPECT_LE(RelativeDifference(Train(GetParam(), options), alone), 1e-5);
  EXPECT_GT(RelativeDifference(alone, Train(1, Sgd())), 1e-3) << "the bound never mattered";
}

TEST_P(WorldsTest, AccumulatesMicroBatchesAsOneLargerBatch) {
  ReplicaOptions options = Sgd();
  const at::Tensor whole = Train(GetParam(), options);
  options.micro_batches = 3;
  const at::Tensor parts = Train(GetParam(), options);
  EXPECT_LE(RelativeDifference(parts, whole), 1e-5);
  EXPECT_TRUE(parts.equal(Train(GetParam(), options))) << "the same bits when repeated";
}

TEST_P(WorldsTest, OverlapChangesNoBit) {
  ReplicaOptions options = Sgd();
  options.batch_norm = true;
  options.micro_batches = 2;
  const at::Tensor after = Train(GetParam(), options);
  options.arena.overlap = true;
  options.arena.first_bucket_bytes = 100;
  options.arena.bucket_bytes = 1000;
  EXPECT_TRUE(Train(GetParam(), options).equal(after));
}

// 24 samples on 7 ranks: shares of 3 and 4.
INSTANTIATE_TEST_SUITE_P(Worlds, WorldsTest, ::testing::Values(1, 2, 3, 4, 7));

TEST(BatchNormTest, StatisticsAreTheShareWeightedMeanOfTheRanks) {
  constexpr int kWorld = 3;
  const int64_t cuts[] = {0, 4, 10, 24};  // Shares of 4, 6 and 14.
  ReplicaOptions options = Sgd();
  options.batch_norm = true;
  // What each rank's batch norm would say, all from the same start.
  at::Tensor expected_mean = at::zeros({8});
  at::Tensor expected_variance = at::zeros({8});
  for (int rank = 0; rank < kWorld; ++rank) {
    SmallNet net(/*batch_norm=*/true);
    net.forward(BatchOf(0).Slice(cuts[rank], cuts[rank + 1]).pictures);
    const double share = static_cast<double>(cuts[rank + 1] - cuts[rank]) / kGlobalBatch;
    expected_mean += net.norm->running_mean * share;
    expected_variance += net.norm->running_var * share;
  }
  RunRanks(kWorld, [&](Communicator& communicator) {
    Replica replica(communicator, options);
    const auto batch = [&](int64_t step) {
      return BatchOf(step).Slice(cuts[communicator.rank()], cuts[communicator.rank() + 1]);
    };
    replica.Step(0, batch(0));
    EXPECT_LE(RelativeDifference(replica.net->norm->running_mean, expected_mean), 1e-6);
    EXPECT_LE(RelativeDifference(replica.net->norm->running_var, expected_variance), 1e-6);
    for (int64_t step = 1; step < 5; ++step) {
      replica.Step(step, batch(step));
      EXPECT_NO_THROW(CheckReplicas(replica.arena, communicator, step));
    }
    EXPECT_EQ(replica.net->norm->num_batches_tracked.item<int64_t>(), 5);
  });
}

// What a step may change: clones, to compare bit for bit.
std::vector<at::Tensor> Everything(const Replica& replica) {
  std::vector<at::Tensor> all = {replica.arena.parameters().clone(),
                                 replica.arena.buffers().clone()};
  for (const NamedTensor& state : replica.optimizer.State()) all.push_back(state.tensor.clone());
  return all;
}

bool Same(const std::vector<at::Tensor>& a, const std::vector<at::Tensor>& b) {
  for (size_t i = 0; i < a.size(); ++i) {
    if (!a[i].equal(b[i])) return false;
  }
  return a.size() == b.size();
}

class NonfiniteTest : public ::testing::TestWithParam<config::OptimizerKind> {
 protected:
  static ReplicaOptions Options() {
    ReplicaOptions options = Sgd();
    options.optimizer.kind = GetParam();
    options.batch_norm = true;
    options.clip = 1.0;
    return options;
  }
};

TEST_P(NonfiniteTest, NanInputOnOneRankChangesNothingOnAnyRank) {
  RunRanks(3, [](Communicator& communicator) {
    Replica replica(communicator, Options());
    for (int64_t step = 0; step < 3; ++step) replica.Step(step);
    const std::vector<at::Tensor> before = Everything(replica);
    SmallBatch bad = replica.Share(BatchOf(3));
    if (communicator.rank() == 1) {
      bad.pictures = bad.pictures.clone();
      bad.pictures[0][0][0][0] = NAN;
    }
    replica.Step(3, bad);
    EXPECT_EQ(replica.arena.found_nonfinite().item<float>(), 1.0f);
    EXPECT_TRUE(Same(before, Everything(replica)));
    EXPECT_FALSE(replica.last.nonfinite) << "of step 2";
    replica.Step(4);
    EXPECT_EQ(replica.arena.found_nonfinite().item<float>(), 0.0f);
    EXPECT_TRUE(replica.last.nonfinite) << "of step 3";
    EXPECT_FALSE(Same(before, Everything(replica))) << "goes on training";
    CheckReplicas(replica.arena, communicator, 4);
    EXPECT_TRUE(replica.arena.parameters().isfinite().all().item<bool>());
  });
}

TEST_P(NonfiniteTest, InfiniteGradientBehindAFiniteLossIsSeen) {
  RunRanks(2, [](Communicator& communicator) {
    Replica replica(communicator, Options());
    replica.Step(0);
    const std::vector<at::Tensor> before = Everything(replica);
    const SmallBatch mine = replica.Share(BatchOf(1));
    const at::Tensor loss = replica.Gradients(mine);
    if (communicator.rank() == 1) replica.net->dense->bias.grad()[2] = INFINITY;
    replica.agreement.Prepare(mine.size(), 0.0);
    replica.agreement.Fill(replica.arena.step_vector(), loss, at::zeros({}));
    replica.arena.Reduce(0.5);
    replica.Update();
    EXPECT_TRUE(Same(before, Everything(replica)));
    replica.agreement.Exchange({replica.arena.step_vector(), replica.arena.found_nonfinite()}, 1);
    EXPECT_TRUE(replica.agreement.Drain().nonfinite);
  });
}

TEST_P(NonfiniteTest, NanLossWithFiniteGradientsIsSeen) {
  RunRanks(2, [](Communicator& communicator) {
    Replica replica(communicator, Options());
    replica.Step(0);
    const std::vector<at::Tensor> before = Everything(replica);
    const SmallBatch mine = replica.Share(BatchOf(1));
    at::Tensor loss = replica.Gradients(mine);
    if (communicator.rank() == 0) loss = at::full({}, NAN);
    replica.agreement.Prepare(mine.size(), 0.0);
    replica.agreement.Fill(replica.arena.step_vector(), loss, at::zeros({}));
    replica.arena.Reduce(0.5);
    replica.Update();
    EXPECT_TRUE(Same(before, Everything(replica)));
  });
}

INSTANTIATE_TEST_SUITE_P(Optimizers, NonfiniteTest,
                         ::testing::Values(config::OptimizerKind::kSgd,
                                           config::OptimizerKind::kAdam,
                                           config::OptimizerKind::kAdamW));

}  // namespace
}  // namespace lockstep::trainer
