// The table of lockstepd.yaml.
#include "config/coordinator_config.h"
#include "config/field.h"

namespace lockstep::config {
namespace {

constexpr const char* kHours =
    "^(([01][0-9]|2[0-3]):[0-5][0-9]-(([01][0-9]|2[0-3]):[0-5][0-9]|24:00))?$";
constexpr const char* kHoursNote = "hours such as 22:00-06:00";

Fields<DevicePrice> Devices() {
  Fields<DevicePrice> f;
  f.Text("device", &DevicePrice::device,
         "Name of the GPU as its driver tells it, or cpu; * stands for anything: \"*H200*\".")
      .Longest(128);
  f.Text("host", &DevicePrice::host, "Name of the host; * stands for anything.").Longest(255);
  f.Text("hours", &DevicePrice::hours, "When it holds, in the host's local time. Empty: always.")
      .Pattern(kHours, kHoursNote);
  f.Number("per_hour", &DevicePrice::per_hour, "What one rank on it costs for an hour.")
      .Within(0, 1e9)
      .Required();
  return f;
}

Fields<EnergyPrice> Energy() {
  Fields<EnergyPrice> f;
  f.Text("host", &EnergyPrice::host, "Name of the host; * stands for anything.").Longest(255);
  f.Text("hours", &EnergyPrice::hours, "When it holds, in the host's local time. Empty: always.")
      .Pattern(kHours, kHoursNote);
  f.Number("per_kwh", &EnergyPrice::per_kwh, "What a kilowatt hour costs.")
      .Within(0, 1e9)
      .Required();
  return f;
}

Fields<TransferPrice> Transfers() {
  Fields<TransferPrice> f;
  f.Choice("source", &TransferPrice::source, {"dataset", "checkpoint", "allreduce"},
           "Which bytes: read from the data set, written to checkpoints, or sent by the ranks to "
           "each other.");
  f.Number("per_gb", &TransferPrice::per_gb, "What 1e9 bytes of it cost.")
      .Within(0, 1e9)
      .Required();
  return f;
}

Fields<PowerConfig> Power() {
  Fields<PowerConfig> f;
  f.Number("cpu_rank_watts", &PowerConfig::cpu_rank_watts,
           "What a rank on the CPU draws, where the CPU's own counter cannot be read.")
      .Within(0, 1e6)
      .Unit("watts");
  f.Number("gpu_watts", &PowerConfig::gpu_watts,
           "What a rank on a GPU draws, where the GPU does not tell.")
      .Within(0, 1e6)
      .Unit("watts");
  return f;
}

Fields<PriceConfig> Price() {
  Fields<PriceConfig> f;
  f.Text("currency", &PriceConfig::currency, "Currency of every amount.")
      .Pattern("^[A-Z]{3}$", "three capital letters such as USD");
  f.Number("per_rank_hour", &PriceConfig::per_rank_hour,
           "What one rank costs for an hour, in the currency, where no row of devices fits.")
      .Within(0, 1e9);
  f.GroupList("devices", &PriceConfig::devices, Devices(),
              "Prices by device, host and hour; the first row that fits counts.")
      .AtMost(256);
  f.Number("per_kwh", &PriceConfig::per_kwh,
           "What a kilowatt hour costs, where no row of energy fits. 0: energy is counted and "
           "costs nothing.")
      .Within(0, 1e9);
  f.GroupList("energy", &PriceConfig::energy, Energy(),
              "Prices of energy by host and hour; the first row that fits counts.")
      .AtMost(256);
  f.GroupList("transfers", &PriceConfig::transfers, Transfers(), "Prices of moved bytes.")
      .AtMost(3);
  f.Group("power", &PriceConfig::power, Power(), "What is drawn where nothing meters it.");
  return f;
}

Fields<BudgetConfig> Budget() {
  Fields<BudgetConfig> f;
  f.Number("monthly", &BudgetConfig::monthly,
           "What all runs together may cost in a calendar month (UTC). 0: no limit.")
      .Within(0, 1e12);
  f.Choice("at_limit", &BudgetConfig::at_limit, {"pause", "stop"},
           "What happens to the runs then; both save a checkpoint first. New ones wait for the "
           "next month.");
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
  f.Group("budget", &CoordinatorConfig::budget, Budget(), "How much may be spent.");
  return std::move(f).Take();
}

}  // namespace

const Table& CoordinatorTable() {
  static const Table table{.title = "Lockstep coordinator", .fields = Coordinator()};
  return table;
}

}  // namespace lockstep::config
