#include "launch/cli/programs.h"

#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace lockstep::cli {
namespace {

constexpr size_t kMostOutput = 64u << 10;

bool IsProgram(const std::filesystem::path& path) {
  std::error_code error;
  return std::filesystem::is_regular_file(path, error) && access(path.c_str(), X_OK) == 0;
}

// What posix_spawn needs and must give back.
class SpawnPlan {
 public:
  SpawnPlan() {
    posix_spawn_file_actions_init(&actions);
    posix_spawnattr_init(&attributes);
    // The child starts with the signals of a fresh shell, whatever this program blocks or ignores.
    sigset_t none;
    sigset_t all;
    sigemptyset(&none);
    sigfillset(&all);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setsigdefault(&attributes, &all);
  }
  ~SpawnPlan() {
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attributes);
  }
  absl::StatusOr<int> Spawn(const std::vector<std::string>& arguments, short extra_flags,
                            char** environment = environ) {
    posix_spawnattr_setflags(&attributes, static_cast<short>(POSIX_SPAWN_SETSIGMASK |
                                                             POSIX_SPAWN_SETSIGDEF | extra_flags));
    std::vector<char*> argv;
    argv.reserve(arguments.size() + 1);
    for (const std::string& argument : arguments)
      argv.push_back(const_cast<char*>(argument.c_str()));
    argv.push_back(nullptr);
    pid_t pid = 0;
    const int error = posix_spawnp(&pid, argv[0], &actions, &attributes, argv.data(), environment);
    if (error == 0) return pid;
    const std::string text = absl::StrCat("cannot start ", arguments[0], ": ", strerror(error));
    return error == ENOENT ? absl::NotFoundError(text) : absl::InternalError(text);
  }

  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;
};

int ExitCodeOfWait(int status) {
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

}  // namespace

absl::StatusOr<std::filesystem::path> FindProgram(const std::string& name) {
  std::error_code error;
  const std::filesystem::path self = std::filesystem::read_symlink("/proc/self/exe", error);
  const std::filesystem::path beside = self.parent_path() / name;
  if (!error && IsProgram(beside)) return beside;
  const char* path = getenv("PATH");
  for (absl::string_view folder : absl::StrSplit(path == nullptr ? "" : path, ':')) {
    const std::filesystem::path candidate = std::filesystem::path(std::string(folder)) / name;
    if (!folder.empty() && IsProgram(candidate)) return candidate;
  }
  return absl::NotFoundError(absl::StrCat("there is no program ", name, " in ",
                                          self.parent_path().string(), " or in the search path"));
}

absl::StatusOr<ProgramOutput> RunProgram(const std::vector<std::string>& arguments,
                                         double timeout_seconds) {
  int pipe_fds[2];
  if (pipe2(pipe_fds, O_CLOEXEC) != 0) {
    return absl::InternalError(absl::StrCat("cannot make a pipe: ", strerror(errno)));
  }
  SpawnPlan plan;
  posix_spawn_file_actions_addopen(&plan.actions, 0, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_adddup2(&plan.actions, pipe_fds[1], 1);
  posix_spawn_file_actions_adddup2(&plan.actions, pipe_fds[1], 2);
  auto pid = plan.Spawn(arguments, 0);
  close(pipe_fds[1]);
  if (!pid.ok()) {
    close(pipe_fds[0]);
    return pid.status();
  }
  ProgramOutput output;
  const auto deadline =
      std::chrono::steady_clock::now() + std::chrono::duration<double>(timeout_seconds);
  bool late = false;
  while (true) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(
        deadline - std::chrono::steady_clock::now());
    pollfd fd{pipe_fds[0], POLLIN, 0};
    if (left.count() <= 0 || poll(&fd, 1, static_cast<int>(left.count())) == 0) {
      late = true;
      break;
    }
    char buffer[4096];
    const ssize_t count = read(pipe_fds[0], buffer, sizeof buffer);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) break;
    const size_t room = kMostOutput - output.text.size();
    output.text.append(buffer, std::min(static_cast<size_t>(count), room));
  }
  close(pipe_fds[0]);
  if (late) kill(*pid, SIGKILL);
  int status = 0;
  while (waitpid(*pid, &status, 0) < 0 && errno == EINTR) {
  }
  if (late) {
    return absl::DeadlineExceededError(
        absl::StrCat(arguments[0], " did not answer within ", timeout_seconds, " s"));
  }
  output.exit_code = ExitCodeOfWait(status);
  return output;
}

absl::StatusOr<int> StartDetached(const std::vector<std::string>& arguments,
                                  const std::filesystem::path& log) {
  // Opened here first, so that the reason of a failure has a name.
  const int fd = open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  if (fd < 0) {
    return absl::InternalError(absl::StrCat("cannot write ", log.string(), ": ", strerror(errno)));
  }
  SpawnPlan plan;
  posix_spawn_file_actions_addopen(&plan.actions, 0, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_adddup2(&plan.actions, fd, 1);
  posix_spawn_file_actions_adddup2(&plan.actions, fd, 2);
  // Nothing of the shell that started this program may stay open in a daemon.
  posix_spawn_file_actions_addclosefrom_np(&plan.actions, 3);
  auto pid = plan.Spawn(arguments, POSIX_SPAWN_SETSID);
  close(fd);
  return pid;
}

absl::StatusOr<PipedProgram> StartPiped(const std::vector<std::string>& arguments,
                                        const std::vector<std::string>& environment) {
  int pipe_fds[2];
  if (pipe2(pipe_fds, O_CLOEXEC) != 0) {
    return absl::InternalError(absl::StrCat("cannot make a pipe: ", strerror(errno)));
  }
  std::vector<char*> variables;
  variables.reserve(environment.size() + 1);
  for (const std::string& variable : environment) {
    variables.push_back(const_cast<char*>(variable.c_str()));
  }
  variables.push_back(nullptr);
  SpawnPlan plan;
  posix_spawn_file_actions_addopen(&plan.actions, 0, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_adddup2(&plan.actions, pipe_fds[1], 1);
  posix_spawn_file_actions_adddup2(&plan.actions, pipe_fds[1], 2);
  posix_spawn_file_actions_addclosefrom_np(&plan.actions, 3);
  auto pid = plan.Spawn(arguments, POSIX_SPAWN_SETSID, variables.data());
  close(pipe_fds[1]);
  if (!pid.ok()) {
    close(pipe_fds[0]);
    return pid.status();
  }
  return PipedProgram{*pid, pipe_fds[0]};
}

absl::Status BecomeProgram(const std::vector<std::string>& arguments) {
  std::vector<char*> argv;
  argv.reserve(arguments.size() + 1);
  for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  // What this program has open (a connection to the coordinator) and ignores is not the other's.
  for (int fd = 3; fd < 256; ++fd) fcntl(fd, F_SETFD, FD_CLOEXEC);
  signal(SIGPIPE, SIG_DFL);
  execv(argv[0], argv.data());
  return absl::InternalError(absl::StrCat("cannot start ", arguments[0], ": ", strerror(errno)));
}

}  // namespace lockstep::cli
