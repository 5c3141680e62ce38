// Loss and measures over the held-out samples: every rank takes every size()-th one, sums travel
// in float64, each sample counts exactly once.
#pragma once

#include <optional>

#include "config/run_config.h"
#include "trainer/control.h"
#include "trainer/data/dataset.h"
#include "trainer/models/model.h"
#include "trainer/objective/measures.h"

namespace lockstep::trainer {

struct EvaluateOptions {
  at::Device device = at::kCPU;
  int64_t batch = 100;  // Pictures through the model at once, per rank.
  config::Precision precision = config::Precision::kFp32;
  int prefetch_threads = 1;
  int prefetch_batches = 4;
};

/// Collective. Leaves the model in training mode. Nothing when the ranks agreed to do something
/// else first; what they agreed on is added to `requests`.
std::optional<MeasureResult> Evaluate(Model& model, const Dataset& dataset, const Loss& loss,
                                      Communicator& communicator, Control& control,
                                      const EvaluateOptions& options, Requests& requests);

}  // namespace lockstep::trainer
