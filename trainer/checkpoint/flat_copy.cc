#include "trainer/checkpoint/flat_copy.h"

#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <cstring>
#include <numeric>
#include <stdexcept>
#include <tuple>

namespace lockstep::trainer {
namespace {

constexpr size_t kAlignment = 64;
// Bytes between two tensors that are copied along rather than jumped over; the arena's padding is
// less than a cache line.
constexpr size_t kLargestGap = 4096;
constexpr int64_t kBytesAThread = 1 << 20;

// Bytes [begin, end) of a storage: from a tensor's first element to one past its last.
struct Extent {
  bool on_host = true;
  const c10::StorageImpl* storage = nullptr;
  size_t begin = 0;
  size_t end = 0;
};

Extent ExtentOf(const at::Tensor& tensor) {
  Extent extent;
  extent.on_host = tensor.is_cpu();
  extent.storage = tensor.storage().unsafeGetStorageImpl();
  extent.begin = static_cast<size_t>(tensor.storage_offset()) * tensor.element_size();
  extent.end = extent.begin;
  if (tensor.numel() == 0) return extent;
  size_t last = 0;  // ATen's strides are never negative.
  for (int64_t i = 0; i < tensor.dim(); ++i) {
    last += static_cast<size_t>((tensor.size(i) - 1) * tensor.stride(i));
  }
  extent.end += (last + 1) * tensor.element_size();
  return extent;
}

size_t Align(size_t bytes) {
  return (bytes + kAlignment - 1) / kAlignment * kAlignment;
}

}  // namespace

void FlatCopy::LayOut(const std::vector<at::Tensor>& tensors) {
  device_ = at::Device(at::kCPU);
  std::vector<Extent> extents;
  for (const at::Tensor& tensor : tensors) {
    extents.push_back(ExtentOf(tensor));
    if (tensor.is_cpu()) continue;
    if (!device_.is_cpu() && tensor.device() != device_) {
      throw std::invalid_argument("the tensors of a checkpoint are on " + device_.str() + " and " +
                                  tensor.device().str());
    }
    device_ = tensor.device();
  }
  std::vector<size_t> order(tensors.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    const auto key = [&](size_t i) {
      return std::tie(extents[i].on_host, extents[i].storage, extents[i].begin);
    };
    return key(a) < key(b);
  });

  pieces_.clear();
  offsets_.assign(tensors.size(), 0);
  bytes_ = device_bytes_ = 0;
  for (size_t i = 0; i < order.size();) {
    const Extent& first = extents[order[i]];
    Piece piece{.storage = tensors[order[i]].storage(), .begin = first.begin, .offset = bytes_};
    size_t end = first.end;
    for (; i < order.size(); ++i) {
      const Extent& next = extents[order[i]];
      if (next.storage != first.storage || next.begin > end + kLargestGap) break;
      end = std::max(end, next.end);
      offsets_[order[i]] = piece.offset + (next.begin - piece.begin);
    }
    piece.bytes = end - piece.begin;
    bytes_ += Align(piece.bytes);
    if (!first.on_host) device_bytes_ = bytes_;
    pieces_.push_back(std::move(piece));
  }
}

void FlatCopy::Reserve() {
  const bool pinned = !device_.is_cpu();
  if (host_.defined() && host_.nbytes() >= bytes_ && host_.is_pinned() == pinned) return;
  host_ = at::Tensor();  // Before there are two of them.
  host_ = at::empty({static_cast<int64_t>(bytes_)},
                    at::TensorOptions().dtype(at::kByte).pinned_memory(pinned));
  if (bytes_ > 0) std::memset(host_.mutable_data_ptr(), 0, bytes_);
}

void FlatCopy::Prepare(const std::vector<at::Tensor>& tensors) {
  LayOut(tensors);
  Reserve();
  DropStorages();
}

void FlatCopy::Take(const std::vector<at::Tensor>& tensors) {
  LayOut(tensors);
  Reserve();
  CopyFromDevice();
  for (const Piece& piece : pieces_) {
    if (piece.storage.device().is_cpu()) CopyOnHost(piece);
  }
  DropStorages();
}

void FlatCopy::DropStorages() {
  for (Piece& piece : pieces_) piece.storage = c10::Storage();
}

// memcpy, not ATen's copy: for this much it writes past the caches, a third less traffic.
void FlatCopy::CopyOnHost(const Piece& piece) {
  const auto* from = static_cast<const std::byte*>(piece.storage.data()) + piece.begin;
  auto* to = static_cast<std::byte*>(host_.mutable_data_ptr()) + piece.offset;
  at::parallel_for(0, static_cast<int64_t>(piece.bytes), kBytesAThread,
                   [&](int64_t begin, int64_t end) {
                     std::memcpy(to + begin, from + begin, static_cast<size_t>(end - begin));
                   });
}

void FlatCopy::CopyFromDevice() {
  staged_ = at::Tensor();
  if (device_bytes_ == 0) return;
  const at::NoGradGuard no_grad;
  const auto options = at::TensorOptions().dtype(at::kByte).device(device_);
  const auto total = static_cast<int64_t>(device_bytes_);
  try {
    staged_ = at::empty({total}, options);
  } catch (const c10::OutOfMemoryError&) {
    // Slower for the step, but it must not fail for that.
  }
  const at::Tensor& to = staged_.defined() ? staged_ : host_;
  for (const Piece& piece : pieces_) {
    if (piece.storage.device().is_cpu()) continue;
    const auto bytes = static_cast<int64_t>(piece.bytes);
    const at::Tensor from =
        at::empty({0}, options)
            .set_(piece.storage, static_cast<int64_t>(piece.begin), {bytes}, {1});
    to.narrow(0, static_cast<int64_t>(piece.offset), bytes).copy_(from, /*non_blocking=*/true);
  }
  if (!taken_) taken_.emplace(device_);
  taken_->Record();
  if (!staged_.defined()) taken_->Wait();
}

void FlatCopy::Fetch() {
  if (!staged_.defined()) return;
  if (!side_) side_.emplace(device_);
  {
    const SideStream::Scope on_side(*side_);
    taken_->Block();
    host_.narrow(0, 0, staged_.numel()).copy_(staged_, /*non_blocking=*/true);
    DeviceEvent fetched(device_);
    fetched.Record();
    fetched.Wait();
  }
  staged_ = at::Tensor();
}

const std::byte* FlatCopy::data(size_t i) const {
  return static_cast<const std::byte*>(host_.const_data_ptr()) + offsets_[i];
}

}  // namespace lockstep::trainer
