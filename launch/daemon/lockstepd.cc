// lockstepd: the coordinator. It stays in the foreground; `lockstep daemon start` detaches it.
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cerrno>
#include <cstdio>
#include <memory>

#include "config/load.h"
#include "config/run_directory.h"
#include "launch/daemon/daemon.h"
#include "launch/daemon/log_counter.h"

#ifndef LOCKSTEP_VERSION
#define LOCKSTEP_VERSION "unknown"
#define LOCKSTEP_GIT_SHA ""
#define LOCKSTEP_TORCH_VERSION ""
#define LOCKSTEP_NCCL_VERSION ""
#endif

namespace {

using lockstep::config::ExitCode;

struct Arguments {
  std::string config_file;
  std::vector<std::string> set;
  std::string state_dir;
  std::string socket;
  bool allow_root_mpirun = false;
};

constexpr rlim_t kWantedDescriptors = 16384;

// The handlers' only way out. An eventfd, not a blocked signal: mpirun would inherit a mask.
int wake_fd = -1;

void Wake(int) {
  const int saved = errno;
  const uint64_t one = 1;
  if (write(wake_fd, &one, sizeof(one)) < 0) {
    // The counter is full: it was woken already.
  }
  errno = saved;
}

void Ignore(int) {}

void Handle(int number, void (*handler)(int)) {
  struct sigaction action {};
  action.sa_handler = handler;
  action.sa_flags = SA_RESTART;
  sigemptyset(&action.sa_mask);
  sigaction(number, &action, nullptr);
}

// Returns what counts the log's messages.
std::shared_ptr<lockstep::launch::LogCounter> SetUpProcess() {
  wake_fd = eventfd(0, EFD_CLOEXEC);
  for (const int number : {SIGTERM, SIGINT, SIGHUP}) Handle(number, Wake);
  // A handler, not SIG_IGN: programs that are started would inherit that.
  Handle(SIGPIPE, Ignore);
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < kWantedDescriptors) {
    limit.rlim_cur = std::min(kWantedDescriptors, limit.rlim_max);
    setrlimit(RLIMIT_NOFILE, &limit);
  }
  auto counter = std::make_shared<lockstep::launch::LogCounter>();
  spdlog::set_default_logger(std::make_shared<spdlog::logger>(
      "lockstepd",
      spdlog::sinks_init_list{std::make_shared<spdlog::sinks::stderr_sink_mt>(), counter}));
  spdlog::set_pattern("%Y-%m-%dT%H:%M:%S.%e%z %l %v");
  spdlog::flush_on(spdlog::level::info);
  return counter;
}

int Fail(ExitCode code, const std::string& message) {
  std::fprintf(stderr, "lockstepd: %s\n", message.c_str());
  return static_cast<int>(code);
}

// Reads the config; an error text when something is wrong.
std::string Load(const Arguments& arguments, lockstep::config::CoordinatorConfig& config) {
  std::string yaml;
  if (!arguments.config_file.empty()) {
    auto text = lockstep::config::ReadFile(arguments.config_file, 1u << 20);
    if (!text.ok()) return std::string(text.status().message());
    yaml = *std::move(text);
  }
  std::vector<lockstep::config::Override> overrides;
  for (const std::string& text : arguments.set) {
    auto parsed = lockstep::config::ParseOverride(text);
    if (!parsed.ok()) return std::string(parsed.status().message());
    overrides.push_back(*std::move(parsed));
  }
  const std::string name = arguments.config_file.empty() ? "lockstepd.yaml" : arguments.config_file;
  auto loaded = lockstep::config::LoadCoordinatorConfig(yaml, name, overrides);
  if (!loaded.ok()) return loaded.Report();
  config = std::move(loaded.config);
  if (!arguments.state_dir.empty()) config.state_dir = arguments.state_dir;
  if (!arguments.socket.empty()) config.socket = arguments.socket;
  if (arguments.allow_root_mpirun) config.allow_root_mpirun = true;
  return {};
}

int Serve(const Arguments& arguments) {
  const auto log_counter = SetUpProcess();
  lockstep::launch::DaemonOptions options;
  options.log_messages = [log_counter] { return log_counter->Counts(); };
  options.build = {.version = LOCKSTEP_VERSION,
                   .git_sha = LOCKSTEP_GIT_SHA,
                   .torch = LOCKSTEP_TORCH_VERSION,
                   .nccl = LOCKSTEP_NCCL_VERSION};
  options.shut_down = [] { Wake(0); };
  if (std::string problem = Load(arguments, options.config); !problem.empty()) {
    return Fail(ExitCode::kUsage, problem);
  }
  lockstep::launch::DaemonError error;
  std::unique_ptr<lockstep::launch::Daemon> daemon =
      lockstep::launch::Daemon::Start(std::move(options), error);
  if (!daemon) return Fail(error.exit_code, error.message);
  spdlog::info("lockstepd {} (pid {}) serves {}", LOCKSTEP_VERSION, getpid(), daemon->socket());
  if (daemon->tcp_port() != 0) spdlog::info("TCP on loopback port {}", daemon->tcp_port());
  if (daemon->metrics_port() != 0) {
    spdlog::info("metrics on http://127.0.0.1:{}/metrics", daemon->metrics_port());
  }
  pollfd wake{wake_fd, POLLIN, 0};
  while (poll(&wake, 1, -1) <= 0) {
  }
  spdlog::info("shutting down; runs go on");
  daemon.reset();
  return static_cast<int>(ExitCode::kOk);
}

}  // namespace

int main(int argc, char** argv) {
  Arguments arguments;
  bool foreground = false;
  CLI::App app(
      "The Lockstep coordinator: queues runs, launches them under mpirun and looks after them.");
  app.set_version_flag("--version", std::string("lockstepd ") + LOCKSTEP_VERSION);
  app.add_option("--config", arguments.config_file, "Config file (YAML)");
  app.add_option("--set", arguments.set, "a.b=c, in place of the file's value; may be repeated")
      ->allow_extra_args(false);
  app.add_option("--state-dir", arguments.state_dir, "Folder for the run store and the runs");
  app.add_option("--socket", arguments.socket, "Unix socket to serve on");
  app.add_flag("--allow-root-mpirun", arguments.allow_root_mpirun, "Run ranks as root");
  app.add_flag("--foreground", foreground, "Stay in the foreground (it always does)");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : static_cast<int>(ExitCode::kUsage);
  }
  return Serve(arguments);
}
