// Predictions by a model that the coordinator keeps in memory.
#pragma once

#include <string>
#include <vector>

#include "launch/cli/context.h"

namespace lockstep::cli {

struct ServedPredict {
  std::string model;  // A run, or the path of a checkpoint or run directory.
  std::vector<std::string> pictures;
  int top_k = 5;
};

/// Prints what `lockstep-trainer predict` would print. A picture that cannot be read is named and
/// the others are still asked about; the exit code is then 1.
int PredictServed(Context& context, const ServedPredict& options);

}  // namespace lockstep::cli
