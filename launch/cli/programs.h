// Other programs: where Lockstep's own are, and what one says when asked.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace lockstep::cli {

/// A program of Lockstep: beside this one, else in the search path. NOT_FOUND says where it was
/// looked for.
absl::StatusOr<std::filesystem::path> FindProgram(const std::string& name);

struct ProgramOutput {
  int exit_code = 0;  // 128 + signal where one ended it.
  std::string text;   // stdout and stderr together, at most 64 KiB.
};
/// Runs a program found in the search path, without a shell, for at most `timeout_seconds`.
/// NOT_FOUND where there is none; DEADLINE_EXCEEDED (and the program is killed) when it takes
/// longer.
absl::StatusOr<ProgramOutput> RunProgram(const std::vector<std::string>& arguments,
                                         double timeout_seconds);

/// Starts a program in a session of its own with stdin closed and its output appended to `log`.
/// Returns its process id; the caller may reap it while it lives.
absl::StatusOr<int> StartDetached(const std::vector<std::string>& arguments,
                                  const std::filesystem::path& log);

struct PipedProgram {
  int pid = 0;      // The caller reaps it.
  int output = -1;  // stdout and stderr together; the caller closes it.
};
/// Starts a program (a path) in a session of its own with stdin closed and no other environment
/// than `environment` ("NAME=value").
absl::StatusOr<PipedProgram> StartPiped(const std::vector<std::string>& arguments,
                                        const std::vector<std::string>& environment);

/// Becomes that program: its output, its signals and its exit code are this one's. Returns only
/// when that fails.
absl::Status BecomeProgram(const std::vector<std::string>& arguments);

}  // namespace lockstep::cli
