#include <gtest/gtest.h>

#include <string>

#include "config/load.h"

namespace lockstep::config {
namespace {

RunConfig Load(const std::string& training, const std::string& rest = "") {
  const auto loaded =
      LoadRunConfig("name: a\ntraining: {duration: 1ep, " + training + "}\n" + rest, "run.yaml");
  EXPECT_TRUE(loaded.ok()) << loaded.Report();
  return loaded.config;
}

TEST(Resolve, ClosesEveryAuto) {
  const RunConfig config =
      Resolve(Load("global_batch_size: 64"), {.world_size = 4, .ranks_on_host = 4, .cores = 10});
  EXPECT_EQ(config.resources.ranks, 4);
  EXPECT_EQ(config.resources.threads_per_rank, 2);
  EXPECT_EQ(config.training.global_batch_size, 64);
  EXPECT_EQ(config.training.batch_size_per_rank, 16);
  EXPECT_EQ(config.training.micro_batch_size, 16);
}

TEST(Resolve, MultipliesTheBatchOfARank) {
  const RunConfig config = Resolve(Load("batch_size_per_rank: 8"), {.world_size = 3});
  EXPECT_EQ(config.training.global_batch_size, 24);
  EXPECT_EQ(config.training.batch_size_per_rank, 8);
}

TEST(Resolve, GivesTheLargestShareWhenTheBatchDoesNotDivide) {
  const RunConfig config = Resolve(Load("global_batch_size: 10"), {.world_size = 4});
  EXPECT_EQ(config.training.batch_size_per_rank, 3);
  EXPECT_EQ(config.training.micro_batch_size, 3);
}

TEST(Resolve, KeepsWhatIsGiven) {
  const RunConfig config = Resolve(
      Load("global_batch_size: 64, micro_batch_size: 4", "resources: {threads_per_rank: 7}\n"),
      {.world_size = 2, .ranks_on_host = 2, .cores = 2});
  EXPECT_EQ(config.resources.threads_per_rank, 7);
  EXPECT_EQ(config.training.micro_batch_size, 4);
}

TEST(Resolve, NeverGivesLessThanOneThread) {
  const RunConfig config =
      Resolve(Load("global_batch_size: 64"), {.world_size = 8, .ranks_on_host = 8, .cores = 2});
  EXPECT_EQ(config.resources.threads_per_rank, 1);
}

TEST(Resolve, KeepsTheGlobalBatchOnAnotherWorldSize) {
  const RunConfig first = Resolve(Load("batch_size_per_rank: 16"), {.world_size = 4});
  const auto again =
      LoadRunConfig(ToYaml(first), "run.yaml", {{"resources.ranks", "auto", "--set"}});
  ASSERT_TRUE(again.ok()) << again.Report();
  const RunConfig second = Resolve(again.config, {.world_size = 2});
  EXPECT_EQ(second.resources.ranks, 2);
  EXPECT_EQ(second.training.global_batch_size, 64);
  EXPECT_EQ(second.training.batch_size_per_rank, 32);
  EXPECT_EQ(second.training.micro_batch_size, 16) << "what fitted into memory still does";
}

TEST(Defaults, TheLearningRateFollowsTheOptimizer) {
  EXPECT_EQ(Load("global_batch_size: 1").optimizer.learning_rate, 0.1);
  EXPECT_EQ(Load("global_batch_size: 1", "optimizer: {name: adamw}\n").optimizer.learning_rate,
            1e-3);
  EXPECT_EQ(Load("global_batch_size: 1", "optimizer: {name: adam, learning_rate: 0.1}\n")
                .optimizer.learning_rate,
            0.1);
}

}  // namespace
}  // namespace lockstep::config
