#include "trainer/evaluate.h"

#include <ATen/core/grad_mode.h>

#include "trainer/batches/batches.h"
#include "trainer/step/precision.h"

namespace lockstep::trainer {

std::optional<MeasureResult> Evaluate(Model& model, const Dataset& dataset, const Loss& loss,
                                      Communicator& communicator, Control& control,
                                      const EvaluateOptions& options, Requests& requests) {
  BatchesOptions reading;
  reading.global_batch = options.batch;
  reading.rank = communicator.rank();
  reading.world_size = communicator.size();
  reading.threads = options.prefetch_threads;
  reading.depth = options.prefetch_batches;
  reading.device = options.device;
  EvalBatches batches(dataset, reading);

  at::NoGradGuard no_grad;
  struct EvaluationMode {
    explicit EvaluationMode(Model& model) : model(model) { model.SetTraining(false); }
    ~EvaluationMode() { model.SetTraining(true); }
    Model& model;
  } mode(model);

  const Graph& graph = model.graph();
  Measures measures(loss.task(), graph.shapes[static_cast<size_t>(graph.output)].numel(),
                    dataset.targets(), options.device);
  for (int64_t i = 0; i < batches.count(); ++i) {
    const Batch batch = batches.Next();
    if (batch.targets.size() > 0) {
      const PrecisionScope precision(options.precision, options.device.type());
      const ModelOutput output = model.Forward(batch.images);
      measures.Add(output.logits, batch.targets.values, loss(output, batch.targets).loss_sum);
    }
    // A few floats, so that a pause need not wait for the end of a long evaluation.
    requests.Add(control.Together());
    if (requests.leave() || requests.hold) return std::nullopt;
  }
  const at::Tensor sums = measures.Sums();
  communicator.AllReduce(sums);
  communicator.Wait();
  return measures.Result(sums);
}

}  // namespace lockstep::trainer
