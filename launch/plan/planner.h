// From what was probed to what a run will take: ranks x time x money x energy, per epoch and for
// the whole run.
//
// A number of ranks that was probed gets its own fit t = b / r + c. Others are extrapolated from
// the probe with the most ranks: the same r and c on every rank, less that probe's all-reduce, plus
// the one that the alpha-beta model gives for a link that is measured or named. Either way a rank's
// memory, the evaluations, the checkpoints, the start, the features cached before the first step
// and the bytes moved are counted. Pure.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "config/probe_report.h"
#include "config/run_config.h"
#include "launch/plan/collective_model.h"
#include "launch/plan/time_model.h"

namespace lockstep::plan {

struct Prices {
  bool known = false;
  std::string currency;
  double hardware_per_rank_hour = 0;
  double energy_per_kwh = 0;
  double watts_per_rank = 0;  // An estimate; 0 = unknown, and no energy is told.
  // Of 1e9 bytes moved.
  double dataset_per_gb = 0;
  double checkpoint_per_gb = 0;
  double allreduce_per_gb = 0;
};

struct PlanRequest {
  config::RunConfig config;
  std::vector<int> ranks;                   // To be planned for.
  std::vector<config::ProbeReport> probes;  // One at least; each of another number of ranks.
  int ranks_per_host = 1;                   // What a host like the probed one holds.
  std::optional<Link> interconnect;  // For extrapolated rows; nothing = measured, else 10GbE.
  // Of a run that starts now and takes so many seconds (prices may differ by the hour); none =
  // unknown.
  std::function<Prices(double seconds)> prices;
};

// Bytes of all ranks, as the ledger counts them (metrics/ledger.h).
struct Moved {
  double dataset = 0;     // Read.
  double checkpoint = 0;  // Saved.
  double allreduce = 0;   // Given to all-reduce.
};

struct Spent {
  double seconds = 0;
  double energy_kwh = 0;
  double hardware_cost = 0;
  double energy_cost = 0;
  double transfer_cost = 0;
  double cost() const { return hardware_cost + energy_cost + transfer_cost; }
};

struct PlanRow {
  int ranks = 1;
  int64_t local_batch = 0;  // Of the rank that has the most.
  int64_t global_batch = 0;
  double step_seconds = 0;
  double samples_per_second = 0;
  double exposed_reduce_seconds = 0;  // Of a step; modelled. 0 with one rank.
  double steps_per_epoch = 0;
  double epochs = 0;  // Of the whole run.
  double steps = 0;
  Spent epoch;                    // With its share of evaluations, checkpoints and bytes moved.
  Spent run;                      // With the start and everything.
  Moved moved;                    // By the whole run.
  double evaluation_seconds = 0;  // One evaluation.
  double checkpoint_seconds = 0;  // What one checkpoint holds the ranks up.

  int64_t memory_bytes = 0;     // One rank; 0 = unknown.
  int64_t available_bytes = 0;  // For one rank; 0 = unknown.
  bool fits = true;
  int64_t micro_batch_size = 0;  // That would fit, where it does not; 0 = none known.

  bool extrapolated = false;
  std::string basis;           // Where the time comes from, in words.
  double fit_error = 0;        // Worst relative residual of the fit.
  bool over_max_cost = false;  // Limits of the run's `cost` that it would run into.
  bool over_max_energy = false;
  bool over_max_time = false;
};

struct Plan {
  std::vector<PlanRow> rows;  // By ranks.
  bool gpu = false;
  std::string device;
  Prices prices;  // Of now.
};

/// INVALID_ARGUMENT: no probe, no training samples, too few batch sizes in a probe, a number of
/// ranks that WhyNotShared() speaks against.
absl::StatusOr<Plan> MakePlan(const PlanRequest& request);

/// Why so many ranks cannot share the run's batch; empty = they can.
std::string WhyNotShared(const config::RunConfig& config, int ranks);

/// Samples of the rank that has the most, for a run with so many ranks.
int64_t LocalBatch(const config::TrainingConfig& training, int ranks);

}  // namespace lockstep::plan
