#include "trainer/train.h"

#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>

#include "trainer/batches/batches.h"
#include "trainer/objective/loss.h"
#include "trainer/session.h"
#include "trainer/step/precision.h"
#include "trainer/step/step_runner.h"

namespace lockstep::trainer {

using config::Phase;

namespace {

// What one rank adds up over the micro-batches of a step, on its device.
struct LocalSums {
  explicit LocalSums(at::Device device)
      : loss(at::zeros({}, at::TensorOptions().dtype(at::kFloat).device(device))),
        score(at::zeros_like(loss)) {}

  void Add(const Objective& objective) {
    loss += objective.loss_sum.detach();
    score += objective.score_sum;
  }

  at::Tensor loss;
  at::Tensor score;
};

}  // namespace

Outcome Train(const TrainSetup& setup) {
  const config::TrainingConfig& training = setup.config.training;
  const at::Device device = setup.device.torch();
  Session run(setup);
  Replica& replica = run.replica();
  LossScale& loss_scale = replica.loss_scale();
  const auto global_batch = static_cast<double>(training.global_batch_size);
  Batch batch;

  const auto step = [&] {
    const int64_t samples = batch.targets.size();
    GradientArena& arena = replica.arena();
    arena.ZeroGradients();
    LocalSums sums(device);
    for (int64_t begin = 0; begin < samples; begin += training.micro_batch_size) {
      const int64_t size = std::min(training.micro_batch_size, samples - begin);
      if (begin + size == samples) arena.BeginLastBackward();

      run.Enter(Phase::kForward);
      Objective objective;
      {
        const PrecisionScope precision(training.precision, device.type());
        const ModelOutput output = replica.model().Forward(batch.images.narrow(0, begin, size));
        objective = run.loss()(output, batch.targets.Narrow(begin, size));
      }

      run.Enter(Phase::kBackward);
      // Divided by the whole batch, so that the sum over micro-batches and ranks is the gradient of
      // its mean.
      loss_scale.Apply(objective.loss_sum.div(global_batch)).backward();
      sums.Add(objective);
    }

    run.FillVector(sums.loss, sums.score);
    run.BeginReduce();
    arena.Reduce(static_cast<double>(samples) / global_batch, loss_scale.Inverse());
    run.EndReduce();

    run.Enter(Phase::kOptimizer);
    if (training.gradient_clip_norm > 0) arena.ClipNorm(training.gradient_clip_norm);
    replica.optimizer().Step(run.learning_rate(), arena.found_nonfinite());
    replica.Average(run.average_weight());
    loss_scale.Update(arena.found_nonfinite());
  };
  StepRunner runner(setup.device, run.timer(), training.cuda_graph,
                    [&](const std::string& how) { run.Say(how); });

  while (run.Continue()) {
    if (run.UnfreezeDue()) {
      runner.Restart();
      run.Unfreeze();
    }
    run.BeginStep();
    batch = run.NextBatch();
    run.Prepare(batch.targets.size());
    runner.Run(step);
    // From here on every rank knows the same: votes, loss and progress of the step before this one.
    run.EndStep();

    if (run.EvaluationDue()) run.Evaluate();
    if (run.CheckpointDue()) run.Checkpoint();
    if (run.HoldAgreed()) run.Hold();
  }
  return run.Finish();
}

}  // namespace lockstep::trainer
