// What every verb is given: the global options, where to write, and how to end with an error.
//
// Two streams, two purposes: stdout carries the answer (a table, a document, log bytes), stderr the
// talk (hints, warnings, errors), so that `lockstep … | other` sees only answers. A reader that
// went away (`| head`) is not an error: the rest is dropped and the verb ends quietly.
#pragma once

#include <string>
#include "absl/strings/string_view.h"

#include "absl/status/status.h"
#include "config/exit_code.h"

namespace lockstep::cli {

// Unbuffered writer over a file descriptor. Single-threaded.
class Output {
 public:
  explicit Output(int fd);

  void Write(absl::string_view text);
  /// The reader went away; further writes do nothing.
  bool broken() const { return broken_; }
  void MarkBroken() { broken_ = true; }
  /// Why writing failed for another reason (a full disk); OK otherwise.
  const absl::Status& status() const { return status_; }
  bool is_terminal() const { return is_terminal_; }
  int fd() const { return fd_; }
  /// Width and height of the terminal in characters; 80 x 24 where it is not one.
  int columns() const;
  int rows() const;

 private:
  int fd_;
  bool is_terminal_ = false;
  bool broken_ = false;
  absl::Status status_;
};

enum class OutputFormat { kTable, kJson, kCsv };

struct Context {
  std::string socket;          // Of the coordinator.
  double timeout_seconds = 0;  // 0 = each verb's own.
  OutputFormat format = OutputFormat::kTable;
  bool no_color = false;
  int verb_exit_code = 0;  // Set by the verb that ran.
  Output out{1};
  Output err{2};

  bool json() const { return format == OutputFormat::kJson; }
  bool color() const { return !no_color && out.is_terminal(); }
  /// One line of talk on stderr.
  void Say(absl::string_view line) { err.Write(std::string(line) + "\n"); }
};

int Code(config::ExitCode code);

/// The exit code that stands for a failed call.
config::ExitCode ExitCodeOf(const absl::Status& status);

/// Writes "lockstep WHERE: what" and a line with what to do, and returns the exit code. An empty
/// hint takes the one that goes with the status code.
int Fail(Context& context, absl::string_view where, const absl::Status& status,
         absl::string_view hint = "");

}  // namespace lockstep::cli
