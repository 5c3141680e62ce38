// What `lockstep-trainer probe` measured and `lockstep plan` reads: one JSON file per number of
// ranks.
//
// The trainer replaces the file after each batch size it is done with, so a probe that the kernel
// kills for want of memory leaves what it knew, and which size it was at (`attempting`). Times are
// seconds of wall time; those of a step are means of the middle half of the steps timed, which is
// robust like a median and still tells the mean where steps alternate (a loader with two threads).
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace lockstep::config {

struct ProbedStep {
  int64_t local_batch = 0;  // Samples of the rank that has the most.
  int64_t timed = 0;        // Steps behind the numbers.
  double seconds = 0;
  std::map<std::string, double> phase_seconds;  // By PhaseName(), rank 0's.
  int64_t peak_bytes = 0;                       // Memory of the rank that took the most.

  bool operator==(const ProbedStep&) const = default;
};

struct ProbedAllReduce {
  int64_t bytes = 0;
  double seconds = 0;

  bool operator==(const ProbedAllReduce&) const = default;
};

// One way in which the run steps: all of it trains, or what is not frozen.
struct ProbedStage {
  std::vector<ProbedStep> steps;  // By batch size.
  int64_t reduced_bytes = 0;      // Of a step's all-reduce.
  int64_t evaluated_samples = 0;
  double evaluation_seconds = 0;
  // Where decoded pictures are kept the times above are those of pictures that were read before.
  double first_read_seconds = 0;        // What a new picture costs its rank beyond that.
  double first_evaluation_seconds = 0;  // An evaluation of new pictures.
  int64_t checkpoint_bytes = 0;         // 0 = not measured.
  double checkpoint_stall_seconds = 0;
  double checkpoint_write_seconds = 0;

  bool operator==(const ProbedStage&) const = default;
};

struct ProbeReport {
  int ranks = 1;
  int threads_per_rank = 1;
  std::string device;  // "cpu", or the GPU's name.
  bool gpu = false;
  int64_t train_samples = 0;
  int64_t eval_samples = 0;
  int64_t micro_batch_size = 0;  // 0 = the whole share of a rank at once.
  int64_t available_bytes = 0;   // Memory that one rank may take; 0 = unknown.
  double startup_seconds = 0;    // From the process's start to the first step.

  ProbedStage first;     // From the first step on.
  ProbedStage unfrozen;  // From model.unfreeze_after on; without steps where there is no such.
  std::vector<ProbedAllReduce> all_reduces;

  int64_t cached_samples = 0;  // Frozen features computed once, and how long that took.
  double cache_seconds = 0;

  int64_t opened_bytes = 0;       // Of the data set, read by all ranks before their first sample.
  double sample_bytes = 0;        // Read for a sample's picture,
  double sample_bytes_again = 0;  // and the next time: 0 where pictures are kept.
  int64_t kept_bytes = 0;         // Of pictures that a rank will keep in memory and did not here.

  int64_t attempting = 0;    // The batch size under way when this was written; 0 = finished.
  int64_t does_not_fit = 0;  // The batch size that there was no memory for; 0 = none.
  std::string does_not_fit_why;

  bool operator==(const ProbeReport&) const = default;
};

/// Which local batch sizes tell the most of a run whose ranks have `own` samples each: that one, a
/// half and a quarter of it, and the smallest of `others` (the shares of other numbers of ranks);
/// where that is too few, multiples of it. Three or four, rising. `own` is at least 1.
std::vector<int64_t> ProbeBatches(int64_t own, const std::vector<int64_t>& others);

std::string ToJson(const ProbeReport& report);
/// INVALID_ARGUMENT where the text is no such report.
absl::StatusOr<ProbeReport> ParseProbeReport(std::string_view json);

}  // namespace lockstep::config
