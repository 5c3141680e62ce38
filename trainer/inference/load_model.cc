#include "trainer/inference/load_model.h"

#include <ATen/core/grad_mode.h>

#include <stdexcept>

#include "absl/strings/str_cat.h"
#include "trainer/checkpoint/snapshot.h"

namespace lockstep::trainer {

std::unique_ptr<Model> LoadModel(const TrainedModel& model) {
  const at::NoGradGuard no_grad;
  const InputShape& input = model.graph.input;
  config::ModelConfig config = model.config.model;
  config.sync_batch_norm = false;  // One process.
  std::unique_ptr<Model> made = MakeModel(config, input, model.config.seed);
  NamedTensors tensors = made->Parameters();
  for (NamedTensor& buffer : made->Buffers()) tensors.push_back(std::move(buffer));
  if (absl::Status restored = Restore(model.loaded.weights, tensors); !restored.ok()) {
    throw std::invalid_argument(absl::StrCat(model.checkpoint.string(), ": ", restored.message()));
  }
  made->SetTraining(false);
  return made;
}

}  // namespace lockstep::trainer
