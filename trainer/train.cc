#include "trainer/train.h"

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/ops/zeros.h>

#include <algorithm>

#include "trainer/data/batches.h"
#include "trainer/objective.h"
#include "trainer/session.h"
#include "trainer/step/precision.h"
#include "trainer/step/replica_guard.h"

namespace lockstep::trainer {

using config::Phase;

namespace {

// What one rank adds up over the micro-batches of a step.
struct LocalSums {
  at::Tensor loss = at::zeros({}, at::kFloat);
  at::Tensor correct = at::zeros({}, at::kFloat);

  void Add(const Objective& objective) {
    loss += objective.loss_sum.detach();
    correct += objective.correct;
  }
};

}  // namespace

Outcome Train(const TrainSetup& setup) {
  const config::TrainingConfig& training = setup.config.training;
  Session run(setup);
  PhaseClock& clock = run.clock();
  GradientArena& arena = run.replica().arena();
  Model& model = run.replica().model();
  const auto global_batch = static_cast<double>(training.global_batch_size);

  while (run.Continue()) {
    const int64_t step = run.step();
    run.BeginStep();

    clock.Enter(Phase::kDataWait);
    const Batch batch = run.batches().Next();
    const int64_t samples = batch.labels.numel();

    arena.ZeroGradients();
    LocalSums sums;
    for (int64_t begin = 0; begin < samples; begin += training.micro_batch_size) {
      const int64_t size = std::min(training.micro_batch_size, samples - begin);
      if (begin + size == samples) arena.BeginLastBackward();
      run.SeedGenerators(step, begin);

      clock.Enter(Phase::kForward);
      Objective objective;
      {
        const PrecisionScope precision(training.precision);
        const at::Tensor logits = model.Forward(batch.images.narrow(0, begin, size));
        objective =
            ObjectiveOf(logits, batch.labels.narrow(0, begin, size), training.label_smoothing);
      }

      clock.Enter(Phase::kBackward);
      // Divided by the whole batch, so that the sum over micro-batches and ranks is the gradient of
      // its mean.
      objective.loss_sum.div(global_batch).backward();
      sums.Add(objective);
    }

    run.FillVector(sums.loss, sums.correct, samples);
    run.BeginReduce();
    arena.Reduce(static_cast<double>(samples) / global_batch);
    run.EndReduce();

    clock.Enter(Phase::kOptimizer);
    if (training.gradient_clip_norm > 0) arena.ClipNorm(training.gradient_clip_norm);
    run.replica().optimizer().Step(run.LearningRate(step), arena.found_nonfinite());

    // From here on every rank knows the same: votes, loss and progress of the step before this one.
    clock.Enter(Phase::kOther);
    run.EndStep();

    if (run.EvaluationDue()) run.Evaluate();
    if (run.CheckpointDue()) run.Checkpoint();
    if (run.HoldAgreed()) run.Hold();
  }
  return run.Finish();
}

}  // namespace lockstep::trainer
