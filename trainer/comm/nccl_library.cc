#include "trainer/comm/nccl_library.h"

#include <dlfcn.h>

#include <cstdlib>
#include <stdexcept>

namespace lockstep::trainer {
namespace {

constexpr char kHint[] =
    " HINT: scripts/setup --cuda installs one that fits; LOCKSTEP_NCCL=FILE names one of your own.";

std::string TextOf(int version) {
  return std::to_string(version / 10000) + "." + std::to_string(version / 100 % 100) + "." +
         std::to_string(version % 100);
}

template <typename Function>
void Find(void* handle, const char* name, const std::string& what, Function& function) {
  // The one conversion that C++ leaves to POSIX.
  function = reinterpret_cast<Function>(dlsym(handle, name));
  if (function != nullptr) return;
  throw std::runtime_error(what + " has no function " + name + "." + kHint);
}

}  // namespace

std::shared_ptr<const NcclLibrary> NcclLibrary::Open(const std::string& file) {
  const char* chosen = std::getenv("LOCKSTEP_NCCL");
  std::string name = file;
  if (name.empty()) name = chosen != nullptr && *chosen != '\0' ? chosen : "libnccl.so.2";
  void* handle = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) {
    throw std::runtime_error("loading NCCL: " + std::string(dlerror()) + "." + kHint);
  }
  std::shared_ptr<NcclLibrary> library(new NcclLibrary(handle));

  std::string what = "NCCL (" + name + ")";
  nccl::Result (*get_version)(int*) = nullptr;
  Find(handle, "ncclGetVersion", what, get_version);
  get_version(&library->version_);
  what = "NCCL " + library->VersionText() + " (" + name + ")";
  if (library->version_ < nccl::kLeastVersion) {
    throw std::runtime_error(what + " is too old: " + TextOf(nccl::kLeastVersion) +
                             " or newer is needed." + kHint);
  }
  Find(handle, "ncclGetUniqueId", what, library->get_unique_id);
  Find(handle, "ncclCommInitRankConfig", what, library->comm_init_rank_config);
  Find(handle, "ncclCommGetAsyncError", what, library->comm_get_async_error);
  Find(handle, "ncclCommFinalize", what, library->comm_finalize);
  Find(handle, "ncclCommDestroy", what, library->comm_destroy);
  Find(handle, "ncclCommAbort", what, library->comm_abort);
  Find(handle, "ncclGetErrorString", what, library->get_error_string);
  Find(handle, "ncclGetLastError", what, library->get_last_error);
  Find(handle, "ncclAllReduce", what, library->all_reduce);
  Find(handle, "ncclBroadcast", what, library->broadcast);
  return library;
}

NcclLibrary::~NcclLibrary() {
  dlclose(handle_);
}

std::string NcclLibrary::VersionText() const {
  return TextOf(version_);
}

}  // namespace lockstep::trainer
