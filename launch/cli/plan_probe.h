// Starting `lockstep-trainer probe` for `lockstep plan`: under mpirun as a run's attempt is, in a
// session and a temporary folder of its own, of which nothing is left however it ends.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "config/probe_report.h"
#include "launch/cli/context.h"
#include "launch/cli/follow.h"
#include "launch/cli/run_file.h"

namespace lockstep::cli {

struct ProbeOptions {
  int64_t max_steps = 0;    // 0 = the trainer's default.
  bool allow_root = false;  // mpirun as root.
};

class Prober {
 public:
  Prober(Context& context, Interrupts& interrupts, const RunFile& file, ProbeOptions options);
  ~Prober();
  Prober(const Prober&) = delete;
  Prober& operator=(const Prober&) = delete;

  /// Probes with so many ranks and these batch sizes. Says on stderr how far it is. A batch size
  /// that does not fit is in the report, and the probe is made again with three smaller ones.
  /// CANCELLED after a signal (see signal()); NOT_FOUND without mpirun or trainer;
  /// PERMISSION_DENIED as root without the opt-in; otherwise what the trainer said.
  absl::StatusOr<config::ProbeReport> Probe(int ranks, std::vector<int64_t> batches);

  int signal() const { return signal_; }  // The one that ended it; 0 = none.

 private:
  absl::Status Prepare();
  absl::StatusOr<config::ProbeReport> ProbeOnce(int ranks, const std::vector<int64_t>& batches);
  std::vector<std::string> Arguments(int ranks, const std::vector<int64_t>& batches) const;
  /// Reads the program's output to its end. False when a signal came.
  bool Read(int output, std::string& rest);
  std::string ReportFile() const { return folder_ + "/probe.json"; }

  Context& context_;
  Interrupts& interrupts_;
  const RunFile& file_;
  const ProbeOptions options_;
  std::string mpirun_;
  std::string trainer_;
  std::string folder_;  // Empty before the first probe.
  int signal_ = 0;
};

}  // namespace lockstep::cli
