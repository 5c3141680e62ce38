#include "launch/launcher/mpirun.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "config/run_directory.h"
#include "launch/launcher/child_environment.h"
#include "launch/launcher/gang_files.h"
#include "launch/launcher/gang_temp.h"
#include "launch/launcher/hang.h"
#include "launch/launcher/process.h"
#include "spdlog/spdlog.h"

extern char** environ;

namespace lockstep::launch {
namespace {

using std::chrono::steady_clock;

constexpr int kMaxRanks = 4096;
constexpr size_t kMaxRunIdBytes = 63;
constexpr size_t kMaxPathBytes = 2048;
constexpr int64_t kMaxTrainerLogBytes = 4 << 20;  // mpirun itself prints little.
constexpr int kGdbSeconds = 5;

absl::Status SystemError(int error, absl::string_view doing) {
  return absl::ErrnoToStatus(error, absl::StrCat(doing, ": ", std::strerror(error)));
}

// [a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?
bool IsRunId(absl::string_view id) {
  const auto plain = [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'); };
  return !id.empty() && id.size() <= kMaxRunIdBytes && plain(id.front()) && plain(id.back()) &&
         std::all_of(id.begin(), id.end(), [&](char c) { return plain(c) || c == '-'; });
}

// An absolute path can be neither an option nor the bare `:` that starts mpirun's next program.
bool IsPlainPath(const std::string& path, size_t max_bytes) {
  return !path.empty() && path.front() == '/' && path.size() <= max_bytes &&
         std::none_of(path.begin(), path.end(),
                      [](unsigned char c) { return c < 0x20 || c == 0x7f; });
}

absl::Status CheckSpec(const LaunchSpec& spec) {
  if (!IsRunId(spec.run_id)) {
    return absl::InvalidArgumentError(
        "the run id is not [a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?; nothing was started");
  }
  if (spec.attempt < 1) return absl::InvalidArgumentError("attempts count from 1");
  if (spec.ranks < 1 || spec.ranks > kMaxRanks) {
    return absl::InvalidArgumentError(
        absl::StrCat("cannot start ", spec.ranks, " ranks; expected 1 to ", kMaxRanks));
  }
  if (!IsPlainPath(spec.run_dir.string(), kMaxPathBytes)) {
    return absl::InvalidArgumentError(
        "the run directory must be an absolute path without control characters");
  }
  if (!IsPlainPath(spec.coordinator_socket, sizeof(sockaddr_un::sun_path) - 1)) {
    return absl::InvalidArgumentError(
        absl::StrCat("the coordinator's socket must be an absolute path of at most ",
                     sizeof(sockaddr_un::sun_path) - 1, " bytes without control characters"));
  }
  if (spec.token.empty()) return absl::InvalidArgumentError("an attempt needs a token");
  return absl::OkStatus();
}

absl::StatusOr<std::string> FindProgram(const std::string& name) {
  if (name.find('/') != std::string::npos) {
    if (access(name.c_str(), X_OK) == 0) return name;
    return absl::NotFoundError(absl::StrCat("cannot run ", name, ": ", std::strerror(errno)));
  }
  const char* path = std::getenv("PATH");  // NOLINT(concurrency-mt-unsafe): nobody sets it.
  for (const absl::string_view folder :
       absl::StrSplit(path != nullptr ? path : "/usr/bin:/bin", ':')) {
    std::string candidate = absl::StrCat(folder, "/", name);
    if (absl::StartsWith(folder, "/") && access(candidate.c_str(), X_OK) == 0) return candidate;
  }
  return absl::NotFoundError(
      absl::StrCat("there is no ", name,
                   " in PATH; install Open MPI (Debian: openmpi-bin) or run scripts/setup"));
}

// Durable, and never readable by others, not even for a moment.
absl::Status WriteToken(const std::filesystem::path& attempt_dir, const std::string& token) {
  const std::filesystem::path temporary = attempt_dir / "token.tmp";
  unlink(temporary.c_str());
  const int fd =
      open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (fd < 0) return SystemError(errno, absl::StrCat("writing ", temporary.string()));
  const bool written =
      write(fd, token.data(), token.size()) == static_cast<ssize_t>(token.size()) && fsync(fd) == 0;
  const int error = errno;
  close(fd);
  if (!written) return SystemError(error, absl::StrCat("writing ", temporary.string()));
  if (rename(temporary.c_str(), (attempt_dir / "token").c_str()) != 0) {
    return SystemError(errno, absl::StrCat("renaming ", temporary.string()));
  }
  const int folder = open(attempt_dir.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (folder < 0 || fsync(folder) != 0) {
    const int folder_error = errno;
    if (folder >= 0) close(folder);
    return SystemError(folder_error, absl::StrCat("syncing ", attempt_dir.string()));
  }
  close(folder);
  return absl::OkStatus();
}

std::vector<char*> Pointers(std::vector<std::string>& strings) {
  std::vector<char*> pointers;
  pointers.reserve(strings.size() + 1);
  for (std::string& text : strings) pointers.push_back(text.data());
  pointers.push_back(nullptr);
  return pointers;
}

// posix_spawn rather than fork: between fork and exec of a program with many threads hardly
// anything is allowed, and posix_spawn can do all that is needed here: a session of its own, every
// signal at its default and unblocked, stdin from nowhere, output appended to `log`, no other file
// open.
absl::StatusOr<pid_t> Spawn(const std::string& program, std::vector<std::string> arguments,
                            std::vector<std::string> environment,
                            const std::filesystem::path& folder, const std::filesystem::path& log) {
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_addopen(&actions, 1, log.c_str(),
                                   O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW, 0640);
  posix_spawn_file_actions_adddup2(&actions, 1, 2);
  posix_spawn_file_actions_addclosefrom_np(&actions, 3);
  posix_spawn_file_actions_addchdir_np(&actions, folder.c_str());

  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  posix_spawnattr_setflags(&attributes,
                           POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  sigset_t none;
  sigemptyset(&none);
  posix_spawnattr_setsigmask(&attributes, &none);
  sigset_t all;
  sigfillset(&all);
  posix_spawnattr_setsigdefault(&attributes, &all);

  const std::vector<char*> argv = Pointers(arguments);
  const std::vector<char*> envp = Pointers(environment);
  pid_t pid = 0;
  const int error =
      posix_spawn(&pid, program.c_str(), &actions, &attributes, argv.data(), envp.data());
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&actions);
  if (error != 0) {
    return SystemError(error,
                       absl::StrCat("starting ", program, " with its output in ", log.string()));
  }
  return pid;
}

std::string Mark(const std::filesystem::path& attempt_dir) {
  return absl::StrCat("LOCKSTEP_ATTEMPT_DIR=", attempt_dir.string());
}

bool SameBoot(const std::optional<GangRecord>& record) {
  return !record || record->boot_id.empty() || record->boot_id == BootId();
}

// Every live process of the gang but mpirun itself: pid and start time.
std::vector<Gang> Ranks(const Gang& gang, const std::filesystem::path& attempt_dir) {
  std::vector<Gang> found;
  if (gang.pid <= 1 || !SameBoot(ReadGangRecord(attempt_dir))) return found;
  // While mpirun lives nobody else can have its session. After that the number could belong to a
  // later session, so a process must also carry this attempt's mark in its environment.
  const bool leader = ReadProcessStat(gang.pid, gang.start_time_ticks).has_value();
  const std::string mark = Mark(attempt_dir);
  for (const ProcessStat& member : SessionMembers(gang.pid)) {
    if (member.pid == gang.pid || member.start_time_ticks < gang.start_time_ticks) continue;
    if (leader || StartedWith(member.pid, mark)) {
      found.push_back({member.pid, member.start_time_ticks});
    }
  }
  for (const ObservedRank& rank : ReadRanks(attempt_dir / "board")) {
    const Gang process{rank.board.pid, rank.board.start_time_ticks};
    if (rank.state == 'X' || rank.state == 'Z' || process.pid == gang.pid) continue;
    const bool known = std::any_of(found.begin(), found.end(),
                                   [&](const Gang& other) { return other.pid == process.pid; });
    if (!known) found.push_back(process);
  }
  return found;
}

void KillAll(const std::vector<Gang>& processes) {
  for (const Gang& process : processes) {
    SignalProcess(process.pid, process.start_time_ticks, SIGKILL);
  }
}

}  // namespace

MpirunLauncher::MpirunLauncher(MpirunOptions options) : options_(std::move(options)) {}

std::vector<std::string> MpirunLauncher::Arguments(const LaunchSpec& spec) const {
  std::vector<std::string> arguments = {options_.mpirun};
  if (options_.allow_root && geteuid() == 0) arguments.emplace_back("--allow-run-as-root");
  if (options_.oversubscribe) arguments.emplace_back("--oversubscribe");
  // Open MPI's own default would bind each rank to one core, and all its threads with it.
  for (const char* argument : {"--bind-to", "none", "--map-by", "slot", "-np"}) {
    arguments.emplace_back(argument);
  }
  arguments.push_back(absl::StrCat(spec.ranks));
  arguments.push_back(options_.trainer);
  arguments.push_back(config::RunDirectory(spec.run_dir).run_yaml().string());
  const std::array<std::pair<const char*, std::string>, 5> flags = {{
      {"--run-dir", spec.run_dir.string()},
      {"--attempt", absl::StrCat(spec.attempt)},
      {"--coordinator", spec.coordinator_socket},
      {"--run-id", spec.run_id},
      {"--log-limit", absl::StrCat(options_.log_limit_bytes)},
  }};
  for (const auto& [name, value] : flags) {
    arguments.emplace_back(name);
    arguments.push_back(value);
  }
  return arguments;
}

std::vector<std::string> MpirunLauncher::Environment(char** environment, const LaunchSpec& spec,
                                                     const std::string& tmp_dir) {
  std::vector<std::string> passed = ChildEnvironment(environment);
  if (!spec.gpus.empty()) {
    std::erase_if(passed, [](const std::string& assignment) {
      return absl::StartsWith(assignment, "CUDA_VISIBLE_DEVICES=") ||
             absl::StartsWith(assignment, "CUDA_DEVICE_ORDER=");
    });
    passed.push_back(absl::StrCat("CUDA_VISIBLE_DEVICES=", absl::StrJoin(spec.gpus, ",")));
    // The numbers are the driver's. CUDA's own default, the fastest first, is another order where
    // the cards differ.
    passed.push_back("CUDA_DEVICE_ORDER=PCI_BUS_ID");
  }
  passed.push_back(absl::StrCat("TMPDIR=", tmp_dir));
  passed.push_back(Mark(config::RunDirectory(spec.run_dir).attempt(spec.attempt)));
  return passed;
}

absl::StatusOr<Gang> MpirunLauncher::Start(const LaunchSpec& spec) {
  if (absl::Status status = CheckSpec(spec); !status.ok()) return status;
  if (geteuid() == 0 && !options_.allow_root) {
    return absl::PermissionDeniedError(
        "ranks are not run as root unless that is asked for; start lockstepd as a normal user, or "
        "opt in with `allow_root_mpirun: true` in lockstepd.yaml or --allow-root-mpirun");
  }
  if (!IsPlainPath(options_.trainer, kMaxPathBytes)) {
    return absl::InvalidArgumentError("the path of lockstep-trainer must be absolute");
  }
  const absl::StatusOr<std::string> trainer = FindProgram(options_.trainer);
  if (!trainer.ok()) return trainer.status();
  const absl::StatusOr<std::string> mpirun = FindProgram(options_.mpirun);
  if (!mpirun.ok()) return mpirun.status();

  const config::RunDirectory directory(spec.run_dir);
  const std::filesystem::path attempt_dir = directory.attempt(spec.attempt);
  std::error_code error;
  std::filesystem::create_directories(attempt_dir, error);
  if (error) return SystemError(error.value(), absl::StrCat("making ", attempt_dir.string()));
  for (const char* stale : {"gang.json", "end.json"})
    std::filesystem::remove(attempt_dir / stale, error);
  if (absl::Status status = WriteToken(attempt_dir, spec.token); !status.ok()) return status;
  SweepGangTempDirs();
  absl::StatusOr<std::string> tmp_dir = MakeGangTempDir();
  if (!tmp_dir.ok()) return tmp_dir.status();

  GangRecord record;
  record.boot_id = BootId();
  record.tmp_dir = *tmp_dir;
  record.run_id = spec.run_id;
  record.out_of_memory_kills = OutOfMemoryKills();
  const absl::StatusOr<pid_t> pid =
      Spawn(*mpirun, Arguments(spec), Environment(environ, spec, *tmp_dir), spec.run_dir,
            directory.trainer_log(spec.attempt));
  if (!pid.ok()) {
    RemoveGangTempDir(*tmp_dir);
    return pid.status();
  }
  // Our child stays at least a zombie until we wait for it, so it can be read.
  const std::optional<ProcessStat> stat = ReadProcessStat(*pid);
  record.gang = {*pid, stat ? stat->start_time_ticks : 0};
  SetGangTempDirOwner(*tmp_dir, record.gang);
  if (absl::Status status = WriteGangRecord(attempt_dir, record); !status.ok()) {
    spdlog::warn("cannot record the processes of run {}: {}", spec.run_id, status.ToString());
  }
  const std::lock_guard lock(mutex_);
  watched_[{record.gang.pid, record.gang.start_time_ticks}].child = true;
  return record.gang;
}

bool MpirunLauncher::LeaderAlive(const Gang& gang, Watched& watched) {
  if (watched.child && !watched.wait_status) {
    int status = 0;
    const pid_t waited = waitpid(static_cast<pid_t>(gang.pid), &status, WNOHANG);
    if (waited == 0) return true;
    if (waited == gang.pid) {
      watched.wait_status = status;
      return false;
    }
    watched.child = false;  // Somebody else reaped it: go by what /proc says.
  }
  return !watched.wait_status && IsAlive(gang.pid, gang.start_time_ticks);
}

std::optional<GangEnd> MpirunLauncher::Poll(const Gang& gang, const std::filesystem::path& run_dir,
                                            int attempt) {
  const config::RunDirectory directory(run_dir);
  const std::filesystem::path attempt_dir = directory.attempt(attempt);
  BoundLog(directory.trainer_log(attempt), std::min(kMaxTrainerLogBytes, options_.log_limit_bytes));

  const std::lock_guard lock(mutex_);
  const Key key{gang.pid, gang.start_time_ticks};
  Watched& watched = watched_[key];
  const std::optional<GangRecord> record = ReadGangRecord(attempt_dir);
  if (SameBoot(record) && LeaderAlive(gang, watched)) {
    // A stopped mpirun never notices that its ranks have ended.
    const std::optional<ProcessStat> stat = ReadProcessStat(gang.pid, gang.start_time_ticks);
    if (stat && stat->stopped() && !ReadRanks(attempt_dir / "board").empty() &&
        Ranks(gang, attempt_dir).empty()) {
      SignalProcess(gang.pid, gang.start_time_ticks, SIGKILL);
    }
    return std::nullopt;
  }
  const std::vector<Gang> orphans = Ranks(gang, attempt_dir);
  if (!orphans.empty()) {
    const steady_clock::time_point now = steady_clock::now();
    if (!watched.leader_gone) watched.leader_gone = now;
    if (watched.killed || now - *watched.leader_gone >= options_.orphan_grace) KillAll(orphans);
    return std::nullopt;
  }
  if (record) RemoveGangTempDir(record->tmp_dir);
  EndEvidence evidence;
  evidence.wait_status = watched.wait_status;
  evidence.killed = watched.killed;
  evidence.out_of_memory =
      record && SameBoot(record) && OutOfMemoryKills() > record->out_of_memory_kills;
  watched_.erase(key);
  const bool ours = record && record->gang.pid == gang.pid &&
                    record->gang.start_time_ticks == gang.start_time_ticks;
  if (ours) {
    if (std::optional<GangEnd> known = ReadGangEnd(attempt_dir)) return known;
  }
  GangEnd end = ExplainEnd(run_dir, attempt, evidence);
  if (ours) WriteGangEnd(attempt_dir, end);
  return end;
}

void MpirunLauncher::Kill(const Gang& gang, const std::filesystem::path& run_dir, int attempt) {
  const std::filesystem::path attempt_dir = config::RunDirectory(run_dir).attempt(attempt);
  {
    const std::lock_guard lock(mutex_);
    watched_[{gang.pid, gang.start_time_ticks}].killed = true;
  }
  // The ranks are looked up while mpirun, whose session they are in, is still there; it dies first
  // so that it starts nothing more.
  const std::vector<Gang> ranks = Ranks(gang, attempt_dir);
  if (SameBoot(ReadGangRecord(attempt_dir))) {
    SignalProcess(gang.pid, gang.start_time_ticks, SIGKILL);
  }
  KillAll(ranks);
}

HangReport MpirunLauncher::DescribeHang(const Gang& gang, const std::filesystem::path& run_dir,
                                        int attempt) {
  const std::filesystem::path attempt_dir = config::RunDirectory(run_dir).attempt(attempt);
  const std::vector<ObservedRank> ranks = ReadRanks(attempt_dir / "board");
  HangReport report = FindCulprit(ranks);
  const std::optional<ProcessStat> leader = ReadProcessStat(gang.pid, gang.start_time_ticks);
  const bool rank_is_down = std::any_of(ranks.begin(), ranks.end(), [](const ObservedRank& rank) {
    return absl::string_view("XZTt").find(rank.state) != absl::string_view::npos;
  });
  if (leader && leader->stopped() && !rank_is_down) {
    report = {-1, report.phase, absl::StrCat("mpirun (pid ", gang.pid, ") is stopped (state T)")};
  }
  WriteStacks(attempt_dir / "hang.txt", report, ranks, kGdbSeconds);
  return report;
}

std::optional<Gang> MpirunLauncher::Find(const std::filesystem::path& run_dir, int attempt) {
  const std::optional<GangRecord> record =
      ReadGangRecord(config::RunDirectory(run_dir).attempt(attempt));
  if (!record || !SameBoot(record)) return std::nullopt;
  return record->gang;
}

}  // namespace lockstep::launch
