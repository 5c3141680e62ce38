#include "launch/cli/context.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <string_view>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

namespace lockstep::cli {
namespace {

winsize TerminalSize(int fd) {
  winsize size{};
  if (ioctl(fd, TIOCGWINSZ, &size) != 0 || size.ws_col == 0) {
    size.ws_col = 80;
    size.ws_row = 24;
  }
  return size;
}

std::string HintFor(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kNotFound:
      return "`lockstep list` shows the runs there are";
    case absl::StatusCode::kFailedPrecondition:
      return "`lockstep describe RUN` shows the state a run is in and why";
    case absl::StatusCode::kUnavailable:
      return "start a coordinator with `lockstep daemon start`; runs that were going go on without "
             "it";
    case absl::StatusCode::kDeadlineExceeded:
      return "the coordinator may be stopped or very busy; runs go on without it. `--timeout "
             "SECONDS` waits longer, `lockstep doctor` looks closer";
    case absl::StatusCode::kPermissionDenied:
      return "ask the user who started the coordinator, or start one of your own with `lockstep "
             "daemon start`";
    default:
      return "";
  }
}

}  // namespace

// One that knows no sequences (an editor's shell) is written to like a file.
Output::Output(int fd) : fd_(fd) {
  const char* term = getenv("TERM");
  is_terminal_ = isatty(fd) == 1 && (term == nullptr || std::string_view(term) != "dumb");
}

void Output::Write(absl::string_view text) {
  while (!text.empty() && !broken_ && status_.ok()) {
    const ssize_t written = write(fd_, text.data(), text.size());
    if (written >= 0) {
      text.remove_prefix(static_cast<size_t>(written));
    } else if (errno == EPIPE || errno == EIO) {
      // EIO is what a closed terminal answers.
      broken_ = true;
    } else if (errno != EINTR && errno != EAGAIN) {
      status_ = absl::InternalError(absl::StrCat("cannot write the answer: ", strerror(errno)));
    }
  }
}

int Output::columns() const {
  return TerminalSize(fd_).ws_col;
}
int Output::rows() const {
  return TerminalSize(fd_).ws_row;
}

int Code(config::ExitCode code) {
  return static_cast<int>(code);
}

config::ExitCode ExitCodeOf(const absl::Status& status) {
  using config::ExitCode;
  switch (status.code()) {
    case absl::StatusCode::kOk:
      return ExitCode::kOk;
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kOutOfRange:
      return ExitCode::kUsage;
    case absl::StatusCode::kNotFound:
      return ExitCode::kNotFound;
    case absl::StatusCode::kFailedPrecondition:
    case absl::StatusCode::kAlreadyExists:
    case absl::StatusCode::kAborted:
      return ExitCode::kWrongState;
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kCancelled:
      return ExitCode::kUnavailable;
    case absl::StatusCode::kDeadlineExceeded:
      return ExitCode::kDeadline;
    case absl::StatusCode::kPermissionDenied:
    case absl::StatusCode::kUnauthenticated:
      return ExitCode::kDenied;
    case absl::StatusCode::kResourceExhausted:
      return ExitCode::kBudget;
    default:
      return ExitCode::kRunFailed;
  }
}

int Fail(Context& context, absl::string_view where, const absl::Status& status,
         absl::string_view hint) {
  const absl::string_view message = absl::StripSuffix(status.message(), "\n");
  // Several lines, as of a wrong config, start on a line of their own: each names its place.
  const std::string line_break = absl::StrContains(message, "\n") ? "\n" : " ";
  context.Say(absl::StrCat("lockstep", where.empty() ? "" : " ", where, ":", line_break, message));
  const std::string todo = hint.empty() ? HintFor(status) : std::string(hint);
  if (!todo.empty()) context.Say(absl::StrCat("  hint: ", todo));
  return Code(ExitCodeOf(status));
}

}  // namespace lockstep::cli
