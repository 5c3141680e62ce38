// Stands in for libnccl.so.2, for `lockstep doctor`, which looks at its version (FAKE_NCCL_VERSION)
// and at which functions there are. Built a second time without ncclCommAbort.
#include <cstdlib>

extern "C" {

int ncclGetVersion(int* version) {
  const char* value = getenv("FAKE_NCCL_VERSION");
  *version = value != nullptr ? atoi(value) : 22809;
  return 0;
}
#define FAKE_FUNCTION(name) \
  int name() {              \
    return 0;               \
  }
FAKE_FUNCTION(ncclGetUniqueId)
FAKE_FUNCTION(ncclCommInitRankConfig)
FAKE_FUNCTION(ncclCommGetAsyncError)
FAKE_FUNCTION(ncclCommFinalize)
FAKE_FUNCTION(ncclCommDestroy)
FAKE_FUNCTION(ncclAllReduce)
FAKE_FUNCTION(ncclBroadcast)
FAKE_FUNCTION(ncclGetErrorString)
FAKE_FUNCTION(ncclGetLastError)
#ifndef FAKE_NCCL_CANNOT_ABORT
FAKE_FUNCTION(ncclCommAbort)
#endif

}  // extern "C"
