#include "launch/daemon/daemon.h"

#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/health_check_service_interface.h>
#include <sched.h>
#include <spdlog/spdlog.h>

#include <atomic>
#include <charconv>
#include <cstdlib>
#include <filesystem>
#include <optional>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "launch/daemon/state_lock.h"
#include "launch/launcher/child_environment.h"
#include "launch/launcher/host_gpus.h"
#include "launch/launcher/mpirun.h"
#include "launch/launcher/socket.h"
#include "launch/services/control_service.h"
#include "launch/services/rank_service.h"
#include "launch/services/rpc_counter.h"
#include "metrics/devices/device_monitor.h"
#include "metrics/devices/nvml.h"
#include "metrics/exposer.h"

extern char** environ;

namespace lockstep::launch {
namespace {

namespace fs = std::filesystem;
using config::ExitCode;

constexpr auto kFirstReadings = std::chrono::milliseconds(500);
constexpr auto kShutdownGrace = std::chrono::milliseconds(800);
// A picture to predict, and what is around it.
constexpr int kMaxMessageBytes = static_cast<int>(kMaxPictureBytes) + (1 << 20);

int Cores() {
  cpu_set_t cpus;
  if (sched_getaffinity(0, sizeof(cpus), &cpus) == 0) return CPU_COUNT(&cpus);
  return 1;
}

std::string HostName() {
  char name[HOST_NAME_MAX + 1] = {};
  return gethostname(name, sizeof(name) - 1) == 0 ? name : "";
}

// Where the driver lists its GPUs; LOCKSTEP_NVIDIA_GPUS names another folder, for tests.
fs::path GpuFolder() {
  const char* folder = std::getenv("LOCKSTEP_NVIDIA_GPUS");
  return folder != nullptr ? folder : "/proc/driver/nvidia/gpus";
}

std::string UserOfPeer(const std::string& peer) {
  const std::optional<PeerCredentials> credentials = PeerOf(peer);
  return credentials ? UserName(credentials->uid) : std::string();
}

// Host and port of "host:port", "[::1]:port"; nothing when it is not that.
std::optional<std::pair<std::string, int>> SplitAddress(const std::string& address) {
  const size_t colon = address.rfind(':');
  if (colon == std::string::npos) return std::nullopt;
  int port = -1;
  const char* end = address.data() + address.size();
  const auto [rest, error] = std::from_chars(address.data() + colon + 1, end, port);
  if (error != std::errc() || rest != end || port < 0 || port > 65535) return std::nullopt;
  return std::make_pair(address.substr(0, colon), port);
}

bool IsLoopback(const std::string& host) {
  return host == "localhost" || host == "[::1]" || host.rfind("127.", 0) == 0;
}

std::string PortTaken(const char* setting, const std::string& address) {
  const auto split = SplitAddress(address);
  const std::string owner = split ? PortOwner(split->second) : std::string();
  return absl::StrCat(setting, " ", address, " cannot be served: ",
                      owner.empty() ? "is the address one of this host's, and the port free?"
                                    : absl::StrCat("port ", split->second, " is in use by ", owner),
                      " (--set ", setting, "=127.0.0.1:PORT takes another, --set '", setting,
                      "=\"\"' none)");
}

ExitCode ExitFor(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kAlreadyExists:
    case absl::StatusCode::kFailedPrecondition:
      return ExitCode::kWrongState;
    case absl::StatusCode::kInvalidArgument:
      return ExitCode::kUsage;
    case absl::StatusCode::kPermissionDenied:
      return ExitCode::kDenied;
    default:
      return ExitCode::kRunFailed;
  }
}

}  // namespace

// In order of construction; taken apart in reverse by ~Daemon.
struct Daemon::Parts {
  explicit Parts(const config::CoordinatorConfig& config)
      : gpus(HostGpus(std::getenv("CUDA_VISIBLE_DEVICES"), GpuFolder())), slots(config.slots) {
    if (slots == 0) slots = gpus.empty() ? Cores() : static_cast<int>(gpus.size());
  }

  const std::vector<std::string> gpus;
  int slots;
  std::optional<StateLock> lock;
  std::unique_ptr<MpirunLauncher> mpirun;
  std::unique_ptr<SocketListener> listener;
  std::unique_ptr<metrics::DeviceMonitor> monitor;
  RpcCounter rpcs;
  std::function<std::map<std::string, int64_t>()> log_messages;  // May be empty.
  std::unique_ptr<Supervisor> supervisor;
  std::unique_ptr<ControlServiceImpl> control;
  std::unique_ptr<RankServiceImpl> ranks;
  std::unique_ptr<grpc::Server> server;
  std::unique_ptr<metrics::Exposer> exposer;
  std::string socket;
  std::string metrics_address;
  int tcp_port = 0;
  std::atomic<bool> serving{false};

  ~Parts();
  absl::Status TakeFolder(config::CoordinatorConfig& config);
  absl::Status StartSupervisor(const DaemonOptions& options);
  absl::Status StartMetrics(const config::CoordinatorConfig& config);
  absl::Status StartServer(const DaemonOptions& options);
};

Daemon::Daemon(std::unique_ptr<Parts> parts) : parts_(std::move(parts)) {}
Daemon::~Daemon() = default;

Daemon::Parts::~Parts() {
  exposer.reset();  // It asks the supervisor.
  if (listener) listener->StopAccepting();
  if (control) control->StopWork();
  if (supervisor) supervisor->Shutdown();  // Answers everyone who waits.
  if (server) {
    server->Shutdown(std::chrono::system_clock::now() + kShutdownGrace);
    server->Wait();
  }
}

absl::Status Daemon::Parts::TakeFolder(config::CoordinatorConfig& config) {
  if (config.state_dir.empty()) config.state_dir = config::DefaultStateDir().string();
  std::error_code error;
  const fs::path state_dir = fs::absolute(config.state_dir, error);
  config.state_dir = state_dir.string();
  if (fs::create_directories(state_dir, error)) {
    fs::permissions(state_dir, fs::perms::owner_all, error);
  } else if (error) {
    return absl::PermissionDeniedError(
        absl::StrCat("cannot make the state folder ", config.state_dir, ": ", error.message()));
  }
  if (config.socket.empty()) config.socket = (state_dir / "lockstepd.sock").string();
  socket = config.socket;
  auto taken = StateLock::Take(state_dir);
  if (!taken.ok()) return taken.status();
  lock.emplace(*std::move(taken));
  return absl::OkStatus();
}

absl::Status Daemon::Parts::StartMetrics(const config::CoordinatorConfig& config) {
  if (config.metrics_address.empty()) return absl::OkStatus();
  const auto sample = [this]() -> std::optional<metrics::Snapshot> {
    // Scraped before there is anything to show.
    if (!serving) return std::nullopt;
    std::optional<metrics::Snapshot> snapshot = supervisor->Sample();
    if (!snapshot) return std::nullopt;
    rpcs.Show(*snapshot);
    if (log_messages) snapshot->log_messages = log_messages();
    return snapshot;
  };
  auto started = metrics::Exposer::Start(config.metrics_address, sample);
  if (!started.ok()) {
    const bool taken = absl::IsUnavailable(started.status());
    return absl::InvalidArgumentError(
        taken ? PortTaken("metrics_address", config.metrics_address)
              : absl::StrCat("metrics_address: ", started.status().message()));
  }
  exposer = *std::move(started);
  const auto split = SplitAddress(config.metrics_address);
  metrics_address = absl::StrCat(split ? split->first : "127.0.0.1", ":", exposer->port());
  return absl::OkStatus();
}

absl::Status Daemon::Parts::StartSupervisor(const DaemonOptions& options) {
  const config::CoordinatorConfig& config = options.config;
  const fs::path state_dir = config.state_dir;
  auto store = RunStore::Open(state_dir / "lockstep.db", state_dir / "backup");
  if (!store.ok()) return store.status();
  SupervisorOptions supervision;
  supervision.coordinator = options.coordinator;
  supervision.coordinator.slots = slots;
  // Slot n is GPU n, so runs side by side never share one. With more slots than GPUs some ranks are
  // meant for the CPU, and which is not ours to say.
  if (slots <= static_cast<int>(gpus.size())) supervision.gpus = gpus;
  supervision.coordinator.price = config.price;
  supervision.coordinator.budget = config.budget;
  supervision.coordinator.host = HostName();
  metrics::DeviceMonitor::Options monitoring;
  monitoring.nvml_library = metrics::NvmlLibraryName();
  monitor = metrics::DeviceMonitor::Start(monitoring);
  supervision.devices = [this] { return monitor->Newest(); };
  // So that the first run's energy is metered from its first moment; a sick driver is not waited
  // for.
  monitor->WaitForRounds(1, kFirstReadings);
  supervision.state_dir = state_dir;
  supervision.socket = socket;
  supervision.build = options.build;
  Launcher* launcher = options.launcher;
  if (launcher == nullptr) {
    MpirunOptions mpirun_options;
    mpirun_options.trainer = FindTrainer(config.trainer);
    // A package brings its own, beside this program; otherwise it is the one in PATH.
    std::error_code error;
    const fs::path own = fs::read_symlink("/proc/self/exe", error).parent_path() / "mpirun";
    if (fs::exists(own, error)) mpirun_options.mpirun = own.string();
    mpirun_options.allow_root = config.allow_root_mpirun;
    mpirun_options.oversubscribe = config.oversubscribe;
    mpirun_options.log_limit_bytes = config.log_limit_bytes;
    if (mpirun_options.trainer.empty()) {
      spdlog::warn("no lockstep-trainer found; set `trainer` in the config");
    }
    mpirun = std::make_unique<MpirunLauncher>(std::move(mpirun_options));
    launcher = mpirun.get();
  }
  auto started = Supervisor::Open(std::move(supervision), *launcher, *std::move(store));
  if (!started.ok()) return started.status();
  supervisor = *std::move(started);
  return absl::OkStatus();
}

absl::Status Daemon::Parts::StartServer(const DaemonOptions& options) {
  const config::CoordinatorConfig& config = options.config;
  ControlServiceOptions service;
  service.version = options.build.version;
  service.state_dir = config.state_dir;
  service.socket = socket;
  service.tcp_address = config.tcp_address;
  service.metrics_address = [this] { return metrics_address; };
  service.allowed_roots = config.allowed_roots;
  service.weights = config.weights;
  service.price = config.price;
  service.monthly_budget = config.budget.monthly;
  service.cores = Cores();
  service.slots = slots;
  service.user_of = UserOfPeer;
  service.models.process.trainer = FindTrainer(config.trainer);
  service.models.process.environment = ChildEnvironment(environ);
  service.models.process.log = fs::path(config.state_dir) / "predict.log";
  service.shut_down = options.shut_down;
  control = std::make_unique<ControlServiceImpl>(*supervisor, std::move(service));
  ranks = std::make_unique<RankServiceImpl>(*supervisor, UserOfPeer);

  grpc::EnableDefaultHealthCheckService(true);
  grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  grpc::ServerBuilder builder;
  builder.RegisterService(control.get());
  builder.RegisterService(ranks.get());
  builder.SetMaxReceiveMessageSize(kMaxMessageBytes);
  // Two servers would share a port without a word.
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  std::vector<std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface>> creators;
  creators.push_back(rpcs.MakeFactory());
  builder.experimental().SetInterceptorCreators(std::move(creators));
  const bool tcp = !config.tcp_address.empty();
  if (tcp) {
    const auto split = SplitAddress(config.tcp_address);
    if (!split || !IsLoopback(split->first)) {
      return absl::InvalidArgumentError(
          absl::StrCat("tcp_address: '", config.tcp_address,
                       "' is not a loopback address; expected 127.0.0.1:PORT"));
    }
    builder.AddListeningPort(config.tcp_address, grpc::InsecureServerCredentials(), &tcp_port);
  }
  server = builder.BuildAndStart();
  if (!server || (tcp && tcp_port == 0)) {
    return absl::InvalidArgumentError(tcp ? PortTaken("tcp_address", config.tcp_address)
                                          : "the gRPC server did not start");
  }
  return absl::OkStatus();
}

std::unique_ptr<Daemon> Daemon::Start(DaemonOptions options, DaemonError& error) {
  error = {};
  std::unique_ptr<Daemon> daemon(new Daemon(std::make_unique<Parts>(options.config)));
  Parts& parts = *daemon->parts_;
  parts.log_messages = options.log_messages;
  absl::Status status = parts.TakeFolder(options.config);
  if (status.ok()) {
    auto listener = SocketListener::Open({.path = parts.socket, .group = {}});
    if (listener.ok()) {
      parts.listener = *std::move(listener);
    } else {
      status = listener.status();
    }
  }
  if (status.ok()) status = parts.StartSupervisor(options);
  if (status.ok()) status = parts.StartMetrics(options.config);
  if (status.ok()) status = parts.StartServer(options);
  if (status.ok()) {
    // Only now that nothing can fail any more may runs be launched.
    parts.supervisor->Begin();
    parts.listener->Serve(parts.server.get());
    parts.serving = true;
    return daemon;
  }
  error.exit_code = ExitFor(status);
  error.message = std::string(status.message());
  return nullptr;
}

const std::string& Daemon::socket() const {
  return parts_->socket;
}
int Daemon::metrics_port() const {
  return parts_->exposer ? parts_->exposer->port() : 0;
}
int Daemon::tcp_port() const {
  return parts_->tcp_port;
}

std::string FindTrainer(const std::string& configured) {
  std::error_code error;
  if (!configured.empty()) return fs::absolute(configured, error).string();
  const fs::path self = fs::read_symlink("/proc/self/exe", error).parent_path();
  for (const fs::path& candidate :
       {self / "lockstep-trainer", self.parent_path() / "trainer" / "lockstep-trainer"}) {
    if (fs::exists(candidate, error)) return candidate.string();
  }
  return {};
}

}  // namespace lockstep::launch
