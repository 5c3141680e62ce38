// A probe's report and its file.
#pragma once

#include <string>
#include <utility>

#include "absl/status/status.h"
#include "config/probe_report.h"
#include "config/run_directory.h"
#include "trainer/saver.h"

namespace lockstep::trainer {

// The report's way to its file: rank 0 writes, after each thing learnt.
class ReportFile {
 public:
  ReportFile(std::string file, bool root) : file_(std::move(file)), root_(root) {}
  config::ProbeReport* operator->() { return &report_; }
  void Write() {
    const absl::Status written = TryWrite();
    if (!written.ok()) throw CheckpointFailed(std::string(written.message()));
  }
  absl::Status TryWrite() {
    return root_ ? config::WriteFileDurably(file_, config::ToJson(report_)) : absl::OkStatus();
  }

 private:
  const std::string file_;
  const bool root_;
  config::ProbeReport report_;
};

}  // namespace lockstep::trainer
