// The weights of a trained model in a model that runs.
#pragma once

#include <memory>

#include "trainer/inference/trained_model.h"
#include "trainer/models/model.h"

namespace lockstep::trainer {

/// On the CPU, in evaluation mode. Throws std::invalid_argument listing the tensors that are
/// missing, too many or of another shape.
std::unique_ptr<Model> LoadModel(const TrainedModel& model);

}  // namespace lockstep::trainer
