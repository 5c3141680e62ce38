// The safetensors format: u64 little-endian header length, JSON header, raw little-endian tensors.
// Source: the format section of the safetensors project's README. No LibTorch here: a tensor is a
// name, a dtype, a shape and bytes.
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

/// Header (8-byte length included), padded with spaces so that the first tensor starts at a
/// multiple of 64 bytes.
std::string SafetensorsHeader(const std::vector<TensorBytes>& tensors,
                              const std::map<std::string, std::string>& metadata);

struct SafetensorsView {
  std::vector<TensorBytes> tensors;  // Borrow from the input.
  std::map<std::string, std::string> metadata;
};
/// Checks everything: length, JSON, dtypes, overflow, overlap, holes. INVALID_ARGUMENT says what is
/// wrong.
absl::StatusOr<SafetensorsView> ParseSafetensors(std::span<const std::byte> file);

}  // namespace lockstep::trainer
