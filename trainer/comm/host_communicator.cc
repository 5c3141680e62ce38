#include "trainer/comm/host_communicator.h"

#include <ATen/ops/from_blob.h>
#include <c10/core/ScalarType.h>

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <string>

#include "trainer/comm/slice_sum.h"

namespace lockstep::trainer {
namespace {

// Of one rank. Large enough that the two barriers of a chunk (some microseconds) do not count
// against copying it (about 200 us), small enough to stay in a second-level cache.
constexpr int64_t kStagingBytes = 1 << 20;
// How much longer the others wait for the first rank of their host when it waits for another host:
// it knows better who is missing, so it shall speak first.
constexpr std::chrono::milliseconds kBridgeGrace(5000);

Collective MakeCollective(Collective::Kind kind, const at::Tensor& tensor, int64_t detail) {
  return {.kind = kind,
          .dtype = static_cast<int32_t>(tensor.scalar_type()),
          .count = tensor.numel(),
          .detail = detail};
}

void RequireHostMemory(const at::Tensor& tensor, const char* collective) {
  if (tensor.is_contiguous() && tensor.is_cpu()) return;
  throw std::invalid_argument(std::string(collective) + ": expected a contiguous CPU tensor, got " +
                              tensor.toString() + " of strides that leave gaps, or another device");
}

}  // namespace

HostCommunicator::HostCommunicator(Parts parts)
    : parts_(std::move(parts)), rendezvous_(parts_.rendezvous_memory.get(), parts_.rendezvous) {}

void HostCommunicator::Begin(const char* kind, const Collective& collective) {
  log_.MarkDone();  // Each ends before the next begins.
  log_.Add(kind, c10::toString(static_cast<c10::ScalarType>(collective.dtype)), collective.count);
  rendezvous_.Begin(collective);
}

SharedRegion HostCommunicator::MakeRegion(int64_t bytes) {
  Begin("allocation", {.kind = Collective::Kind::kAllocate, .count = bytes});
  return parts_.make_region(rendezvous_, bytes);
}

const SharedRegion& HostCommunicator::Staging() {
  if (staging_.windows.empty()) staging_ = MakeRegion(kStagingBytes);
  return staging_;
}

at::Tensor HostCommunicator::Allocate(int64_t elements) {
  const int64_t bytes = std::max<int64_t>(64, (elements * int64_t{sizeof(float)} + 63) / 64 * 64);
  regions_.push_back(MakeRegion(bytes));
  const SharedRegion& region = regions_.back();
  // The tensor holds the mapping, so a model that outlives the communicator does not dangle.
  return at::from_blob(
      region.windows[index()], {elements}, [memory = region.memory](void*) {},
      at::TensorOptions().dtype(at::kFloat));
}

const SharedRegion* HostCommunicator::Find(const std::byte* data, int64_t bytes) const {
  for (const SharedRegion& region : regions_) {
    const std::byte* window = region.windows[index()];
    if (data >= window && data + bytes <= window + region.bytes) return &region;
  }
  return nullptr;
}

void HostCommunicator::AllReduce(const at::Tensor& tensor) {
  RequireHostMemory(tensor, "AllReduce");
  switch (tensor.scalar_type()) {
    case at::kFloat:
      return SumTensor<float>(tensor);
    case at::kDouble:
      return SumTensor<double>(tensor);
    case at::kLong:
      return SumTensor<int64_t>(tensor);
    default:
      throw std::invalid_argument(
          std::string("AllReduce: expected float32, float64 or int64, got ") +
          c10::toString(tensor.scalar_type()));
  }
}

template <typename T>
void HostCommunicator::SumTensor(const at::Tensor& tensor) {
  auto* data = static_cast<std::byte*>(tensor.mutable_data_ptr());
  const SharedRegion* region = Find(data, tensor.numel() * int64_t{sizeof(T)});
  const int64_t offset = region ? data - region->windows[index()] : -1;
  Begin("all-reduce", MakeCollective(Collective::Kind::kAllReduce, tensor, offset));
  if (tensor.numel() == 0 || size() == 1) return;
  if (region != nullptr) {
    SumWindows<T>(*region, offset, tensor.numel());
    return;
  }
  constexpr int64_t kChunk = kStagingBytes / int64_t{sizeof(T)};
  const SharedRegion& staging = Staging();
  std::byte* window = staging.windows[index()];
  for (int64_t done = 0; done < tensor.numel(); done += kChunk) {
    const int64_t count = std::min(kChunk, tensor.numel() - done);
    std::byte* chunk = data + done * int64_t{sizeof(T)};
    // Nobody still reads this window: every sum ends with a barrier.
    std::memcpy(window, chunk, count * sizeof(T));
    rendezvous_.Meet();
    SumWindows<T>(staging, 0, count);
    std::memcpy(chunk, window, count * sizeof(T));
  }
}

// Between the barrier that says "all windows are filled" and the one that says "all are summed".
template <typename T>
void HostCommunicator::SumWindows(const SharedRegion& region, int64_t offset_bytes, int64_t count) {
  std::vector<T*> buffers;
  for (std::byte* window : region.windows) {
    buffers.push_back(reinterpret_cast<T*>(window + offset_bytes));
  }
  const auto [begin, end] = SliceOf(count, index(), rendezvous_.size());
  if (!parts_.several_hosts) {
    SumToAll(buffers, begin, end);
    rendezvous_.Meet();
    return;
  }
  SumToFirst(buffers, begin, end);
  rendezvous_.Meet();
  if (index() == 0) parts_.bridge->AllReduce(rendezvous_, buffers[0], count);
  MeetAfterBridge();
  if (index() != 0) std::memcpy(buffers[index()], buffers[0], count * sizeof(T));
  rendezvous_.Meet();
}

void HostCommunicator::Broadcast(const at::Tensor& tensor, int root) {
  RequireHostMemory(tensor, "Broadcast");
  Begin("broadcast", MakeCollective(Collective::Kind::kBroadcast, tensor, root));
  auto* data = static_cast<std::byte*>(tensor.mutable_data_ptr());
  const auto bytes = static_cast<int64_t>(tensor.nbytes());
  if (bytes == 0 || size() == 1) return;
  std::byte* shared = Staging().windows[0];
  for (int64_t done = 0; done < bytes; done += kStagingBytes) {
    const int64_t count = std::min(kStagingBytes, bytes - done);
    if (rank() == root) std::memcpy(shared, data + done, count);
    rendezvous_.Meet();
    if (parts_.several_hosts) {
      if (index() == 0) parts_.bridge->Broadcast(rendezvous_, shared, count, root);
      MeetAfterBridge();
    }
    if (rank() != root) std::memcpy(data + done, shared, count);
    rendezvous_.Meet();
  }
}

void HostCommunicator::Barrier() {
  Begin("barrier", {.kind = Collective::Kind::kBarrier});
  if (!parts_.several_hosts) return;
  if (index() == 0) parts_.bridge->Barrier(rendezvous_);
  MeetAfterBridge();
}

void HostCommunicator::MeetAfterBridge() {
  rendezvous_.Meet(index() == 0 ? std::chrono::milliseconds(0) : kBridgeGrace);
}

void HostCommunicator::Abort(std::string_view reason) noexcept {
  rendezvous_.Abort(reason);
}

}  // namespace lockstep::trainer
