#include "trainer/host_memory.h"

#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>
#include <c10/util/Exception.h>
#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdlib>
#include <map>
#include <mutex>
#include <vector>

namespace lockstep::trainer {
namespace {

// Below, malloc() keeps memory by itself and is faster than a lock.
constexpr size_t kLeastKept = 32 << 10;
constexpr size_t kHugePage = 2 << 20;
// In front of every block: what Free() must know, at the alignment that LibTorch promises.
struct alignas(64) Header {
  size_t bytes = 0;  // Of the whole block.
};

// Whole sixteenths of a power of two: at most 6 % more than asked for, so that nearly equal sizes
// share blocks.
size_t BlockBytes(size_t wanted) {
  if (wanted < kLeastKept) return wanted;
  const size_t unit = std::max<size_t>(std::bit_floor(wanted) / 16, 4096);
  return (wanted + unit - 1) / unit * unit;
}

class HostMemory : public c10::Allocator {
 public:
  c10::DataPtr allocate(size_t bytes) override {
    const c10::Device device(c10::DeviceType::CPU);
    if (bytes == 0) return {nullptr, nullptr, &Free, device};
    const size_t block = BlockBytes(bytes + sizeof(Header));
    void* start = block < kLeastKept ? nullptr : TakeKept(block);
    if (start == nullptr) start = Obtain(block);
    void* data = new (start) Header{block} + 1;
    return {data, data, &Free, device};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &Free; }
  void copy_data(void* to, const void* from, size_t bytes) const override {
    default_copy_data(to, from, bytes);
  }

  HostMemoryUse Use() {
    const std::lock_guard lock(mutex_);
    return use_;
  }

 private:
  static void Free(void* data);

  void* TakeKept(size_t block) {
    const std::lock_guard lock(mutex_);
    use_.in_use_bytes += static_cast<int64_t>(block);
    use_.peak_bytes = std::max(use_.peak_bytes, use_.in_use_bytes);
    const auto found = kept_.find(block);
    if (found == kept_.end() || found->second.empty()) return nullptr;
    void* start = found->second.back();
    found->second.pop_back();
    use_.kept_bytes -= static_cast<int64_t>(block);
    return start;
  }

  // From the system; with what is kept given back first where it has no more.
  void* Obtain(size_t block) {
    const size_t alignment = block >= kHugePage ? kHugePage : alignof(Header);
    const size_t rounded = (block + alignof(Header) - 1) / alignof(Header) * alignof(Header);
    void* start = nullptr;
    if (posix_memalign(&start, alignment, rounded) != 0) {
      GiveBack(0);
      if (posix_memalign(&start, alignment, rounded) != 0) {
        TORCH_CHECK(false, "can't allocate memory: ", block, " bytes of host memory for a tensor");
      }
    }
    if (block >= kHugePage) madvise(start, block, MADV_HUGEPAGE);
    return start;
  }

  void Keep(void* start, size_t block) {
    {
      const std::lock_guard lock(mutex_);
      use_.in_use_bytes -= static_cast<int64_t>(block);
      use_.kept_bytes += static_cast<int64_t>(block);
      kept_[block].push_back(start);
      if (use_.kept_bytes <= use_.peak_bytes) return;
    }
    GiveBack(GetHostMemoryUse().peak_bytes);
  }

  // Largest first, until no more than `most` bytes are kept.
  void GiveBack(int64_t most) {
    const std::lock_guard lock(mutex_);
    for (auto size = kept_.rbegin(); size != kept_.rend(); ++size) {
      while (use_.kept_bytes > most && !size->second.empty()) {
        std::free(size->second.back());
        size->second.pop_back();
        use_.kept_bytes -= static_cast<int64_t>(size->first);
      }
    }
  }

  std::mutex mutex_;  // Guards all below.
  std::map<size_t, std::vector<void*>> kept_;
  HostMemoryUse use_;
};

// Never destroyed: tensors in static storage are freed after everything else.
HostMemory& TheHostMemory() {
  static auto* memory = new HostMemory;
  return *memory;
}

void HostMemory::Free(void* data) {
  if (data == nullptr) return;
  Header* header = static_cast<Header*>(data) - 1;
  const size_t block = header->bytes;
  if (block < kLeastKept) {
    std::free(header);
  } else {
    TheHostMemory().Keep(header, block);
  }
}

}  // namespace

void KeepFreedHostMemory() {
  c10::SetCPUAllocator(&TheHostMemory(), /*priority=*/100);
}

HostMemoryUse GetHostMemoryUse() {
  return TheHostMemory().Use();
}

}  // namespace lockstep::trainer
