#include "trainer/comm/threads.h"

#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <new>
#include <numeric>

#include "trainer/comm/host_communicator.h"

namespace lockstep::trainer {
namespace {

std::shared_ptr<void> ZeroedMemory(size_t bytes) {
  const size_t rounded = (bytes + 63) / 64 * 64;
  void* memory = std::aligned_alloc(64, rounded);
  if (memory == nullptr) throw std::bad_alloc();
  std::memset(memory, 0, rounded);
  return {memory, &std::free};
}

// The regions of a world, in order of allocation; whichever rank comes first makes one.
class Regions {
 public:
  std::shared_ptr<void> Get(int number, size_t bytes) {
    const std::lock_guard lock(mutex_);
    std::weak_ptr<void>& known = regions_[number];
    std::shared_ptr<void> region = known.lock();
    if (!region) known = region = ZeroedMemory(bytes);
    return region;
  }

 private:
  std::mutex mutex_;
  std::map<int, std::weak_ptr<void>> regions_;
};

}  // namespace

std::vector<std::unique_ptr<Communicator>> MakeThreadCommunicators(int world_size,
                                                                   ThreadsOptions options) {
  std::vector<int> ranks(world_size);
  std::iota(ranks.begin(), ranks.end(), 0);
  const auto rendezvous = ZeroedMemory(Rendezvous::Bytes(world_size));
  const auto regions = std::make_shared<Regions>();
  std::vector<std::unique_ptr<Communicator>> communicators;
  for (int rank = 0; rank < world_size; ++rank) {
    HostCommunicator::Parts parts;
    parts.rendezvous_memory = rendezvous;
    parts.rendezvous = {
        .index = rank, .ranks = ranks, .world_size = world_size, .deadline = options.deadline};
    parts.rank = rank;
    parts.make_region = [regions, world_size, number = 0](Rendezvous& meeting,
                                                          int64_t bytes) mutable {
      SharedRegion region;
      region.memory = regions->Get(number++, bytes * world_size);
      region.bytes = bytes;
      for (int i = 0; i < world_size; ++i) {
        region.windows.push_back(static_cast<std::byte*>(region.memory.get()) + i * bytes);
      }
      return region;
    };
    communicators.push_back(std::make_unique<HostCommunicator>(std::move(parts)));
  }
  return communicators;
}

}  // namespace lockstep::trainer
