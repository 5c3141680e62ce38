// The daemon as one object: lock, store, supervisor, services, sockets, metrics, put together and
// taken apart in the right order. lockstepd's main and the tests both use it.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "config/coordinator_config.h"
#include "config/exit_code.h"
#include "launch/launcher/launcher.h"
#include "launch/supervisor/supervisor.h"

namespace lockstep::launch {

struct DaemonOptions {
  config::CoordinatorConfig config;
  metrics::BuildInfo build;
  /// Called when a client asks the daemon to end; must only note it and return.
  std::function<void()> shut_down;
  /// In place of mpirun, for tests. Must outlive the daemon.
  Launcher* launcher = nullptr;
  /// Messages of the log by level, for the metrics. May be empty; called from any thread.
  std::function<std::map<std::string, int64_t>()> log_messages;
  CoordinatorOptions coordinator;  // Slots and price are taken from `config`.
};

// Why the daemon cannot start, and what the program ends with.
struct DaemonError {
  config::ExitCode exit_code = config::ExitCode::kOk;
  std::string message;
  bool ok() const { return exit_code == config::ExitCode::kOk; }
};

class Daemon {
 public:
  /// Serving when it returns one. Otherwise `error` says why: kWrongState (another daemon, a newer
  /// store), kUsage (a port in use, a wrong address), kRunFailed (a damaged store), kDenied.
  static std::unique_ptr<Daemon> Start(DaemonOptions options, DaemonError& error);
  /// Ends within about two seconds. Runs go on.
  ~Daemon();

  const std::string& socket() const;
  int metrics_port() const;  // 0 = off.
  int tcp_port() const;      // 0 = off.

 private:
  struct Parts;
  explicit Daemon(std::unique_ptr<Parts> parts);
  std::unique_ptr<Parts> parts_;
};

/// `configured`, else lockstep-trainer beside this program or in the build tree's trainer/; empty
/// when there is none.
std::string FindTrainer(const std::string& configured);

}  // namespace lockstep::launch
