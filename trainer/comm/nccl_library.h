// NCCL as a library found at run time: the functions this program calls, by pointer.
//
// Loaded rather than linked, so that one's own NCCL can take the place of the wheel's
// (LOCKSTEP_NCCL=FILE), so that a library that is missing, too old or incomplete is an error that
// says so, and so that the profile cpu tests everything here against a stand-in. The declarations
// are NCCL's public ABI, that of nccl.h 2.19, which later versions keep; a test of the profile cuda
// holds them against the real header.
#pragma once

#include <cstddef>
#include <memory>
#include <string>

namespace lockstep::trainer {

namespace nccl {

struct Comm;  // Opaque.

struct UniqueId {
  char bytes[128];
};

enum Result : int {
  kSuccess = 0,
  kUnhandledCudaError = 1,
  kSystemError = 2,
  kInternalError = 3,
  kInvalidArgument = 4,
  kInvalidUsage = 5,
  kRemoteError = 6,
  kInProgress = 7,
};

enum DataType : int {
  kInt8 = 0,
  kUint8 = 1,
  kInt64 = 4,
  kFloat16 = 6,
  kFloat32 = 7,
  kFloat64 = 8,
  kBfloat16 = 9,
};

enum Operation : int { kSum = 0 };

inline constexpr int kUndefined = -2147483647 - 1;  // NCCL_CONFIG_UNDEF_INT

constexpr int VersionCode(int major, int minor, int patch) {
  return major * 10000 + minor * 100 + patch;
}
inline constexpr int kLeastVersion = VersionCode(2, 19, 0);

// ncclConfig_t as of 2.19. NCCL reads `size` bytes and takes its own defaults for what later
// versions added.
struct Config {
  size_t size = sizeof(Config);
  unsigned magic = 0xcafebeef;
  unsigned version = kLeastVersion;
  int blocking = kUndefined;
  int cga_cluster_size = kUndefined;
  int min_ctas = kUndefined;
  int max_ctas = kUndefined;
  const char* net_name = nullptr;
  int split_share = kUndefined;
};

}  // namespace nccl

class NcclLibrary {
 public:
  /// `file`: a path, or "" for LOCKSTEP_NCCL where that is set and libnccl.so.2 by the loader's
  /// rules otherwise. Throws std::runtime_error: not found, older than 2.19, or a function missing.
  static std::shared_ptr<const NcclLibrary> Open(const std::string& file = "");
  ~NcclLibrary();
  NcclLibrary(const NcclLibrary&) = delete;
  NcclLibrary& operator=(const NcclLibrary&) = delete;

  int version() const { return version_; }  // 22809 = 2.28.9
  std::string VersionText() const;

  nccl::Result (*get_unique_id)(nccl::UniqueId*) = nullptr;
  nccl::Result (*comm_init_rank_config)(nccl::Comm**, int ranks, nccl::UniqueId, int rank,
                                        nccl::Config*) = nullptr;
  nccl::Result (*comm_get_async_error)(nccl::Comm*, nccl::Result*) = nullptr;
  nccl::Result (*comm_finalize)(nccl::Comm*) = nullptr;
  nccl::Result (*comm_destroy)(nccl::Comm*) = nullptr;
  nccl::Result (*comm_abort)(nccl::Comm*) = nullptr;
  const char* (*get_error_string)(nccl::Result) = nullptr;
  const char* (*get_last_error)(nccl::Comm*) = nullptr;
  nccl::Result (*all_reduce)(const void* from, void* to, size_t count, nccl::DataType,
                             nccl::Operation, nccl::Comm*, void* stream) = nullptr;
  nccl::Result (*broadcast)(const void* from, void* to, size_t count, nccl::DataType, int root,
                            nccl::Comm*, void* stream) = nullptr;

 private:
  explicit NcclLibrary(void* handle) : handle_(handle) {}
  void* handle_;
  int version_ = 0;
};

}  // namespace lockstep::trainer
