// A library with NCCL's ABI whose ranks are threads of one process and whose GPUs are FakeGpus.
//
// As in NCCL, communicators are non-blocking: connecting and every collective return at once, a
// collective runs when its place on the stream has come and all ranks have enqueued theirs, and
// what goes wrong shows in ncclCommGetAsyncError(). An abort ends the collectives of one rank only.
#include <array>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "tests/trainer/comm/stand_in/fake_stream.h"
#include "tests/trainer/comm/stand_in/faults.h"
#include "trainer/comm/nccl_library.h"

using lockstep::trainer::FakeStream;
using lockstep::trainer::StandInFaults;
namespace nccl = lockstep::trainer::nccl;

namespace {

StandInFaults faults;  // Set before the ranks start.

struct Collective {
  std::vector<void*> buffers;  // By rank.
  int arrived = 0;
  bool done = false;
};

// The ranks of one id.
struct World {
  explicit World(int size) : size(size) {}
  const int size;
  std::mutex mutex;
  std::condition_variable changed;
  int joined = 0;
  std::map<int64_t, Collective> collectives;
};

std::mutex worlds_mutex;
std::map<std::array<char, sizeof(nccl::UniqueId)>, std::weak_ptr<World>> worlds;

template <typename T>
void Sum(const std::vector<void*>& buffers, size_t count) {
  for (size_t i = 0; i < count; ++i) {
    T sum = static_cast<const T*>(buffers[0])[i];
    for (size_t r = 1; r < buffers.size(); ++r) sum += static_cast<const T*>(buffers[r])[i];
    for (void* buffer : buffers) static_cast<T*>(buffer)[i] = sum;
  }
}

}  // namespace

struct nccl::Comm {
  std::shared_ptr<World> world;
  int rank = 0;
  int64_t collectives = 0;
  bool aborted = false;  // Guarded by world->mutex.
  std::atomic<int> running{0};

  // Puts a collective on the stream; `work` is done once, by the rank that comes last.
  nccl::Result Enqueue(void* stream, void* buffer,
                       std::function<void(const std::vector<void*>&)> work) {
    const int64_t number = ++collectives;
    ++running;
    static_cast<FakeStream*>(stream)->Enqueue([this, number, buffer, work = std::move(work)] {
      Run(number, buffer, work);
      --running;
    });
    return nccl::kSuccess;
  }

  void Run(int64_t number, void* buffer,
           const std::function<void(const std::vector<void*>&)>& work) {
    std::unique_lock lock(world->mutex);
    Collective& collective = world->collectives[number];
    collective.buffers.resize(static_cast<size_t>(world->size));
    collective.buffers[static_cast<size_t>(rank)] = buffer;
    if (++collective.arrived == world->size) {
      work(collective.buffers);
      collective.done = true;
      world->changed.notify_all();
    }
    world->changed.wait(lock, [&] { return collective.done || aborted; });
  }
};

extern "C" {

void StandInSetFaults(const StandInFaults& wanted) {
  faults = wanted;
}

nccl::Result ncclGetVersion(int* version) {
  *version = STAND_IN_VERSION;
  return nccl::kSuccess;
}

nccl::Result ncclGetUniqueId(nccl::UniqueId* id) {
  if (faults.id_fails) return nccl::kSystemError;
  static std::atomic<int64_t> next{1};
  const int64_t number = next++;
  std::memcpy(id->bytes, &number, sizeof(number));
  return nccl::kSuccess;
}

#ifndef STAND_IN_INCOMPLETE
nccl::Result ncclCommInitRankConfig(nccl::Comm** comm, int ranks, nccl::UniqueId id, int rank,
                                    nccl::Config* config) {
  if (config->magic != 0xcafebeef || config->blocking != 0) return nccl::kInvalidUsage;
  if (faults.connecting_fails) return nccl::kSystemError;
  std::array<char, sizeof(id)> key{};
  std::memcpy(key.data(), id.bytes, sizeof(id));
  const std::lock_guard lock(worlds_mutex);
  std::shared_ptr<World> world = worlds[key].lock();
  if (!world) worlds[key] = world = std::make_shared<World>(ranks);
  *comm = new nccl::Comm{.world = world, .rank = rank};
  const std::lock_guard inner(world->mutex);
  ++world->joined;
  return nccl::kInProgress;
}
#endif

nccl::Result ncclCommGetAsyncError(nccl::Comm* comm, nccl::Result* state) {
  const std::lock_guard lock(comm->world->mutex);
  const bool connecting = comm->world->joined < comm->world->size || faults.connecting_never_ends;
  *state = connecting ? nccl::kInProgress : nccl::kSuccess;
  if (faults.broken_collective > 0 && comm->collectives >= faults.broken_collective) {
    *state = nccl::kRemoteError;
  }
  return nccl::kSuccess;
}

nccl::Result ncclCommFinalize(nccl::Comm*) {
  return nccl::kSuccess;
}

nccl::Result ncclCommDestroy(nccl::Comm* comm) {
  while (comm->running > 0) std::this_thread::yield();
  delete comm;
  return nccl::kSuccess;
}

nccl::Result ncclCommAbort(nccl::Comm* comm) {
  while (faults.abort_hangs) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  {
    const std::lock_guard lock(comm->world->mutex);
    comm->aborted = true;
    comm->world->changed.notify_all();
  }
  return ncclCommDestroy(comm);
}

const char* ncclGetErrorString(nccl::Result result) {
  return result == nccl::kRemoteError ? "remote process exited or there was a network error"
                                      : "unhandled system error";
}

const char* ncclGetLastError(nccl::Comm*) {
  return "what the stand-in says last";
}

nccl::Result ncclAllReduce(const void* from, void* to, size_t count, nccl::DataType type,
                           nccl::Operation operation, nccl::Comm* comm, void* stream) {
  if (from != to || operation != nccl::kSum) return nccl::kInvalidArgument;
  return comm->Enqueue(stream, to, [type, count](const std::vector<void*>& buffers) {
    if (type == nccl::kFloat32) Sum<float>(buffers, count);
    if (type == nccl::kFloat64) Sum<double>(buffers, count);
    if (type == nccl::kInt64) Sum<int64_t>(buffers, count);
  });
}

nccl::Result ncclBroadcast(const void* from, void* to, size_t count, nccl::DataType type, int root,
                           nccl::Comm* comm, void* stream) {
  if (from != to || type != nccl::kUint8) return nccl::kInvalidArgument;
  return comm->Enqueue(stream, to, [root, count](const std::vector<void*>& buffers) {
    const void* source = buffers[static_cast<size_t>(root)];
    for (void* buffer : buffers) {
      if (buffer != source) std::memcpy(buffer, source, count);
    }
  });
}

}  // extern "C"
