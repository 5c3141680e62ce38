#include "metrics/devices/nvml.h"

#include <algorithm>
#include <array>
#include <cstdlib>

#include "absl/strings/str_cat.h"

namespace lockstep::metrics {
namespace {

constexpr size_t kTextBytes = 128;  // More than NVML's longest text (96).

std::string Clean(const char* text) {
  std::string clean = text == nullptr ? "" : text;
  for (char& c : clean) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7f) c = ' ';
  }
  return clean;
}

}  // namespace

std::string NvmlLibraryName() {
  const char* name = std::getenv("LOCKSTEP_NVML_LIBRARY");  // NOLINT(concurrency-mt-unsafe)
  return name != nullptr && *name != '\0' ? name : "libnvidia-ml.so.1";
}

absl::StatusOr<std::unique_ptr<Nvml>> Nvml::Load(const std::string& library) {
  void* handle = dlopen(library.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) {
    const char* why = dlerror();  // NOLINT(concurrency-mt-unsafe): kept per thread by glibc.
    return absl::NotFoundError(why != nullptr ? why : library);
  }
  std::unique_ptr<Nvml> nvml(new Nvml(handle, library));
  const int code = nvml->Call<int()>("nvmlInit_v2");
  if (code != kNvmlSuccess) return nvml->Error("nvmlInit_v2", code);
  nvml->initialized_ = true;
  return nvml;
}

Nvml::~Nvml() {
  if (initialized_) Call<int()>("nvmlShutdown");
  dlclose(handle_);
}

std::string Nvml::ErrorText(int code) const {
  auto* function = reinterpret_cast<const char* (*)(int)>(dlsym(handle_, "nvmlErrorString"));
  return function == nullptr ? absl::StrCat("NVML error ", code) : Clean(function(code));
}

absl::Status Nvml::Error(const char* function, int code) const {
  if (dlsym(handle_, function) == nullptr) {
    return absl::UnimplementedError(absl::StrCat(library_, " has no ", function));
  }
  return absl::UnavailableError(ErrorText(code));
}

absl::StatusOr<std::string> Nvml::DriverVersion() const {
  std::array<char, kTextBytes> version{};
  constexpr const char* kFunction = "nvmlSystemGetDriverVersion";
  const int code = Call<int(char*, unsigned)>(kFunction, version.data(), unsigned{kTextBytes - 1});
  if (code != kNvmlSuccess) return Error(kFunction, code);
  return Clean(version.data());
}

absl::StatusOr<unsigned> Nvml::CountGpus() const {
  unsigned count = 0;
  constexpr const char* kFunction = "nvmlDeviceGetCount_v2";
  const int code = Call<int(unsigned*)>(kFunction, &count);
  if (code != kNvmlSuccess) return Error(kFunction, code);
  return std::min(count, kMostGpus);
}

NvmlDevice Nvml::Gpu(unsigned index, int* code) const {
  NvmlDevice gpu = nullptr;
  *code = Call<int(unsigned, NvmlDevice*)>("nvmlDeviceGetHandleByIndex_v2", index, &gpu);
  return gpu;
}

std::string Nvml::Text(const char* function, NvmlDevice gpu) const {
  std::array<char, kTextBytes> text{};
  const int code =
      Call<int(NvmlDevice, char*, unsigned)>(function, gpu, text.data(), unsigned{kTextBytes - 1});
  return code == kNvmlSuccess ? Clean(text.data()) : "";
}

std::optional<NvmlMemory> Nvml::Memory(NvmlDevice gpu) const {
  NvmlMemory memory{};
  const int code = Call<int(NvmlDevice, NvmlMemory*)>("nvmlDeviceGetMemoryInfo", gpu, &memory);
  if (code != kNvmlSuccess) return std::nullopt;
  return memory;
}

}  // namespace lockstep::metrics
