#include "trainer/evaluate.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/zeros.h>

#include "trainer/data/batches.h"
#include "trainer/objective.h"
#include "trainer/step/precision.h"

namespace lockstep::trainer {

std::optional<EvaluationResult> Evaluate(Model& model, const Dataset& dataset,
                                         Communicator& communicator, Control& control,
                                         const EvaluateOptions& options, Requests& requests) {
  BatchesOptions reading;
  reading.global_batch = options.batch;
  reading.rank = communicator.rank();
  reading.world_size = communicator.size();
  reading.threads = options.prefetch_threads;
  reading.depth = options.prefetch_batches;
  reading.normalization = options.normalization;
  reading.device = options.device;
  EvalBatches batches(dataset, reading);

  at::NoGradGuard no_grad;
  struct EvaluationMode {
    explicit EvaluationMode(Model& model) : model(model) { model.SetTraining(false); }
    ~EvaluationMode() { model.SetTraining(true); }
    Model& model;
  } mode(model);

  // [loss sum, correct], added up on the device so that no batch waits for the host.
  const at::Tensor sums =
      at::zeros({2}, at::TensorOptions().dtype(at::kDouble).device(options.device));
  int64_t samples = 0;
  for (int64_t i = 0; i < batches.count(); ++i) {
    const Batch batch = batches.Next();
    if (batch.labels.numel() > 0) {
      const PrecisionScope precision(options.precision, options.device.type());
      const Objective objective = ObjectiveOf(model.Forward(batch.images), batch.labels, 0.0);
      sums[0].add_(objective.loss_sum);
      sums[1].add_(objective.correct);
      samples += batch.labels.numel();
    }
    // A few floats, so that a pause need not wait for the end of a long evaluation.
    requests.Add(control.Together());
    if (requests.leave() || requests.hold) return std::nullopt;
  }
  // [loss sum, correct, samples]
  const at::Tensor totals = at::zeros({3}, at::kDouble);
  totals.narrow(0, 0, 2).copy_(sums);
  auto* all = totals.mutable_data_ptr<double>();
  all[2] = static_cast<double>(samples);
  communicator.AllReduce(totals);
  communicator.Wait();
  EvaluationResult result;
  result.samples = static_cast<int64_t>(all[2]);
  if (result.samples > 0) {
    result.loss = all[0] / all[2];
    result.top1 = all[1] / all[2];
  }
  return result;
}

}  // namespace lockstep::trainer
