// The table of lockstepd.yaml.
#include "config/coordinator_config.h"
#include "config/field.h"

namespace lockstep::config {
namespace {

Fields<PriceConfig> Price() {
  Fields<PriceConfig> f;
  f.Text("currency", &PriceConfig::currency, "Currency of every amount.")
      .Pattern("^[A-Z]{3}$", "three capital letters such as USD");
  f.Number("per_rank_hour", &PriceConfig::per_rank_hour,
           "What one slot costs for an hour, in the currency.")
      .Within(0, 1e9);
  return f;
}

Fields<NamedWeights> Weights() {
  Fields<NamedWeights> f;
  f.Text("name", &NamedWeights::name, "What runs write as model.pretrained.")
      .Pattern("^[A-Za-z0-9][-A-Za-z0-9_.]{0,63}$",
               "letters, digits, dashes, dots and underscores, at most 64");
  f.Text("file", &NamedWeights::file,
         "Absolute path of a safetensors file, a PyTorch state dict or a checkpoint's folder.")
      .Pattern("^/.*$", "an absolute path");
  return f;
}

std::vector<Field> Coordinator() {
  Fields<CoordinatorConfig> f;
  f.Text("state_dir", &CoordinatorConfig::state_dir,
         "Folder of the run store, the runs and the socket. Empty: $LOCKSTEP_STATE_DIR, else "
         "$XDG_STATE_HOME/lockstep, else ~/.local/state/lockstep.");
  // A socket's path must fit sockaddr_un: 108 bytes with the ending zero.
  f.Text("socket", &CoordinatorConfig::socket,
         "Unix socket that the CLI and the trainers connect to. Empty: lockstepd.sock in the state "
         "folder.")
      .Longest(107);
  f.Text("tcp_address", &CoordinatorConfig::tcp_address,
         "Loopback address and port for gRPC over TCP, such as 127.0.0.1:7461. Empty: no TCP.");
  f.Text("metrics_address", &CoordinatorConfig::metrics_address,
         "Address and port of the Prometheus endpoint; port 0 takes any free one. Empty: none.");
  f.TextList("allowed_roots", &CoordinatorConfig::allowed_roots,
             "Absolute folders that data paths of runs may lie under. Empty: any that the user may "
             "read.");
  f.Integer(
       "slots", &CoordinatorConfig::slots,
       "Ranks at once over all runs. auto: the GPUs of the host; without any, its cores. With at "
       "most as many slots as GPUs each rank is given a GPU that no other run has.")
      .Range(1, 4096)
      .Auto();
  f.Text("trainer", &CoordinatorConfig::trainer,
         "Path of lockstep-trainer. Empty: beside lockstepd.");
  f.Boolean("allow_root_mpirun", &CoordinatorConfig::allow_root_mpirun,
            "Let mpirun start ranks as root, which it refuses otherwise.");
  f.Boolean("oversubscribe", &CoordinatorConfig::oversubscribe,
            "Let mpirun start more ranks than the host has cores.");
  f.Integer("log_limit_bytes", &CoordinatorConfig::log_limit_bytes,
            "Largest log of a rank in an attempt; older output is dropped.")
      .Range(4096, int64_t{1} << 40)
      .Unit("bytes");
  f.GroupList("weights", &CoordinatorConfig::weights, Weights(),
              "Files of weights by name, for model.pretrained. scripts/fetch-weights shows where "
              "the usual ones come from.")
      .AtMost(256);
  f.Group("price", &CoordinatorConfig::price, Price(), "What the machine costs.");
  return std::move(f).Take();
}

}  // namespace

const Table& CoordinatorTable() {
  static const Table table{.title = "Lockstep coordinator", .fields = Coordinator()};
  return table;
}

}  // namespace lockstep::config
