// The command line of `lockstep-trainer probe`.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace lockstep::trainer {

struct ProbeArguments {
  std::string config_file;
  std::vector<std::string> set;
  std::string out;
  std::vector<int64_t> batches;  // Empty = around the run's own.
  int64_t max_steps = 0;         // 0 = as many as usual, or what the batch sizes take at least.
};

/// The exit code; where it is not to end here, `finished` is false.
int ParseArguments(int argc, char** argv, ProbeArguments& arguments, bool& finished);

}  // namespace lockstep::trainer
