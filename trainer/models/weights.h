// Starts a model from a file of weights: safetensors, a PyTorch state dict (torch_file.h), or the
// folder of a Lockstep checkpoint, whose manifest is verified.
//
// A prefix "module." that all names have is stripped. Half, bfloat16 and double become float32.
// Left as the seed made them, and reported: the classifier (and the auxiliary head's) where only
// the number of outputs differs; a head of one's own (model.head.kind: dense) that the file lacks
// or has in other sizes; an auxiliary head that the file lacks; counters of batches, which old
// files lack. Dropped, and reported: the file's head and auxiliary head where this model has others
// or none. Anything else that is missing, unexpected or of another shape is an error that lists
// all.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "trainer/models/model.h"

namespace lockstep::trainer {

struct WeightsReport {
  std::string format;                // "safetensors", "PyTorch state dict", "checkpoint".
  std::string xxh3_128;              // Of the file's bytes, 32 hex digits.
  int64_t loaded = 0;                // Tensors.
  std::vector<std::string> remade;   // What keeps its first values, each with the reason.
  std::vector<std::string> dropped;  // What of the file is not used, each with the reason.
  /// "loaded 318 tensors from FILE (safetensors); fc: made anew, …": one line for the log.
  std::string Summary(const std::string& path) const;
};

/// `config` is what `model` was made of. All or nothing: on an error the model is as it was. Works
/// on tensors that were moved (an arena's, a GPU's). NOT_FOUND: no such file; INVALID_ARGUMENT: not
/// weights, or not of this model; DATA_LOSS: damaged. Messages begin with the path.
absl::StatusOr<WeightsReport> LoadWeights(const std::string& path,
                                          const config::ModelConfig& config, Model& model);

}  // namespace lockstep::trainer
