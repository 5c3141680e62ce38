// What a model is, beside its weights: everything that evaluate, predict and export need to know,
// and that nobody should have to remember. It is the "card" in a checkpoint's state.json and
// card.json beside exported weights.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "config/run_config.h"
#include "trainer/data/dataset.h"
#include "trainer/pictures/preprocessing.h"

namespace lockstep::trainer {

struct ModelCard {
  std::string run_yaml;                                     // The resolved config, loadable again.
  config::LossKind loss = config::LossKind::kCrossEntropy;  // Never kAuto.
  Preprocessing preprocessing;
  std::vector<std::string> classes;  // Of a classifier, in the order of the outputs.
  std::vector<Target> targets;       // Of a regression or multi-label model, likewise.

  std::string ToJson() const;
  /// INVALID_ARGUMENT names the key.
  static absl::StatusOr<ModelCard> FromJson(const std::string& text);
};

}  // namespace lockstep::trainer
