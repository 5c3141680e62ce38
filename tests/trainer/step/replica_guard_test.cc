#include "trainer/step/replica_guard.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <ATen/ops/linspace.h>
#include <ATen/ops/zeros.h>

#include <mutex>

#include "tests/trainer/comm/run_ranks.h"

namespace lockstep::trainer {
namespace {

struct Model {
  explicit Model(Communicator& communicator)
      : weight(at::linspace(0, 1, 1000).view({10, 100}).set_requires_grad(true)),
        mean(at::zeros({7})),
        arena({{"weight", weight}}, {{"mean", mean}}, 1, communicator) {}
  at::Tensor weight;
  at::Tensor mean;
  GradientArena arena;
};

// Changes one bit of one float: what a memory fault does.
void FlipBit(const at::Tensor& flat, int64_t index) {
  auto* words = static_cast<uint32_t*>(flat.mutable_data_ptr());
  words[index] ^= 1u;
}

// What each rank says; `damage` changes the replicas before.
std::vector<std::string> Check(int world_size, const std::function<void(Model&, int)>& damage) {
  std::vector<std::string> texts(world_size);
  RunRanks(world_size, [&](Communicator& communicator) {
    Model model(communicator);
    damage(model, communicator.rank());
    try {
      CheckReplicas(model.arena, communicator, 300);
    } catch (const ReplicasDiffer& differ) {
      texts[communicator.rank()] = differ.what();
    }
  });
  return texts;
}

TEST(ReplicaGuardTest, EqualReplicasPass) {
  for (const int world_size : {1, 2, 3, 7}) {
    EXPECT_THAT(Check(world_size, [](Model&, int) {}), ::testing::Each(""));
  }
}

TEST(ReplicaGuardTest, NamesExactlyTheRankThatDiffersOnEveryRank) {
  for (int culprit = 0; culprit < 3; ++culprit) {
    const auto texts = Check(3, [&](Model& model, int rank) {
      if (rank == culprit) FlipBit(model.arena.parameters(), 555);
    });
    EXPECT_THAT(texts, ::testing::Each(texts[0])) << "the same text everywhere";
    EXPECT_THAT(texts[0], ::testing::HasSubstr("step 300: rank " + std::to_string(culprit) + " ("));
  }
}

TEST(ReplicaGuardTest, SeesABufferThatDiffers) {
  const auto texts = Check(3, [](Model& model, int rank) {
    if (rank == 2) FlipBit(model.arena.buffers(), 6);
  });
  EXPECT_THAT(texts[0], ::testing::HasSubstr("rank 2 ("));
}

TEST(ReplicaGuardTest, NamesSeveral) {
  const auto texts = Check(7, [](Model& model, int rank) {
    if (rank == 0 || rank == 5) FlipBit(model.arena.parameters(), rank);
  });
  EXPECT_THAT(texts[3], ::testing::ContainsRegex("ranks 0 \\([0-9a-f]+\\), 5 \\("));
}

TEST(ReplicaGuardTest, OnATieRankZeroIsRight) {
  const auto texts = Check(2, [](Model& model, int rank) {
    if (rank == 1) FlipBit(model.arena.parameters(), 0);
  });
  EXPECT_THAT(texts[0], ::testing::HasSubstr("rank 1 ("));
  EXPECT_EQ(texts[0], texts[1]);
}

TEST(ReplicaGuardTest, HashDependsOnEveryFloatsPlace) {
  RunRanks(1, [](Communicator& communicator) {
    Model model(communicator);
    const uint64_t before = ReplicaHash(model.arena);
    EXPECT_EQ(ReplicaHash(model.arena), before);
    auto* values = model.arena.parameters().mutable_data_ptr<float>();
    std::swap(values[3], values[4]);
    EXPECT_NE(ReplicaHash(model.arena), before);
  });
}

}  // namespace
}  // namespace lockstep::trainer
