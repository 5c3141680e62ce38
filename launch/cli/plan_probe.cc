#include "launch/cli/plan_probe.h"

#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "config/exit_code.h"
#include "config/run_directory.h"
#include "launch/cli/programs.h"
#include "launch/launcher/child_environment.h"
#include "launch/launcher/gang_temp.h"
#include "launch/launcher/process.h"

namespace lockstep::cli {
namespace {

using config::ProbeReport;
using config::TrainerExit;

constexpr size_t kMostKept = 16u << 10;  // Of what was said besides progress, the end.
constexpr const char* kProgress = "probe: ";
constexpr const char* kReason = "lockstep-trainer probe: ";
// A step time is fitted to so many batch sizes.
constexpr size_t kFewestSizes = 3;

// The whole session: mpirun, and ranks that outlive it. What appears while it is being killed is
// found in the next round.
void KillSession(int64_t session) {
  for (int round = 0; round < 100; ++round) {
    const std::vector<launch::ProcessStat> members = launch::SessionMembers(session);
    if (members.empty()) return;
    for (const launch::ProcessStat& member : members) {
      launch::SignalProcess(member.pid, member.start_time_ticks, SIGKILL);
    }
    usleep(10000);
  }
}

// Of all that ranks and mpirun said, what the first rank gave as its reason; all of it where none
// gave any.
std::string Reason(const std::string& said) {
  const size_t begin = said.find(kReason);
  if (begin == std::string::npos) return said;
  const size_t text = begin + std::char_traits<char>::length(kReason);
  size_t end = std::min(said.find(absl::StrCat("\n", kReason), text), said.find("\n-----", text));
  end = std::min(end, said.size());
  while (end > text && said[end - 1] == '\n') --end;
  return said.substr(text, end - text);
}

int ExitCodeOfWait(int status) {
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

}  // namespace

Prober::Prober(Context& context, Interrupts& interrupts, const RunFile& file, ProbeOptions options)
    : context_(context), interrupts_(interrupts), file_(file), options_(options) {}

Prober::~Prober() {
  if (!folder_.empty()) launch::RemoveGangTempDir(folder_);
}

absl::Status Prober::Prepare() {
  if (!folder_.empty()) return absl::OkStatus();
  if (geteuid() == 0 && !options_.allow_root) {
    return absl::PermissionDeniedError(
        "ranks are not run as root unless that is asked for: --allow-root-mpirun");
  }
  const auto trainer = FindProgram("lockstep-trainer");
  if (!trainer.ok()) return trainer.status();
  const auto mpirun = FindProgram("mpirun");
  if (!mpirun.ok()) {
    return absl::NotFoundError(absl::StrCat(std::string(mpirun.status().message()),
                                            "; install Open MPI (Debian: openmpi-bin)"));
  }
  trainer_ = trainer->string();
  mpirun_ = mpirun->string();
  auto folder = launch::MakeGangTempDir();
  if (!folder.ok()) return folder.status();
  folder_ = *folder;
  // Should this program be killed, a coordinator sweeps the folder. Not before: one probe ends
  // before the next begins, and the folder is of all.
  if (const auto self = launch::ReadProcessStat(getpid())) {
    launch::SetGangTempDirOwner(folder_, {getpid(), self->start_time_ticks});
  }
  return config::WriteFileDurably(folder_ + "/run.yaml", file_.yaml);
}

std::vector<std::string> Prober::Arguments(int ranks, const std::vector<int64_t>& batches) const {
  std::vector<std::string> arguments = {mpirun_};
  if (geteuid() == 0) arguments.emplace_back("--allow-run-as-root");
  // As launch/launcher/mpirun.cc starts a run's attempt.
  for (const char* argument : {"--bind-to", "none", "--map-by", "slot", "-np"}) {
    arguments.emplace_back(argument);
  }
  arguments.push_back(absl::StrCat(ranks));
  for (const std::string& argument :
       {trainer_, std::string("probe"), folder_ + "/run.yaml", std::string("--out"), ReportFile(),
        std::string("--batches"), absl::StrJoin(batches, ",")}) {
    arguments.push_back(argument);
  }
  if (options_.max_steps > 0) {
    arguments.emplace_back("--max-steps");
    arguments.push_back(absl::StrCat(options_.max_steps));
  }
  for (const config::Override& override : file_.overrides) {
    arguments.emplace_back("--set");
    arguments.push_back(absl::StrCat(override.path, "=", override.value));
  }
  return arguments;
}

bool Prober::Read(int output, std::string& rest) {
  std::string line;
  while (true) {
    pollfd fds[2] = {{output, POLLIN, 0}, {interrupts_.fd(), POLLIN, 0}};
    if (poll(fds, 2, -1) < 0 && errno != EINTR) return true;
    if (signal_ = interrupts_.Take(); signal_ != 0) return false;
    if (fds[0].revents == 0) continue;
    char buffer[4096];
    const ssize_t count = read(output, buffer, sizeof buffer);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) break;
    line.append(buffer, static_cast<size_t>(count));
    for (size_t end = line.find('\n'); end != std::string::npos; end = line.find('\n')) {
      const std::string one = line.substr(0, end);
      line.erase(0, end + 1);
      if (absl::StartsWith(one, kProgress)) {
        context_.Say(absl::StrCat("  ", one.substr(std::char_traits<char>::length(kProgress))));
      } else {
        absl::StrAppend(&rest, one, "\n");
      }
      if (rest.size() > kMostKept) rest.erase(0, rest.size() - kMostKept);
    }
  }
  absl::StrAppend(&rest, line);
  return true;
}

absl::StatusOr<ProbeReport> Prober::ProbeOnce(int ranks, const std::vector<int64_t>& batches) {
  unlink(ReportFile().c_str());
  std::vector<std::string> environment = launch::ChildEnvironment(environ);
  environment.push_back(absl::StrCat("TMPDIR=", folder_));
  auto program = StartPiped(Arguments(ranks, batches), environment);
  if (!program.ok()) return program.status();
  std::string rest;
  const bool finished = Read(program->output, rest);
  close(program->output);
  if (!finished) KillSession(program->pid);
  int status = 0;
  while (waitpid(program->pid, &status, 0) < 0 && errno == EINTR) {
  }
  KillSession(program->pid);
  if (!finished) return absl::CancelledError("interrupted; nothing is left of the probe");

  const int code = ExitCodeOfWait(status);
  const auto text = config::ReadFile(ReportFile());
  auto report = text.ok() ? config::ParseProbeReport(*text) : text.status();
  if (code == 0) return report;
  const bool out_of_memory =
      code == static_cast<int>(TrainerExit::kOutOfMemory) || code == 128 + SIGKILL;
  if (out_of_memory && report.ok() && (report->attempting > 0 || report->does_not_fit > 0)) {
    if (report->does_not_fit == 0) {
      report->does_not_fit = report->attempting;
      report->does_not_fit_why = "a rank was killed while it was tried";
    }
    return report;
  }
  const std::string said = rest.empty() ? absl::StrCat("exit code ", code) : Reason(rest);
  return code == static_cast<int>(TrainerExit::kBadConfig) ? absl::InvalidArgumentError(said)
                                                           : absl::InternalError(said);
}

absl::StatusOr<ProbeReport> Prober::Probe(int ranks, std::vector<int64_t> batches) {
  if (absl::Status status = Prepare(); !status.ok()) return status;
  int64_t does_not_fit = 0;
  std::string why;
  while (true) {
    context_.Say(absl::StrCat("probing ", ranks, ranks == 1 ? " rank" : " ranks", " with ",
                              absl::StrJoin(batches, ", "), " samples each"));
    auto report = ProbeOnce(ranks, batches);
    if (!report.ok()) return report;
    if (report->does_not_fit == 0) {
      report->does_not_fit = does_not_fit;
      report->does_not_fit_why = why;
      return report;
    }
    does_not_fit = report->does_not_fit;
    why = report->does_not_fit_why;
    context_.Say(absl::StrCat("  ", does_not_fit, does_not_fit == 1 ? " sample" : " samples",
                              " a rank ", does_not_fit == 1 ? "does" : "do",
                              " not fit into memory"));
    // What comes after the steps (evaluation, checkpoint, all-reduce) is not known yet.
    std::erase_if(batches, [&](int64_t batch) { return batch >= does_not_fit; });
    if (batches.size() >= kFewestSizes) continue;
    if (does_not_fit <= static_cast<int64_t>(kFewestSizes)) {
      return absl::ResourceExhaustedError(absl::StrCat("a step of ", does_not_fit,
                                                       does_not_fit == 1 ? " sample" : " samples",
                                                       " a rank does not fit into memory: ", why));
    }
    batches = does_not_fit < 8 ? std::vector<int64_t>{1, does_not_fit / 2, does_not_fit - 1}
                               : config::ProbeBatches(does_not_fit / 2, {});
  }
}

}  // namespace lockstep::cli
