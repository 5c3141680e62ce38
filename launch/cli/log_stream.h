// The bytes of a log file of a run, from the coordinator to stdout.
#pragma once

#include <cstdint>
#include <string>

#include "launch/cli/context.h"

namespace lockstep::cli {

struct LogOptions {
  std::string run;
  bool follow = false;
  int rank = 0;
  bool mpirun = false;     // mpirun's own output instead of a rank's.
  int attempt = 0;         // 0 = the newest.
  int64_t tail_bytes = 0;  // 0 = from the beginning.
};

/// Returns the exit code. With `follow` it goes on over a coordinator that restarts, after the last
/// byte it has; a signal ends it with 128 + its number.
int PrintLogs(Context& context, const LogOptions& options);

}  // namespace lockstep::cli
