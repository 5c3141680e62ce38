// How much memory a rank takes at a batch size that was not probed: a line through the probed
// peaks, and the pictures that it will keep. Pure.
#pragma once

#include <cstdint>

#include "config/probe_report.h"

namespace lockstep::plan {

struct MemoryPlan {
  int64_t bytes = 0;  // One rank; 0 = unknown.
  bool fits = true;
  int64_t micro_batch_size = 0;  // That would fit, where it does not; 0 = none known.
};

/// For a rank with `local_batch` samples, at least 1, in the micro-batches that were probed.
MemoryPlan PlanMemory(const config::ProbeReport& probe, int64_t local_batch);

}  // namespace lockstep::plan
