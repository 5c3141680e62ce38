// The safetensors format: u64 little-endian header length, JSON header, raw little-endian tensors.
// Source: the format section of the safetensors project's README. No LibTorch here: a tensor is a
// name, a dtype, a shape and bytes.
//
// The reader trusts nothing: it takes exactly the header that the format describes, at bounded
// depth, and touches no tensor byte.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace lockstep::trainer {

struct TensorBytes {
  std::string name;
  std::string dtype;  // "F32", "F64", "I64", "BF16", "U8", …
  std::vector<int64_t> shape;
  std::span<const std::byte> bytes;  // Contiguous, row-major. Borrowed.
};

inline constexpr size_t kMaxSafetensorsHeaderBytes = 100'000'000;  // The format's own limit.

/// Bytes of one element; 0 for a dtype that is not of the format.
size_t ElementBytes(const std::string& dtype);

/// INVALID_ARGUMENT when a tensor's bytes are not what its dtype and shape need, or a name occurs
/// twice: SafetensorsHeader() would make a file that no reader takes.
absl::Status CheckTensors(const std::vector<TensorBytes>& tensors);

/// Header (8-byte length included), padded with spaces so that the first tensor starts at a
/// multiple of 64 bytes. The tensors' bytes follow it in the given order; larger elements first
/// keeps each tensor aligned to its own element size, which other readers count on.
std::string SafetensorsHeader(const std::vector<TensorBytes>& tensors,
                              const std::map<std::string, std::string>& metadata);

struct SafetensorsView {
  std::vector<TensorBytes> tensors;  // In file order. Borrow from the input.
  std::map<std::string, std::string> metadata;
};
/// Checks everything: length, JSON, duplicate names, dtypes, overflow, overlap, holes.
/// INVALID_ARGUMENT says what is wrong.
absl::StatusOr<SafetensorsView> ParseSafetensors(std::span<const std::byte> file);

}  // namespace lockstep::trainer
