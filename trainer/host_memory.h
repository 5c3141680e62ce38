// Host memory for tensors, used again: the allocator under LibTorch's CPU tensors keeps freed
// blocks and hands them out for the next request of their size.
//
// A training step allocates and frees the same sizes in the same order, each time. malloc() gives
// large blocks back to the kernel in between, which then clears and maps every page anew: for a
// gradient of 64 MB 16,000 faults a step, a tenth to a third of a CPU step's time. Kept blocks cost
// none of that, and those of 2 MiB and more lie in huge pages.
//
// What is kept is bounded: never more than was in use at once at the peak, so the process holds at
// most twice its peak. Thread-safe. Contents of a new tensor are as undefined as ever.
#pragma once

#include <cstdint>

namespace lockstep::trainer {

/// For this process, from now on, for good. Tensors made before keep their own deleters.
void KeepFreedHostMemory();

struct HostMemoryUse {
  int64_t in_use_bytes = 0;
  int64_t peak_bytes = 0;
  int64_t kept_bytes = 0;  // Freed and not given back.
};
/// Of blocks large enough to be kept; zero before KeepFreedHostMemory().
HostMemoryUse GetHostMemoryUse();

}  // namespace lockstep::trainer
