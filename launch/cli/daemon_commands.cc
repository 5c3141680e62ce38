// daemon start|stop|status.
#include <sys/wait.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <memory>
#include <optional>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "config/coordinator_config.h"
#include "launch/cli/format.h"
#include "launch/cli/programs.h"
#include "launch/cli/run_file.h"
#include "launch/cli/run_json.h"
#include "launch/cli/table.h"
#include "launch/cli/verbs.h"

namespace lockstep::cli {
namespace {

using config::ExitCode;
namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

constexpr double kStartSeconds = 15;
constexpr uintmax_t kLogLimitBytes = 16u << 20;

struct StartOptions {
  std::string config_file;
  std::string state_dir;
  std::string metrics_address;
  std::vector<std::string> overrides;
  bool allow_root_mpirun = false;
};

absl::StatusOr<v1::GetStatusResponse> GetStatus(const std::string& socket, double seconds) {
  Client client({.socket = socket, .timeout_seconds = seconds});
  return client.Read(&ControlStub::GetStatus, v1::GetStatusRequest());
}

std::string MetricsUrl(const v1::GetStatusResponse& status) {
  if (status.metrics_address().empty()) return "off";
  return absl::StrCat("http://", status.metrics_address(), "/metrics");
}

std::string Describe(const v1::GetStatusResponse& status) {
  std::vector<std::pair<std::string, std::string>> fields = {
      {"pid", absl::StrCat(status.pid())},
      {"version", Printable(status.version())},
      {"up for", FormatSeconds(status.uptime_seconds())},
      {"socket", Printable(status.socket())},
  };
  if (!status.tcp_address().empty()) fields.emplace_back("tcp", Printable(status.tcp_address()));
  fields.emplace_back("metrics", Printable(MetricsUrl(status)));
  fields.emplace_back("state", Printable(status.state_dir()));
  fields.emplace_back("slots", absl::StrCat(status.free_slots(), " of ", status.slots(), " free"));
  fields.emplace_back("runs",
                      absl::StrCat(status.running(), " running, ", status.queued(), " queued"));
  return RenderFields(fields);
}

// ---- start

// What the daemon will be told, to know here where it will listen and log.
absl::StatusOr<config::CoordinatorConfig> DaemonConfig(const StartOptions& options,
                                                       const std::vector<std::string>& set) {
  std::string yaml;
  if (!options.config_file.empty()) {
    auto text = ReadText(options.config_file);
    if (!text.ok()) return text.status();
    yaml = *std::move(text);
  }
  auto overrides = ParseOverrides(set);
  if (!overrides.ok()) return overrides.status();
  auto loaded = config::LoadCoordinatorConfig(
      yaml, options.config_file.empty() ? "lockstepd.yaml" : options.config_file, *overrides);
  if (!loaded.ok()) return absl::InvalidArgumentError(loaded.Report());
  return loaded.config;
}

// A log that grew over years starts anew; the one before is kept.
void RotateLog(const fs::path& log) {
  std::error_code error;
  if (fs::file_size(log, error) > kLogLimitBytes && !error) {
    fs::rename(log, log.string() + ".1", error);
  }
}

std::string LastLines(const fs::path& log, std::uintmax_t from, size_t lines) {
  std::ifstream file(log);
  file.seekg(static_cast<std::streamoff>(from));
  std::vector<std::string> kept;
  for (std::string line; std::getline(file, line);) {
    kept.push_back("  | " + Printable(line));
    if (kept.size() > lines) kept.erase(kept.begin());
  }
  return absl::StrJoin(kept, "\n");
}

int SayServing(Context& context, const v1::GetStatusResponse& status, bool already) {
  if (context.json()) {
    Json json = ToJson(status);
    json["already_running"] = already;
    context.out.Write(Document(json));
    return Code(ExitCode::kOk);
  }
  context.out.Write(
      absl::StrCat(already ? "a coordinator runs already\n" : "the coordinator serves\n",
                   RenderFields({{"  pid", absl::StrCat(status.pid())},
                                 {"  socket", Printable(status.socket())},
                                 {"  metrics", Printable(MetricsUrl(status))},
                                 {"  state", Printable(status.state_dir())}})));
  if (status.socket() != config::DefaultSocket().string()) {
    context.Say(absl::StrCat("  hint: `export LOCKSTEP_SOCKET=", status.socket(),
                             "` lets the other verbs find it"));
  }
  return Code(ExitCode::kOk);
}

int NotServing(Context& context, const std::string& what, const fs::path& log,
               std::uintmax_t log_start, int exit_code) {
  const std::string lines = LastLines(log, log_start, 12);
  context.Say(absl::StrCat("lockstep daemon start: ", what,
                           lines.empty() ? "; it said nothing in " : "; the end of ", log.string(),
                           lines.empty() ? "" : ":\n", lines));
  return exit_code;
}

int WaitUntilServing(Context& context, int pid, const std::string& socket, const fs::path& log,
                     std::uintmax_t log_start) {
  const auto deadline = Clock::now() + std::chrono::duration<double>(context.timeout_seconds > 0
                                                                         ? context.timeout_seconds
                                                                         : kStartSeconds);
  while (Clock::now() < deadline) {
    int status = 0;
    const bool ended = waitpid(pid, &status, WNOHANG) == pid;
    if (auto serving = GetStatus(socket, 1); serving.ok()) {
      // Another one that won the race for the state folder serves just as well.
      return SayServing(context, *serving, serving->pid() != pid);
    }
    if (ended) {
      const int code = WIFEXITED(status) ? WEXITSTATUS(status) : Code(ExitCode::kRunFailed);
      return NotServing(context,
                        WIFEXITED(status)
                            ? absl::StrCat("lockstepd ended with exit code ", code)
                            : absl::StrCat("lockstepd was killed by signal ", WTERMSIG(status)),
                        log, log_start, code == 0 ? Code(ExitCode::kUnavailable) : code);
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  return NotServing(context,
                    absl::StrCat("lockstepd (pid ", pid, ") runs but does not answer on ", socket),
                    log, log_start, Code(ExitCode::kDeadline));
}

int StartVerb(Context& context, const StartOptions& options, bool socket_given) {
  std::vector<std::string> set = options.overrides;
  const auto add = [&](const char* key, const std::string& path) {
    if (!path.empty()) set.push_back(absl::StrCat(key, "=", path));
  };
  const auto absolute = [](const std::string& path) {
    std::error_code error;
    return path.empty() ? path : fs::absolute(path, error).lexically_normal().string();
  };
  add("state_dir", absolute(options.state_dir));
  // LOCKSTEP_SOCKET is where the others will look, so it is where the daemon must listen, unless a
  // state folder of its own was asked for: that one brings its own socket.
  if (socket_given || (options.state_dir.empty() && getenv("LOCKSTEP_SOCKET") != nullptr)) {
    add("socket", absolute(context.socket));
  }
  add("metrics_address", options.metrics_address);
  if (options.allow_root_mpirun) set.push_back("allow_root_mpirun=true");

  auto daemon_config = DaemonConfig(options, set);
  if (!daemon_config.ok()) return Fail(context, "daemon start", daemon_config.status());
  const fs::path state_dir = daemon_config->state_dir.empty() ? config::DefaultStateDir()
                                                              : fs::path(daemon_config->state_dir);
  const std::string socket = daemon_config->socket.empty() ? (state_dir / "lockstepd.sock").string()
                                                           : daemon_config->socket;
  if (auto status = GetStatus(socket, 2); status.ok()) {
    return SayServing(context, *status, /*already=*/true);
  } else if (!absl::IsUnavailable(status.status())) {
    return Fail(context, "daemon start", status.status());
  }
  auto program = FindProgram("lockstepd");
  if (!program.ok()) {
    return Fail(context, "daemon start", absl::InternalError(program.status().message()),
                "build it with `cmake --build`, or put its folder into PATH");
  }
  std::error_code error;
  const bool made = fs::create_directories(state_dir, error);
  if (error) {
    return Fail(context, "daemon start",
                absl::InternalError(absl::StrCat("cannot make the state folder ",
                                                 state_dir.string(), ": ", error.message())),
                "`--state-dir DIR` takes another one");
  }
  // Configs and logs are the user's own; who wants to share the folder makes it beforehand.
  if (made) fs::permissions(state_dir, fs::perms::owner_all, error);
  const fs::path log = state_dir / "lockstepd.log";
  RotateLog(log);
  std::vector<std::string> arguments = {program->string()};
  if (!options.config_file.empty()) {
    arguments.insert(arguments.end(), {"--config", absolute(options.config_file)});
  }
  for (const std::string& text : set) arguments.insert(arguments.end(), {"--set", text});
  const std::uintmax_t log_size = fs::file_size(log, error);
  auto pid = StartDetached(arguments, log);
  if (!pid.ok()) return Fail(context, "daemon start", pid.status());
  return WaitUntilServing(context, *pid, socket, log, error ? 0 : log_size);
}

// ---- stop, status

// A process that ended but was not reaped yet (its starter is gone, and not every container has an
// init that reaps) counts as ended.
bool Alive(int64_t pid) {
  if (pid <= 0) return false;
  std::ifstream file(absl::StrCat("/proc/", pid, "/stat"));
  std::string text;
  if (!std::getline(file, text)) return false;
  // "PID (name) STATE …"; the name may hold anything.
  const size_t end_of_name = text.rfind(") ");
  if (end_of_name == std::string::npos || end_of_name + 2 >= text.size()) return false;
  const char state = text[end_of_name + 2];
  return state != 'Z' && state != 'X';
}

int StopVerb(Context& context, bool stop_runs) {
  auto status =
      GetStatus(context.socket, context.timeout_seconds > 0 ? context.timeout_seconds : 5);
  if (absl::IsUnavailable(status.status())) {
    if (context.json()) context.out.Write(Document(Json{{"stopped", false}, {"pid", nullptr}}));
    context.Say(std::string(status.status().message()));
    return Code(ExitCode::kOk);
  }
  if (!status.ok()) return Fail(context, "daemon stop", status.status());
  v1::ShutdownRequest request;
  request.set_request_id(NewRequestId());
  request.set_stop_runs(stop_runs);
  const double seconds = stop_runs ? kOrderSeconds : 30;
  Client client = MakeClient(context, seconds);
  const auto response = client.Read(&ControlStub::Shutdown, request);
  // A daemon that is going down may close the connection before it has answered.
  if (!response.ok() && !IsTransportFailure(response.status())) {
    return Fail(context, "daemon stop", response.status());
  }
  const auto deadline = Clock::now() + std::chrono::duration<double>(seconds);
  while (Alive(status->pid())) {
    if (Clock::now() > deadline) {
      return Fail(context, "daemon stop",
                  absl::DeadlineExceededError(
                      absl::StrCat("the coordinator (pid ", status->pid(), ") is still there")));
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  if (context.json()) {
    context.out.Write(Document(Json{{"stopped", true}, {"pid", status->pid()}}));
    return Code(ExitCode::kOk);
  }
  context.out.Write(absl::StrCat("stopped the coordinator (pid ", status->pid(), ")\n"));
  if (!stop_runs && status->running() > 0) {
    context.Say(absl::StrCat(status->running(), status->running() == 1 ? " run goes" : " runs go",
                             " on without it; `lockstep daemon start` finds them again"));
  }
  return Code(ExitCode::kOk);
}

int StatusVerb(Context& context) {
  auto status =
      GetStatus(context.socket, context.timeout_seconds > 0 ? context.timeout_seconds : 5);
  if (!status.ok()) return Fail(context, "daemon status", status.status());
  context.out.Write(context.json() ? Document(ToJson(*status)) : Describe(*status));
  return Code(ExitCode::kOk);
}

}  // namespace

void AddDaemonCommands(CLI::App& app, Context& context) {
  CLI::App* daemon = AddVerb(app, "daemon", "Start, stop and look at the coordinator",
                             "Coordinator", "lockstep daemon start");
  daemon->require_subcommand(1);

  auto options = std::make_shared<StartOptions>();
  CLI::App* verb =
      AddVerb(*daemon, "start", "Start lockstepd in the background; waits until it serves", "",
              "lockstep daemon start --state-dir ~/lockstep --set price.per_rank_hour=0.12");
  verb->add_option("--config", options->config_file,
                   "lockstepd.yaml; without it every default holds")
      ->type_name("FILE");
  verb->add_option("--state-dir", options->state_dir,
                   "Where runs, their history and the socket live")
      ->type_name("DIR");
  verb->add_option("--metrics-address", options->metrics_address,
                   "For Prometheus; port 0 takes a free one")
      ->type_name("HOST:PORT");
  verb->add_option("--set", options->overrides,
                   "a.b=c: overrides a key of its config; may be repeated")
      ->expected(1)
      ->allow_extra_args(false)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)
      ->type_name("KEY=VALUE");
  verb->add_flag("--allow-root-mpirun", options->allow_root_mpirun,
                 "Let ranks run as root; mpirun refuses it otherwise");
  OnVerb(verb, context, [&context, &app, options] {
    return StartVerb(context, *options, app.get_option("--socket")->count() > 0);
  });

  auto stop_runs = std::make_shared<bool>(false);
  verb = AddVerb(*daemon, "stop", "End the coordinator; runs go on without it", "",
                 "lockstep daemon stop --stop-runs");
  verb->add_flag("--stop-runs", *stop_runs, "Save and end every run first");
  OnVerb(verb, context, [&context, stop_runs] { return StopVerb(context, *stop_runs); });

  verb = AddVerb(*daemon, "status", "Where the coordinator listens, and how busy it is", "",
                 "lockstep daemon status");
  OnVerb(verb, context, [&context] { return StatusVerb(context); });
}

}  // namespace lockstep::cli
