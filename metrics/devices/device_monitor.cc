#include "metrics/devices/device_monitor.h"

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <stop_token>
#include <thread>
#include <utility>

#include "absl/strings/str_format.h"
#include "metrics/devices/gpu_reader.h"
#include "metrics/devices/rapl.h"

namespace lockstep::metrics {
namespace {

using Clock = std::chrono::steady_clock;  // CLOCK_MONOTONIC

// Tries of an NVML that did not start are this many periods apart: it reads the kernel's files.
constexpr int kPeriodsBetweenTries = 30;
// What the end of the monitor grants a thread that does not hang to come home.
constexpr std::chrono::milliseconds kFarewell{100};

double Seconds(Clock::duration duration) {
  return std::chrono::duration<double>(duration).count();
}
double Seconds(Clock::time_point time) {
  return Seconds(time.time_since_epoch());
}

}  // namespace

// What both sides see. The thread that talks to NVML keeps it alive.
struct DeviceMonitor::Shared {
  explicit Shared(Options chosen) : options(std::move(chosen)) {}
  const Options options;

  mutable std::mutex mutex;  // Guards all below; never held over a call into NVML.
  mutable std::condition_variable changed;
  bool stop = false;
  bool ended = false;                      // The thread is through.
  DeviceReadings readings;                 // As of the last round that ended.
  std::optional<Clock::time_point> asked;  // A call into NVML has been under way since then,
  int asked_gpu = -1;                      // about this GPU; -1 = about NVML itself.
  bool late = false;                       // A call of this round took longer than the timeout.

  void BeginCall(int gpu) {
    const std::lock_guard lock(mutex);
    EndCall();
    asked = Clock::now();
    asked_gpu = gpu;
  }
  // With the mutex.
  bool Overdue() const { return asked && Clock::now() - *asked > options.timeout; }
  void EndCall() {
    late = late || Overdue();
    asked.reset();
  }
};

class DeviceMonitor::RaplThread {
 public:
  explicit RaplThread(const Options& options)
      : rapl_(options.powercap),
        thread_([this, period = options.period](const std::stop_token& stop) {
          while (!stop.stop_requested()) {
            Read();
            std::unique_lock lock(mutex_);
            changed_.wait_for(lock, stop, period, [] { return false; });
          }
        }) {}

  void CopyTo(DeviceReadings& readings) const {
    const std::lock_guard lock(mutex_);
    readings.cpu_energy_joules = joules_;
    readings.cpu_energy_trouble = trouble_;
  }

 private:
  void Read() {
    const std::optional<double> joules = rapl_.EnergyJoules(Seconds(Clock::now()));
    const std::lock_guard lock(mutex_);
    // A counter that cannot be read for a moment takes nothing back.
    if (joules) joules_ = joules;
    trouble_ = rapl_.trouble();
  }

  Rapl rapl_;  // The thread's own.
  mutable std::mutex mutex_;
  std::condition_variable_any changed_;
  std::optional<double> joules_;
  std::string trouble_ = "not read yet";
  std::jthread thread_;  // Last: it uses all above.
};

void DeviceMonitor::ReadRounds(std::shared_ptr<Shared> shared) {
  const Options& options = shared->options;
  GpuReader reader(options.nvml_library);
  bool library_found = true;
  int failures = 0;  // Rounds in a row in which no GPU answered.
  while (library_found) {
    const Clock::time_point begin = Clock::now();
    shared->BeginCall(-1);
    absl::Status status = reader.open() ? absl::OkStatus() : reader.Open();
    library_found = !absl::IsNotFound(status);
    bool all_answered = false;
    if (status.ok()) {
      all_answered = reader.Read(Seconds(begin), [&](int gpu) { shared->BeginCall(gpu); });
      // A driver that was taken away and came back needs a new session.
      failures = reader.all_failed() ? failures + 1 : 0;
      if (failures > 0 && failures % kPeriodsBetweenTries == 0) reader.Close();
    }
    std::unique_lock lock(shared->mutex);
    DeviceReadings& readings = shared->readings;
    readings.gpus = reader.readings();
    readings.nvml_trouble = status.ok() ? "" : std::string(status.message());
    shared->EndCall();
    const bool late = std::exchange(shared->late, false);
    if (library_found) {
      readings.read_seconds = Seconds(Clock::now() - begin);
      ++readings.rounds;
      if (late || !all_answered) ++readings.failed_rounds;
      for (GpuReading& gpu : readings.gpus) {
        if (status.ok()) break;
        gpu.healthy = false;
        gpu.trouble = readings.nvml_trouble;
        gpu.energy_estimated = true;
      }
    }
    shared->changed.notify_all();
    const int periods = status.ok() ? 1 : kPeriodsBetweenTries;
    if (shared->changed.wait_until(lock, begin + periods * options.period,
                                   [&] { return shared->stop; })) {
      break;
    }
  }
  reader.Close();
  const std::lock_guard lock(shared->mutex);
  shared->ended = true;
  shared->changed.notify_all();
}

std::unique_ptr<DeviceMonitor> DeviceMonitor::Start(const Options& options) {
  return std::unique_ptr<DeviceMonitor>(new DeviceMonitor(options));
}

DeviceMonitor::DeviceMonitor(const Options& options)
    : shared_(std::make_shared<Shared>(options)), rapl_(std::make_unique<RaplThread>(options)) {
  std::thread(ReadRounds, shared_).detach();
}

DeviceMonitor::~DeviceMonitor() {
  std::unique_lock lock(shared_->mutex);
  shared_->stop = true;
  shared_->changed.notify_all();
  shared_->changed.wait_for(lock, kFarewell, [&] { return shared_->ended; });
}

DeviceReadings DeviceMonitor::Newest() const {
  DeviceReadings readings;
  {
    const std::lock_guard lock(shared_->mutex);
    readings = shared_->readings;
    readings.stale = shared_->Overdue();
    if (readings.stale || shared_->late) ++readings.failed_rounds;
    if (readings.stale) {
      readings.nvml_trouble = absl::StrFormat(
          "NVML has not answered for %.0f s%s; look at `dmesg | grep -i nvrm`",
          Seconds(Clock::now() - *shared_->asked),
          shared_->asked_gpu < 0 ? ""
                                 : absl::StrFormat(" (asked about GPU %d)", shared_->asked_gpu));
    }
  }
  for (GpuReading& gpu : readings.gpus) {
    if (!readings.stale) break;
    gpu.healthy = false;
    gpu.trouble = readings.nvml_trouble;
    gpu.energy_estimated = true;
  }
  rapl_->CopyTo(readings);
  return readings;
}

bool DeviceMonitor::WaitForRounds(int64_t rounds, std::chrono::milliseconds deadline) const {
  std::unique_lock lock(shared_->mutex);
  shared_->changed.wait_for(lock, deadline,
                            [&] { return shared_->readings.rounds >= rounds || shared_->ended; });
  return shared_->readings.rounds >= rounds;
}

}  // namespace lockstep::metrics
