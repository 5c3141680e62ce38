// Opening data sets in tests as a run does.
#pragma once

#include <memory>
#include <string>

#include "config/run_config.h"
#include "trainer/data/dataset.h"

namespace lockstep::trainer {

inline config::RunConfig RunOf(config::DatasetKind kind, const std::string& path = "") {
  config::RunConfig run;
  run.seed = 1;
  run.data.kind = kind;
  run.data.path = path;
  return run;
}

inline std::unique_ptr<Dataset> Open(const config::RunConfig& run, Split split = Split::kTrain) {
  return OpenDataset({.config = run, .split = split});
}

/// What opening throws; empty: nothing.
inline std::string OpenError(const config::RunConfig& run, Split split = Split::kTrain) {
  try {
    Open(run, split);
  } catch (const DataError& error) {
    return error.what();
  }
  return "";
}

}  // namespace lockstep::trainer
