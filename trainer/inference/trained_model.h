// A trained model as it lies on disk: found, verified, its card and its graph read. What evaluate,
// predict, export, describe and serve begin with. No LibTorch here.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "config/run_config.h"
#include "trainer/card.h"
#include "trainer/checkpoint/store.h"
#include "trainer/models/graph.h"

namespace lockstep::trainer {

struct TrainedModel {
  std::filesystem::path checkpoint;  // The folder; absolute.
  std::filesystem::path run_dir;     // Empty where it is in none.
  int64_t step = 0;
  ModelCard card;
  config::RunConfig config;  // The card's.
  Graph graph;
  LoadedCheckpoint loaded;          // Its weights; the optimizer's state is dropped.
  std::vector<std::string> passed;  // One line for each damaged checkpoint that was passed over.

  int64_t outputs() const { return graph.shapes[static_cast<size_t>(graph.output)].numel(); }
};

/// `path`: a checkpoint's folder, or a run directory. Of a run the checkpoint of `step`; without
/// one the best that verifies by the run's best_metric, or the newest where none was evaluated.
/// Every byte is compared with the manifest. NOT_FOUND: there is none; DATA_LOSS: damaged;
/// FAILED_PRECONDITION: written by another version, or without a card; INVALID_ARGUMENT: the parts
/// do not fit together. Messages name the path.
absl::StatusOr<TrainedModel> OpenTrainedModel(const std::filesystem::path& path,
                                              std::optional<int64_t> step = std::nullopt);

}  // namespace lockstep::trainer
