// Reads the tensors out of a PyTorch state dict (.pth, .pt), both in the zip format (torch.save
// since 1.6) and in the one before it: a few pickles, then the storages' bytes. Nothing in the file
// is run (pickle.h). No LibTorch here.
//
// A training checkpoint that keeps its state dict under "state_dict" or "model" is read as that
// dict. Sizes are checked before anything is allocated; tensors are views of the file, but those
// with other than row-major strides, which are copied, together at most as many bytes as the file
// has.
#pragma once

#include <cstddef>
#include <deque>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "trainer/checkpoint/safetensors.h"

namespace lockstep::trainer {

struct TorchFile {
  std::vector<TensorBytes>
      tensors;  // In the dict's order. Borrow from the input and from `copies`.
  std::deque<std::vector<std::byte>> copies;
};

/// Whether the bytes begin as one of the two formats does.
bool LooksLikeTorchFile(std::span<const std::byte> file);

/// INVALID_ARGUMENT: not a state dict, or something in it that is no tensor; DATA_LOSS: damaged.
absl::StatusOr<TorchFile> ParseTorchFile(std::span<const std::byte> file);

}  // namespace lockstep::trainer
