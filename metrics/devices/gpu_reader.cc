#include "metrics/devices/gpu_reader.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "metrics/devices/xid.h"

namespace lockstep::metrics {
namespace {

// After a longer gap (a call that hung, a suspended host) nobody knows what the power or the clocks
// were in it, and the newest value stands for this much of it.
constexpr double kLongestGapSeconds = 10;
constexpr int kMostEventsPerRound = 256;

constexpr int kTemperatureGpu = 0;  // NVML_TEMPERATURE_GPU
constexpr int kClockSm = 1;         // NVML_CLOCK_SM
constexpr int kClockMemory = 2;     // NVML_CLOCK_MEM

// The bits of nvmlDeviceGetCurrentClocksEventReasons. Not throttling: 0x1, the GPU is idle; 0x2,
// the clocks somebody chose.
constexpr unsigned long long kIdle = 0x1, kChosenClocks = 0x2, kPowerCap = 0x4,
                             kHardwareSlowdown = 0x8, kSyncBoost = 0x10, kThermal = 0x20,
                             kHardwareThermal = 0x40, kPowerBrake = 0x80;

// The error that a GPU which is gone gives to every call.
bool IsLost(int code) {
  return code == kNvmlGpuIsLost || code == kNvmlResetRequired || code == kNvmlIrqIssue;
}

// Asks for the fields of one GPU and remembers how that went.
class Asker {
 public:
  Asker(const Nvml& nvml, NvmlDevice device) : nvml_(nvml), device_(device) {}

  /// A function that fills one number; nullopt where it is not told.
  template <typename Number, typename... Sensor>
  std::optional<double> Ask(const char* function, double unit, Sensor... sensor) {
    Number number = 0;
    if (!Took(nvml_.Call<int(NvmlDevice, Sensor..., Number*)>(function, device_, sensor...,
                                                              &number))) {
      return std::nullopt;
    }
    return static_cast<double>(number) * unit;
  }
  int AskCount(const char* function) {
    return static_cast<int>(Ask<unsigned>(function, 1).value_or(0));
  }
  bool Took(int code) {
    if (code == kNvmlSuccess) ++answers_;
    if (IsLost(code)) lost_ = code;
    if (code != kNvmlSuccess && code != kNvmlNotSupported && code != kNvmlFunctionNotFound) {
      error_ = code;
    }
    return code == kNvmlSuccess;
  }

  /// kNvmlSuccess, or the error that says the GPU is gone, or what nothing but errors came as.
  int outcome() const {
    if (lost_ != kNvmlSuccess) return lost_;
    return answers_ == 0 ? error_ : kNvmlSuccess;
  }

 private:
  const Nvml& nvml_;
  NvmlDevice device_;
  int answers_ = 0;
  int lost_ = kNvmlSuccess;
  int error_ = kNvmlSuccess;
};

void ForgetFields(GpuReading& reading) {
  reading.utilization_ratio = reading.memory_used_bytes = reading.memory_total_bytes =
      reading.temperature_celsius = reading.power_watts = reading.power_limit_watts =
          reading.sm_clock_hertz = reading.memory_clock_hertz = std::nullopt;
  reading.pcie_width = reading.pcie_width_max = 0;
  reading.pcie_generation = reading.pcie_generation_max = 0;
  reading.throttled_by.clear();
}

}  // namespace

absl::Status GpuReader::Open() {
  auto nvml = Nvml::Load(library_);
  if (!nvml.ok()) return nvml.status();
  const absl::StatusOr<unsigned> count = (*nvml)->CountGpus();
  if (!count.ok()) return count.status();
  nvml_ = *std::move(nvml);
  // A session that finds fewer than the last one keeps the missing ones, as lost.
  for (size_t index = gpus_.size(); index < *count; ++index) {
    Gpu gpu;
    gpu.reading.index = static_cast<int>(index);
    for (const char* reason : kThrottleReasons) gpu.reading.throttle_seconds[reason] = 0;
    gpus_.push_back(std::move(gpu));
  }
  if (nvml_->Call<int(void**)>("nvmlEventSetCreate", &events_) != kNvmlSuccess) events_ = nullptr;
  return absl::OkStatus();
}

void GpuReader::Close() {
  if (nvml_ != nullptr && events_ != nullptr) nvml_->Call<int(void*)>("nvmlEventSetFree", events_);
  events_ = nullptr;
  nvml_.reset();
  for (Gpu& gpu : gpus_) {
    gpu.device = nullptr;
    gpu.watched = false;
  }
}

int GpuReader::Find(unsigned index, Gpu& gpu) {
  int code = kNvmlSuccess;
  gpu.device = nvml_->Gpu(index, &code);
  if (code != kNvmlSuccess || gpu.device == nullptr) {
    gpu.device = nullptr;
    return code == kNvmlSuccess ? kNvmlGpuIsLost : code;
  }
  GpuReading& reading = gpu.reading;
  const std::string uuid = nvml_->Text("nvmlDeviceGetUUID", gpu.device);
  if (!reading.uuid.empty() && !uuid.empty() && uuid != reading.uuid) {
    // A card was taken out and the numbers moved up: nothing of the old one is this one's. What has
    // added up stays, because it is the number's counter and those only grow.
    gpu.fatal.clear();
    gpu.read_at = gpu.counted_at = 0;
    gpu.counter_joules = -1;
    reading.last_xid = 0;
  }
  reading.uuid = uuid;
  reading.name = nvml_->Text("nvmlDeviceGetName", gpu.device);
  NvmlPciInfo pci{};
  if (nvml_->Call<int(NvmlDevice, NvmlPciInfo*)>("nvmlDeviceGetPciInfo_v3", gpu.device, &pci) ==
      kNvmlSuccess) {
    pci.bus_id[sizeof pci.bus_id - 1] = '\0';
    reading.pci_bus_id = pci.bus_id;
  }
  if (events_ != nullptr) {
    gpu.watched =
        nvml_->Call<int(NvmlDevice, unsigned long long, void*)>(
            "nvmlDeviceRegisterEvents", gpu.device, kNvmlEventXid, events_) == kNvmlSuccess;
  }
  return kNvmlSuccess;
}

int GpuReader::ReadFields(Gpu& gpu) {
  GpuReading& reading = gpu.reading;
  ForgetFields(reading);
  Asker asker(*nvml_, gpu.device);
  NvmlUtilization utilization{};
  if (asker.Took(nvml_->Call<int(NvmlDevice, NvmlUtilization*)>("nvmlDeviceGetUtilizationRates",
                                                                gpu.device, &utilization))) {
    reading.utilization_ratio = utilization.gpu / 100.0;
  }
  if (const std::optional<NvmlMemory> memory = nvml_->Memory(gpu.device)) {
    reading.memory_used_bytes = static_cast<double>(memory->used);
    reading.memory_total_bytes = static_cast<double>(memory->total);
  }
  constexpr double kMilli = 1e-3, kMega = 1e6;
  reading.temperature_celsius =
      asker.Ask<unsigned, int>("nvmlDeviceGetTemperature", 1, kTemperatureGpu);
  reading.power_watts = asker.Ask<unsigned>("nvmlDeviceGetPowerUsage", kMilli);
  reading.power_limit_watts = asker.Ask<unsigned>("nvmlDeviceGetEnforcedPowerLimit", kMilli);
  reading.sm_clock_hertz = asker.Ask<unsigned, int>("nvmlDeviceGetClockInfo", kMega, kClockSm);
  reading.memory_clock_hertz =
      asker.Ask<unsigned, int>("nvmlDeviceGetClockInfo", kMega, kClockMemory);
  reading.pcie_width = asker.AskCount("nvmlDeviceGetCurrPcieLinkWidth");
  reading.pcie_width_max = asker.AskCount("nvmlDeviceGetMaxPcieLinkWidth");
  reading.pcie_generation = asker.AskCount("nvmlDeviceGetCurrPcieLinkGeneration");
  reading.pcie_generation_max = asker.AskCount("nvmlDeviceGetMaxPcieLinkGeneration");
  return asker.outcome();
}

void GpuReader::AddEnergy(Gpu& gpu, double now) {
  GpuReading& reading = gpu.reading;
  unsigned long long millijoules = 0;
  const bool counted = gpu.device != nullptr && nvml_->Call<int(NvmlDevice, unsigned long long*)>(
                                                    "nvmlDeviceGetTotalEnergyConsumption",
                                                    gpu.device, &millijoules) == kNvmlSuccess;
  const bool first = gpu.counted_at == 0;
  if (counted) {
    const double counter = static_cast<double>(millijoules) * 1e-3;
    if (gpu.counter_joules >= 0 && counter >= gpu.counter_joules) {
      // Rounds without the counter were estimated meanwhile; it knows better, but takes none back.
      reading.energy_joules += std::max(counter - gpu.counter_joules - gpu.estimated_joules, 0.0);
    } else if (!first) {
      Estimate(gpu, now);
    }
    gpu.counter_joules = counter;
    gpu.estimated_joules = 0;
  } else {
    Estimate(gpu, now);
  }
  gpu.counted_at = now;
}

void GpuReader::Estimate(Gpu& gpu, double now) {
  const double seconds =
      gpu.counted_at == 0 ? 0 : std::clamp(now - gpu.counted_at, 0.0, kLongestGapSeconds);
  const double joules = gpu.reading.power_watts.value_or(0) * seconds;
  gpu.reading.energy_estimated = true;
  gpu.reading.energy_joules += joules;
  gpu.estimated_joules += joules;
}

void GpuReader::AddThrottling(Gpu& gpu, double now) {
  const double seconds =
      gpu.read_at == 0 ? 0 : std::clamp(now - gpu.read_at, 0.0, kLongestGapSeconds);
  gpu.read_at = now;
  unsigned long long reasons = 0;
  using Function = int(NvmlDevice, unsigned long long*);
  // Its name before driver 535 is the second.
  if (nvml_->Call<Function>("nvmlDeviceGetCurrentClocksEventReasons", gpu.device, &reasons) !=
          kNvmlSuccess &&
      nvml_->Call<Function>("nvmlDeviceGetCurrentClocksThrottleReasons", gpu.device, &reasons) !=
          kNvmlSuccess) {
    return;
  }
  const auto add = [&](const char* reason) {
    gpu.reading.throttle_seconds[reason] += seconds;
    gpu.reading.throttled_by.emplace_back(reason);
  };
  if (reasons & kPowerCap) add("power");
  if (reasons & (kThermal | kHardwareThermal)) add("thermal");
  if (reasons & kPowerBrake) add("power_brake");
  if (reasons & kSyncBoost) add("sync_boost");
  // Heat and the power brake set this bit too; what is counted is the slowdown they do not explain.
  if ((reasons & kHardwareSlowdown) && !(reasons & (kHardwareThermal | kPowerBrake))) {
    add("hardware_slowdown");
  }
  constexpr unsigned long long kKnown = kIdle | kChosenClocks | kPowerCap | kHardwareSlowdown |
                                        kSyncBoost | kThermal | kHardwareThermal | kPowerBrake;
  if (reasons & ~kKnown) add("other");
}

void GpuReader::TakeEvents() {
  const bool watched =
      std::any_of(gpus_.begin(), gpus_.end(), [](const Gpu& gpu) { return gpu.watched; });
  for (int taken = 0; watched && taken < kMostEventsPerRound; ++taken) {
    NvmlEventData event{};
    using Function = int(void*, NvmlEventData*, unsigned);
    int code = nvml_->Call<Function>("nvmlEventSetWait_v2", events_, &event, 0u);
    if (code == kNvmlFunctionNotFound) {
      code = nvml_->Call<Function>("nvmlEventSetWait", events_, &event, 0u);
    }
    if (code != kNvmlSuccess) return;
    if (event.event_type != kNvmlEventXid) continue;
    for (Gpu& gpu : gpus_) {
      if (gpu.device != event.device) continue;
      const int xid = static_cast<int>(event.event_data);
      ++gpu.reading.xid_errors;
      gpu.reading.last_xid = xid;
      if (const char* meaning = FatalXid(xid)) {
        gpu.fatal = absl::StrCat("XID ", xid, ": ", meaning,
                                 "; reset the GPU or restart the machine, then lockstepd");
      }
    }
  }
}

bool GpuReader::Read(double now, const std::function<void(int)>& before) {
  failed_ = 0;
  for (Gpu& gpu : gpus_) {
    before(gpu.reading.index);
    int code = kNvmlSuccess;
    if (gpu.device == nullptr) code = Find(static_cast<unsigned>(gpu.reading.index), gpu);
    if (code == kNvmlSuccess) {
      code = ReadFields(gpu);
    } else {
      ForgetFields(gpu.reading);
    }
    if (code == kNvmlSuccess) {
      AddThrottling(gpu, now);
    } else {
      ++failed_;
    }
    AddEnergy(gpu, now);
    gpu.reading.healthy = code == kNvmlSuccess;
    gpu.reading.trouble =
        code == kNvmlSuccess ? "" : absl::StrCat("NVML: ", nvml_->ErrorText(code));
  }
  TakeEvents();
  for (Gpu& gpu : gpus_) {
    if (gpu.fatal.empty()) continue;
    gpu.reading.healthy = false;
    gpu.reading.trouble = gpu.fatal;
  }
  return failed_ == 0;
}

std::vector<GpuReading> GpuReader::readings() const {
  std::vector<GpuReading> readings;
  readings.reserve(gpus_.size());
  for (const Gpu& gpu : gpus_) readings.push_back(gpu.reading);
  return readings;
}

}  // namespace lockstep::metrics
