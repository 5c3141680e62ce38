// A deep copy of many tensors, made as fast as memory allows.
//
// The tensors of a replica are views of a few flat storages. So each storage is copied in one
// piece, not tensor by tensor, into memory that is kept from one copy to the next and that was
// touched before: the first touch of a page costs more than copying it.
//
// From a GPU the copy stays in the GPU's memory where there is room for it, made in the order of
// the current stream, and Fetch() brings it to pinned memory later, on a stream of its own. Where
// there is no room, it goes to pinned memory at once and Take() waits for it.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <optional>
#include <vector>

#include "trainer/device/side_stream.h"

namespace lockstep::trainer {

class FlatCopy {
 public:
  /// Gets and touches the host's memory for a copy of these tensors.
  void Prepare(const std::vector<at::Tensor>& tensors);

  /// Copies them; prepares first where that is needed. They may be written to as soon as this
  /// returns, on a GPU by the stream that is current now. Throws std::invalid_argument for tensors
  /// on two GPUs, c10::Error when the host's memory does not suffice.
  void Take(const std::vector<at::Tensor>& tensors);

  /// Waits until the copy is in the host's memory. May be another thread than Take()'s, not at the
  /// same time.
  void Fetch();

  /// The first element of the copy of the i-th tensor, whose elements have its strides. After
  /// Fetch(), until the next Take() or Prepare().
  const std::byte* data(size_t i) const;

  /// How many pieces of memory the tensors come to.
  size_t pieces() const { return pieces_.size(); }

 private:
  // Tensors that lie close together in one storage.
  struct Piece {
    c10::Storage storage;  // Held only while it is looked at.
    size_t begin = 0;      // Byte of the storage.
    size_t bytes = 0;
    size_t offset = 0;  // Of its copy. Those on a GPU come first, so that they are fetched at once.
  };

  void LayOut(const std::vector<at::Tensor>& tensors);
  void Reserve();
  void DropStorages();
  void CopyOnHost(const Piece& piece);
  void CopyFromDevice();

  at::Device device_{at::kCPU};  // Of the pieces that are not on the CPU.
  std::vector<Piece> pieces_;
  std::vector<size_t> offsets_;  // By tensor.
  size_t bytes_ = 0;             // Of all pieces.
  size_t device_bytes_ = 0;      // Of those on the GPU.
  at::Tensor host_;              // uint8
  at::Tensor staged_;            // uint8, the copy on the GPU; defined until it is fetched.
  std::optional<DeviceEvent> taken_;
  std::optional<SideStream> side_;
};

}  // namespace lockstep::trainer
