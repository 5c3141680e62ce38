#include "trainer/step/agreement.h"

#include <gtest/gtest.h>
#include <signal.h>

#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>

#include <cmath>
#include <limits>

#include "tests/trainer/comm/run_ranks.h"

namespace lockstep::trainer {
namespace {

struct Share {
  double loss_sum = 0;
  double score = 0;
  int64_t samples = 1;
  double arrival = 0;
};

// One rank's part of a step: fill, reduce, exchange.
StepSummary Step(Agreement& agreement, Communicator& communicator, int64_t step, Share share,
                 const at::Tensor& found = {}) {
  const at::Tensor vector = at::zeros({Agreement::VectorSize(communicator.size())}, at::kFloat);
  agreement.Prepare(share.samples, share.arrival);
  agreement.Fill(vector, at::full({}, share.loss_sum, at::kFloat),
                 at::full({}, share.score, at::kFloat));
  communicator.AllReduce(vector);
  return agreement.Exchange({.vector = vector, .found_nonfinite = found}, step);
}

TEST(AgreementTest, EveryRankReadsTheSumsOneStepLate) {
  RunRanks(3, [](Communicator& c) {
    const auto cpu = OpenCpu();
    Agreement agreement(c, *cpu);
    const double rank = c.rank();
    const Share share{.loss_sum = 3 * rank,
                      .score = rank,
                      .samples = c.rank() + 1,
                      .arrival = rank == 1 ? 9.0 : 0.5};
    EXPECT_EQ(Step(agreement, c, 10, share).step, -1);
    const StepSummary summary = Step(agreement, c, 11, {});
    EXPECT_EQ(summary.step, 10);
    EXPECT_DOUBLE_EQ(summary.samples, 6);
    EXPECT_DOUBLE_EQ(summary.loss, 9.0 / 6.0);
    EXPECT_DOUBLE_EQ(summary.score, 3);
    EXPECT_FALSE(summary.nonfinite);
    EXPECT_EQ(summary.arrival_seconds, (std::vector<double>{0.5, 9.0, 0.5}));
    EXPECT_EQ(summary.slowest_rank, 1);
    for (int vote = 0; vote < kVoteCount; ++vote) EXPECT_FALSE(summary.votes[vote]);
  });
}

TEST(AgreementTest, OfRanksThatComeTogetherNoneIsTheSlowest) {
  RunRanks(2, [](Communicator& c) {
    const auto cpu = OpenCpu();
    Agreement agreement(c, *cpu);
    Step(agreement, c, 0, {.arrival = 0});
    EXPECT_EQ(Step(agreement, c, 1, {.arrival = c.rank() * 0.5}).slowest_rank, -1);
    EXPECT_EQ(Step(agreement, c, 2, {.arrival = c.rank() == 0 ? 0.5 : -1}).slowest_rank, 1);
    const StepSummary unknown = Step(agreement, c, 3, {});
    EXPECT_EQ(unknown.slowest_rank, -1) << "of rank 1 nothing was known";
    EXPECT_EQ(unknown.arrival_seconds, (std::vector<double>{0, 0}));
  });
}

TEST(AgreementTest, AVoteOfOneRankReachesAllOnceAndAtTheSameStep) {
  RunRanks(4, [](Communicator& c) {
    const auto cpu = OpenCpu();
    Agreement agreement(c, *cpu);
    if (c.rank() == 2) agreement.Cast(Vote::kCheckpoint);
    std::vector<int64_t> seen;
    for (int64_t step = 0; step < 4; ++step) {
      // Cast while step 1 is under way, before its Fill().
      if (step == 1 && c.rank() == 3) agreement.Cast(Vote::kStop);
      const StepSummary summary = Step(agreement, c, step, {});
      if (summary.Has(Vote::kCheckpoint)) {
        seen.push_back(summary.step);
        EXPECT_FALSE(summary.Has(Vote::kStop));
      }
      if (summary.Has(Vote::kStop)) seen.push_back(100 + summary.step);
    }
    EXPECT_EQ(seen, (std::vector<int64_t>{0, 101}));
  });
}

TEST(AgreementTest, DrainGivesTheNewestAndOnlyOnce) {
  RunRanks(2, [](Communicator& c) {
    const auto cpu = OpenCpu();
    Agreement agreement(c, *cpu);
    EXPECT_EQ(agreement.Drain().step, -1) << "nothing was reduced yet";
    if (c.rank() == 0) agreement.Cast(Vote::kPause);
    Step(agreement, c, 7, {});
    const StepSummary drained = agreement.Drain();
    EXPECT_EQ(drained.step, 7);
    EXPECT_TRUE(drained.Has(Vote::kPause));
    EXPECT_EQ(agreement.Drain().step, -1);
    EXPECT_EQ(Step(agreement, c, 8, {}).step, -1) << "step 7 was read already";
    EXPECT_EQ(Step(agreement, c, 9, {}).step, 8);
  });
}

TEST(AgreementTest, NonfiniteLossOfOneRankIsSeenByAll) {
  for (const double bad : {static_cast<double>(NAN), static_cast<double>(INFINITY)}) {
    RunRanks(3, [bad](Communicator& c) {
      const auto cpu = OpenCpu();
      Agreement agreement(c, *cpu);
      Step(agreement, c, 0, {.loss_sum = c.rank() == 1 ? bad : 1.0});
      EXPECT_TRUE(Step(agreement, c, 1, {}).nonfinite);
      EXPECT_FALSE(agreement.Drain().nonfinite);
    });
  }
}

TEST(AgreementTest, TheArenasVerdictCounts) {
  RunRanks(2, [](Communicator& c) {
    const auto cpu = OpenCpu();
    Agreement agreement(c, *cpu);
    Step(agreement, c, 0, {}, at::full({}, 1.0, at::kFloat));
    EXPECT_TRUE(Step(agreement, c, 1, {}, at::zeros({})).nonfinite);
    EXPECT_FALSE(agreement.Drain().nonfinite);
  });
}

TEST(AgreementTest, TheGradientNormComesAlong) {
  RunRanks(1, [](Communicator& c) {
    const auto cpu = OpenCpu();
    Agreement agreement(c, *cpu);
    agreement.Prepare(1, 0.0);
    const at::Tensor vector = at::zeros({Agreement::VectorSize(1)}, at::kFloat);
    agreement.Exchange({vector, at::zeros({}), at::full({}, 2.5, at::kFloat)}, 3);
    EXPECT_DOUBLE_EQ(agreement.Drain().gradient_norm, 2.5);
  });
}

TEST(AgreementTest, VotesBetweenStepsLeaveTheNewestStepAlone) {
  RunRanks(2, [](Communicator& c) {
    const auto cpu = OpenCpu();
    Agreement agreement(c, *cpu);
    Step(agreement, c, 5, {.loss_sum = 4, .samples = 2});
    if (c.rank() == 1) agreement.Cast(Vote::kHold);
    EXPECT_TRUE(agreement.VoteNow().Has(Vote::kHold));
    EXPECT_FALSE(agreement.VoteNow().Has(Vote::kHold)) << "once";
    const StepSummary summary = agreement.Drain();
    EXPECT_EQ(summary.step, 5);
    EXPECT_DOUBLE_EQ(summary.loss, 2);
  });
}

TEST(AgreementTest, TheVectorMayBeReusedForTheNextStep) {
  RunRanks(1, [](Communicator& c) {
    const auto cpu = OpenCpu();
    Agreement agreement(c, *cpu);
    const at::Tensor vector = at::zeros({Agreement::VectorSize(1)}, at::kFloat);
    agreement.Prepare(2, 0.0);
    agreement.Fill(vector, at::full({}, 5.0, at::kFloat), at::zeros({}));
    agreement.Exchange({.vector = vector}, 0);
    agreement.Prepare(2, 0.0);
    agreement.Fill(vector, at::full({}, 80.0, at::kFloat), at::zeros({}));
    EXPECT_DOUBLE_EQ(agreement.Exchange({.vector = vector}, 1).loss, 2.5);
  });
}

TEST(AgreementTest, TakesALossThatStillCarriesItsGraph) {
  const auto alone = MakeThreadCommunicators(1);
  const auto cpu = OpenCpu();
  Agreement agreement(*alone[0], *cpu);
  const at::Tensor vector = at::zeros({Agreement::VectorSize(1)}, at::kFloat);
  const at::Tensor weight = at::full({}, 3.0, at::kFloat).set_requires_grad(true);
  agreement.Prepare(1, 0.0);
  agreement.Fill(vector, weight.mul(2.0), at::zeros({}));
  EXPECT_FALSE(vector.requires_grad());
  agreement.Exchange({.vector = vector}, 0);
  EXPECT_DOUBLE_EQ(agreement.Drain().loss, 6.0);
}

Agreement* signalled = nullptr;

TEST(AgreementTest, VotesMayBeCastFromASignalHandler) {
  const auto alone = MakeThreadCommunicators(1);
  const auto cpu = OpenCpu();
  Agreement agreement(*alone[0], *cpu);
  signalled = &agreement;
  struct sigaction action = {};
  struct sigaction before = {};
  action.sa_handler = [](int) { signalled->Cast(Vote::kCheckpoint); };
  sigaction(SIGUSR1, &action, &before);
  raise(SIGUSR1);
  sigaction(SIGUSR1, &before, nullptr);
  RunRanks(1, [&](Communicator& c) { Step(agreement, c, 0, {}); });
  EXPECT_TRUE(agreement.Drain().Has(Vote::kCheckpoint));
}

}  // namespace
}  // namespace lockstep::trainer
