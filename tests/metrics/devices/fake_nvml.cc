// Stands in for the driver's libnvidia-ml.so.1 in all tests; installed nowhere. It is loaded by
// LOCKSTEP_NVML_LIBRARY=…/tests/libfake_nvml.so.
//
// What it tells is in the file that FAKE_NVML_SCENARIO names, read again at each call, so a test
// can change it while a program runs (write a new file and rename it over the old one). A line is
// a word and its value; one that begins with "1." is of GPU 1 alone, the others are of all GPUs;
// the last line that fits counts; "none" answers NOT_SUPPORTED; "#" begins a comment.
//
//   gpus 2                      how many there are (2)
//   driver 580.65.06            the driver's version
//   init 0                      what nvmlInit_v2 answers (0 = success, 9 = no driver loaded)
//   name NVIDIA H100 80GB HBM3
//   uuid GPU-...-0
//   capability 9.0
//   nvlink 0-1 2-3
//   utilization 90              percent
//   memory_total 85899345920    bytes; memory_used likewise
//   temperature 60              Celsius
//   power 300                   watts; power_limit likewise
//   energy auto                 millijoules; auto = power times seconds since first asked
//   sm_clock 1980               MHz; memory_clock likewise
//   throttle 0x4                bits of nvmlDeviceGetCurrentClocksEventReasons (0)
//   pcie_width 16               pcie_width_max, pcie_generation, pcie_generation_max likewise
//   xid 31                      one event; each line is told once, in their order
//   fail 15                     every call about the GPU answers this (15 = lost, 999 = unknown)
//   hang 1                      every call about the GPU waits until the file says otherwise
//   hang_init 1                 nvmlInit_v2 waits
//
// Without that file variables tell: FAKE_NVML_DRIVER, FAKE_NVML_GPUS (one capability a GPU: "9.0
// 9.0"; names are "NVIDIA Test 9.0"), FAKE_NVML_INIT, FAKE_NVML_NVLINK. Built with FAKE_NVML_OLD it
// lacks what drivers of old lack: the energy counter, the new name of the throttle reasons, _v2 of
// the wait for events.
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <map>
#include <mutex>
#include <sstream>
#include <string>
#include <vector>

namespace {

constexpr int kSuccess = 0, kInvalid = 2, kNotSupported = 3, kTimeout = 10;

std::string Variable(const char* name) {
  const char* value = getenv(name);
  return value != nullptr ? value : "";
}

std::vector<std::string> Words(const std::string& text) {
  std::istringstream stream(text);
  std::vector<std::string> words;
  for (std::string word; stream >> word;) words.push_back(word);
  return words;
}

// The lines in which `gpu` (-1 = the host) has `key`, in order.
std::vector<std::string> Values(int gpu, const std::string& key) {
  std::vector<std::string> values;
  std::ifstream file(Variable("FAKE_NVML_SCENARIO"));
  const std::string own = std::to_string(gpu) + "." + key;
  for (std::string line; std::getline(file, line);) {
    const size_t space = line.find(' ');
    const std::string word = line.substr(0, space);
    if (word != key && word != own) continue;
    values.push_back(space == std::string::npos ? "" : line.substr(space + 1));
  }
  return values;
}

std::string Value(int gpu, const std::string& key, const std::string& otherwise) {
  const std::vector<std::string> values = Values(gpu, key);
  return values.empty() ? otherwise : values.back();
}

// A host's value: of the scenario, or where there is none of the variable.
std::string HostValue(const char* key, const char* variable, const char* otherwise) {
  return Variable("FAKE_NVML_SCENARIO").empty() ? Variable(variable) : Value(-1, key, otherwise);
}

int GpuCount() {
  if (Variable("FAKE_NVML_SCENARIO").empty()) {
    return static_cast<int>(Words(Variable("FAKE_NVML_GPUS")).size());
  }
  return atoi(Value(-1, "gpus", "2").c_str());
}

std::string Capability(int gpu) {
  const std::vector<std::string> words = Words(Variable("FAKE_NVML_GPUS"));
  return Value(gpu, "capability",
               static_cast<size_t>(gpu) < words.size() ? words[static_cast<size_t>(gpu)] : "9.0");
}

// A device is its number plus one, so that none is null.
int Number(void* device) {
  return static_cast<int>(reinterpret_cast<size_t>(device)) - 1;
}

void HangWhile(int gpu, const char* key) {
  while (Value(gpu, key, "0") == "1") usleep(5000);
}

// What every call about a GPU begins with.
int Begin(void* device) {
  HangWhile(Number(device), "hang");
  return atoi(Value(Number(device), "fail", "0").c_str());
}

// One number of a GPU, times `unit`.
template <typename Integer>
int Tell(void* device, const char* key, const char* otherwise, double unit, Integer* number) {
  if (const int code = Begin(device); code != kSuccess) return code;
  const std::string value = Value(Number(device), key, otherwise);
  if (value == "none") return kNotSupported;
  *number = static_cast<Integer>(strtod(value.c_str(), nullptr) * unit);  // Hexadecimal too.
  return kSuccess;
}

int TellText(void* device, const char* key, const std::string& otherwise, char* text,
             unsigned size) {
  if (const int code = Begin(device); code != kSuccess) return code;
  snprintf(text, size, "%s", Value(Number(device), key, otherwise).c_str());
  return kSuccess;
}

struct Event {
  void* device;
  unsigned long long type, data;
};

std::mutex mutex;  // Guards all below, each by GPU.
std::map<int, size_t> told_xids;
std::map<int, double> counted_millijoules;  // Of "energy auto", at counted_at.
std::map<int, std::chrono::steady_clock::time_point> counted_at;

}  // namespace

extern "C" {

int nvmlInit_v2() {
  HangWhile(-1, "hang_init");
  return atoi(HostValue("init", "FAKE_NVML_INIT", "0").c_str());
}
int nvmlShutdown() {
  return kSuccess;
}
const char* nvmlErrorString(int code) {
  switch (code) {
    case 9:
      return "Driver Not Loaded";
    case 15:
      return "GPU is lost";
    case 18:
      return "Driver/library version mismatch";
    default:
      return "Unknown Error";
  }
}
int nvmlSystemGetDriverVersion(char* text, unsigned size) {
  snprintf(text, size, "%s", HostValue("driver", "FAKE_NVML_DRIVER", "580.65.06").c_str());
  return kSuccess;
}
int nvmlDeviceGetCount_v2(unsigned* count) {
  *count = static_cast<unsigned>(GpuCount());
  return kSuccess;
}
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void** device) {
  if (static_cast<int>(index) >= GpuCount()) return kInvalid;
  *device = reinterpret_cast<void*>(size_t{index} + 1);
  return Begin(*device);
}
int nvmlDeviceGetName(void* device, char* text, unsigned size) {
  const bool old = Variable("FAKE_NVML_SCENARIO").empty();
  return TellText(device, "name",
                  old ? "NVIDIA Test " + Capability(Number(device)) : "NVIDIA H100 80GB HBM3", text,
                  size);
}
int nvmlDeviceGetUUID(void* device, char* text, unsigned size) {
  return TellText(device, "uuid",
                  "GPU-00000000-0000-0000-0000-00000000000" + std::to_string(Number(device)), text,
                  size);
}
// nvmlPciInfo_t: busId is at byte 36, of 32 bytes.
int nvmlDeviceGetPciInfo_v3(void* device, char* info) {
  if (const int code = Begin(device); code != kSuccess) return code;
  snprintf(info + 36, 32, "00000000:%02X:00.0", 0x3b + Number(device));
  return kSuccess;
}
int nvmlDeviceGetMemoryInfo(void* device, unsigned long long* total_free_used) {
  int code = Tell(device, "memory_total", "85899345920", 1, &total_free_used[0]);
  if (code == kSuccess) {
    code = Tell(device, "memory_used", "1073741824", 1, &total_free_used[2]);
    total_free_used[1] = total_free_used[0] - total_free_used[2];
  }
  return code;
}
int nvmlDeviceGetCudaComputeCapability(void* device, int* major, int* minor) {
  sscanf(Capability(Number(device)).c_str(), "%d.%d", major, minor);
  return kSuccess;
}
int nvmlDeviceGetP2PStatus(void* first, void* second, int index, int* status) {
  const std::string pair = std::to_string(Number(first)) + "-" + std::to_string(Number(second));
  *status = 5;  // Not supported.
  if (index != 2) return kSuccess;
  for (const std::string& linked : Words(HostValue("nvlink", "FAKE_NVML_NVLINK", ""))) {
    if (linked == pair) *status = 0;
  }
  return kSuccess;
}
int nvmlDeviceGetTopologyCommonAncestor(void*, void*, int* level) {
  *level = 30;  // Through the CPU.
  return kSuccess;
}
int nvmlDeviceGetUtilizationRates(void* device, unsigned* gpu_memory) {
  gpu_memory[1] = 10;
  return Tell(device, "utilization", "90", 1, &gpu_memory[0]);
}
int nvmlDeviceGetTemperature(void* device, int, unsigned* celsius) {
  return Tell(device, "temperature", "60", 1, celsius);
}
int nvmlDeviceGetPowerUsage(void* device, unsigned* milliwatts) {
  return Tell(device, "power", "300", 1e3, milliwatts);
}
int nvmlDeviceGetEnforcedPowerLimit(void* device, unsigned* milliwatts) {
  return Tell(device, "power_limit", "700", 1e3, milliwatts);
}
int nvmlDeviceGetClockInfo(void* device, int clock, unsigned* megahertz) {
  return clock == 1 ? Tell(device, "sm_clock", "1980", 1, megahertz)
                    : Tell(device, "memory_clock", "2619", 1, megahertz);
}
int nvmlDeviceGetCurrPcieLinkWidth(void* device, unsigned* width) {
  return Tell(device, "pcie_width", "16", 1, width);
}
int nvmlDeviceGetMaxPcieLinkWidth(void* device, unsigned* width) {
  return Tell(device, "pcie_width_max", "16", 1, width);
}
int nvmlDeviceGetCurrPcieLinkGeneration(void* device, unsigned* generation) {
  return Tell(device, "pcie_generation", "5", 1, generation);
}
int nvmlDeviceGetMaxPcieLinkGeneration(void* device, unsigned* generation) {
  return Tell(device, "pcie_generation_max", "5", 1, generation);
}
int nvmlEventSetCreate(void** set) {
  *set = &told_xids;
  return kSuccess;
}
int nvmlEventSetFree(void*) {
  return kSuccess;
}
int nvmlDeviceRegisterEvents(void* device, unsigned long long, void*) {
  return Value(Number(device), "xid", "") == "none" ? kNotSupported : kSuccess;
}

#ifdef FAKE_NVML_OLD
int nvmlEventSetWait(void*, Event* event, unsigned) {
#else
int nvmlEventSetWait_v2(void*, Event* event, unsigned) {
#endif
  const std::lock_guard lock(mutex);
  for (int gpu = 0; gpu < GpuCount(); ++gpu) {
    const std::vector<std::string> xids = Values(gpu, "xid");
    size_t& told = told_xids[gpu];
    if (told >= xids.size()) continue;
    *event = {reinterpret_cast<void*>(static_cast<size_t>(gpu) + 1), 0x8,
              strtoull(xids[told++].c_str(), nullptr, 10)};
    return kSuccess;
  }
  return kTimeout;
}

#ifdef FAKE_NVML_OLD
int nvmlDeviceGetCurrentClocksThrottleReasons(void* device, unsigned long long* reasons) {
#else
int nvmlDeviceGetCurrentClocksEventReasons(void* device, unsigned long long* reasons) {
#endif
  return Tell(device, "throttle", "0", 1, reasons);
}

#ifndef FAKE_NVML_OLD
int nvmlDeviceGetTotalEnergyConsumption(void* device, unsigned long long* millijoules) {
  if (Value(Number(device), "energy", "auto") != "auto") {
    return Tell(device, "energy", "0", 1, millijoules);
  }
  double milliwatts = 0;
  const int code = Tell(device, "power", "300", 1e3, &milliwatts);
  if (code != kSuccess) return code;
  const std::lock_guard lock(mutex);
  const auto now = std::chrono::steady_clock::now();
  const auto begin = counted_at.try_emplace(Number(device), now).first;
  double& counted = counted_millijoules[Number(device)];
  counted += milliwatts * std::chrono::duration<double>(now - begin->second).count();
  begin->second = now;
  *millijoules = static_cast<unsigned long long>(counted);
  return kSuccess;
}
#endif

}  // extern "C"
