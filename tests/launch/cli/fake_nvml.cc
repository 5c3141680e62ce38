// Stands in for the driver's libnvidia-ml.so.1, for `lockstep doctor`. Variables say what it tells:
//
//   FAKE_NVML_DRIVER  its version                  FAKE_NVML_GPUS    one capability a GPU:
//   "9.0 9.0" FAKE_NVML_INIT    nvmlInit_v2's answer         FAKE_NVML_NVLINK  pairs: "0-1 2-3";
//   the rest is PCIe
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <sstream>
#include <string>
#include <vector>

namespace {

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

// A device is its number plus one, so that none is null.
unsigned Number(void* device) {
  return static_cast<unsigned>(reinterpret_cast<size_t>(device)) - 1;
}

}  // namespace

extern "C" {

int nvmlInit_v2() {
  return atoi(Variable("FAKE_NVML_INIT").c_str());
}
int nvmlShutdown() {
  return 0;
}
const char* nvmlErrorString(int code) {
  return code == 18 ? "Driver/library version mismatch" : "Unknown Error";
}
int nvmlSystemGetDriverVersion(char* text, unsigned size) {
  snprintf(text, size, "%s", Variable("FAKE_NVML_DRIVER").c_str());
  return 0;
}
int nvmlDeviceGetCount_v2(unsigned* count) {
  *count = static_cast<unsigned>(Words(Variable("FAKE_NVML_GPUS")).size());
  return 0;
}
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void** device) {
  *device = reinterpret_cast<void*>(size_t{index} + 1);
  return 0;
}
int nvmlDeviceGetName(void* device, char* text, unsigned size) {
  const std::string capability = Words(Variable("FAKE_NVML_GPUS"))[Number(device)];
  snprintf(text, size, "NVIDIA Test %s", capability.c_str());
  return 0;
}
int nvmlDeviceGetMemoryInfo(void*, unsigned long long* total_free_used) {
  total_free_used[0] = 80ull << 30;
  total_free_used[1] = 79ull << 30;
  total_free_used[2] = 1ull << 30;
  return 0;
}
int nvmlDeviceGetCudaComputeCapability(void* device, int* major, int* minor) {
  sscanf(Words(Variable("FAKE_NVML_GPUS"))[Number(device)].c_str(), "%d.%d", major, minor);
  return 0;
}
int nvmlDeviceGetP2PStatus(void* first, void* second, int index, int* status) {
  const std::string pair = std::to_string(Number(first)) + "-" + std::to_string(Number(second));
  *status = 5;  // Not supported.
  if (index != 2) return 0;
  for (const std::string& linked : Words(Variable("FAKE_NVML_NVLINK"))) {
    if (linked == pair) *status = 0;
  }
  return 0;
}
int nvmlDeviceGetTopologyCommonAncestor(void*, void*, int* level) {
  *level = 30;  // Through the CPU.
  return 0;
}

}  // extern "C"
