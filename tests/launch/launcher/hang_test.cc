#include "launch/launcher/hang.h"

#include <gmock/gmock.h>

namespace lockstep::launch {
namespace {

using config::Phase;
using testing::HasSubstr;

ObservedRank Rank(int rank, int64_t step, uint64_t collectives,
                  Phase phase = Phase::kAllreduceExposed, char state = 'S') {
  ObservedRank process;
  process.board.rank = rank;
  process.board.pid = 1000 + rank;
  process.board.step = step;
  process.board.collectives = collectives;
  process.board.phase = phase;
  process.state = state;
  return process;
}

TEST(FindCulpritTest, NobodyOnTheBoardMeansNobodyIsBlamed) {
  EXPECT_EQ(FindCulprit({}).rank, -1);
}

TEST(FindCulpritTest, AStoppedRankIsBlamedEvenWhenAnotherIsBehind) {
  const HangReport report =
      FindCulprit({Rank(0, 5, 9), Rank(1, 6, 20, Phase::kBackward, 'T'), Rank(2, 6, 20)});
  EXPECT_EQ(report.rank, 1);
  EXPECT_EQ(report.phase, "backward");
  EXPECT_THAT(report.reason, HasSubstr("is stopped (state T) in backward at step 6"));
}

TEST(FindCulpritTest, AGoneRankIsBlamedFirst) {
  EXPECT_EQ(
      FindCulprit({Rank(0, 5, 9, Phase::kForward, 'T'), Rank(1, 5, 9, Phase::kForward, 'X')}).rank,
      1);
}

TEST(FindCulpritTest, TheRankBehindByStepIsBlamed) {
  EXPECT_EQ(FindCulprit({Rank(0, 6, 20), Rank(1, 6, 20), Rank(2, 5, 19)}).rank, 2);
}

TEST(FindCulpritTest, TheRankBehindByCollectivesIsBlamed) {
  const HangReport report = FindCulprit({Rank(0, 6, 20), Rank(1, 6, 19, Phase::kDataWait)});
  EXPECT_EQ(report.rank, 1);
  EXPECT_THAT(report.reason, HasSubstr("in data_wait at step 6 after 19 collectives"));
}

TEST(FindCulpritTest, TheOnlyOneThatDoesNotWaitIsBlamed) {
  EXPECT_EQ(FindCulprit({Rank(0, 6, 20), Rank(1, 6, 20, Phase::kOptimizer)}).rank, 1);
}

TEST(FindCulpritTest, ARankStuckInTheKernelIsBlamedAmongEquals) {
  EXPECT_EQ(FindCulprit({Rank(0, 6, 20), Rank(1, 6, 20, Phase::kAllreduceExposed, 'D')}).rank, 1);
}

TEST(FindCulpritTest, AmongEqualsNobodyIsBlamed) {
  const HangReport report = FindCulprit({Rank(0, 6, 20), Rank(1, 6, 20)});
  EXPECT_EQ(report.rank, -1);
  EXPECT_THAT(report.reason, HasSubstr("cannot tell"));
}

TEST(FindCulpritTest, AloneItIsTheOne) {
  EXPECT_EQ(FindCulprit({Rank(0, 6, 20, Phase::kDataWait)}).rank, 0);
}

}  // namespace
}  // namespace lockstep::launch
