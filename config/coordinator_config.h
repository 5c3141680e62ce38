// What the daemon is told: lockstepd.yaml. Loaded by the same strict loader as run.yaml; every
// field has a default, so no file at all is a valid config.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "config/load.h"
#include "config/price.h"

namespace lockstep::config {

// A name that `model.pretrained` may give instead of a path.
struct NamedWeights {
  std::string name;
  std::string file;  // Absolute: a file, or a checkpoint's folder.

  bool operator==(const NamedWeights&) const = default;
};

struct CoordinatorConfig {
  std::string state_dir;    // Empty = DefaultStateDir().
  std::string socket;       // Unix socket; empty = state_dir/lockstepd.sock.
  std::string tcp_address;  // "127.0.0.1:PORT"; empty = no TCP. Loopback only.
  std::string metrics_address =
      "127.0.0.1:9464";  // Prometheus endpoint; "" = off; port 0 = any free one.
  std::vector<std::string>
      allowed_roots;  // Folders that data paths may lie under; empty = any that the user may read.
  int slots = 0;      // Ranks at once; 0 = auto: the GPUs of the host, or its cores.
  std::string trainer;                    // Path of lockstep-trainer; empty = beside lockstepd.
  bool allow_root_mpirun = false;         // Explicit opt-in: run ranks as root.
  bool oversubscribe = false;             // Let mpirun start more ranks than the host has cores.
  int64_t log_limit_bytes = 256ll << 20;  // Per rank and attempt; older output is dropped.
  std::vector<NamedWeights> weights;
  PriceConfig price;
  BudgetConfig budget;

  bool operator==(const CoordinatorConfig&) const = default;
};

Loaded<CoordinatorConfig> LoadCoordinatorConfig(std::string_view yaml, const std::string& file_name,
                                                const std::vector<Override>& overrides = {});
std::string ToYaml(const CoordinatorConfig& config);
/// A config of the coordinator with nothing but these prices.
std::string PriceYaml(const PriceConfig& prices);
std::string CoordinatorConfigJsonSchema();
std::string CoordinatorConfigReference();  // Markdown, like RunConfigReference().

/// $LOCKSTEP_STATE_DIR, else $XDG_STATE_HOME/lockstep, else ~/.local/state/lockstep.
std::filesystem::path DefaultStateDir();
/// $LOCKSTEP_SOCKET, else the default state folder's lockstepd.sock: where CLI and trainers look
/// for a coordinator.
std::filesystem::path DefaultSocket();

}  // namespace lockstep::config
