// Reads the pickle inside a PyTorch state dict without running anything: a pickle is a program for
// a small stack machine, and this one knows only the instructions that build dicts, lists, tuples,
// numbers, strings and tensors. Source: Python's pickletools, which documents each instruction; the
// calls are those that torch.save writes (torch/_utils.py).
//
// Every other instruction and every other global is refused by name. Values are numbered and refer
// to each other by number, so that a pickle that nests deeply or refers to itself costs neither
// stack nor time; their count is bounded.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace lockstep::trainer {

// A tensor as the pickle describes it; where its bytes are is the file's business.
struct PickledTensor {
  std::string storage;  // Key.
  std::string dtype;    // safetensors' word.
  int64_t storage_elements = 0;
  int64_t offset = 0;          // In elements.
  std::vector<int64_t> shape;  // Not negative.
  std::vector<int64_t> strides;
};

struct PickleValue {
  enum class Kind {
    kNone,
    kBoolean,
    kInteger,
    kLongInteger,  // Beyond 64 bits: its bytes, little-endian, in `text`.
    kNumber,
    kText,
    kTuple,
    kList,
    kDict,     // `items` are key, value, key, value, …
    kGlobal,   // "module.name" in `text`.
    kStorage,  // `tensor` holds storage, dtype and storage_elements.
    kTensor,
  };
  Kind kind = Kind::kNone;
  int64_t integer = 0;
  std::string text{};
  std::vector<uint32_t> items{};  // Numbers of other values.
  size_t tensor = 0;              // Index into Pickle::tensors.
};

struct Pickle {
  std::vector<PickleValue> values;
  std::vector<PickledTensor> tensors;
  uint32_t result = 0;
  size_t bytes = 0;  // How many of the input belong to this pickle.

  const PickleValue& root() const { return values[result]; }
};

/// INVALID_ARGUMENT says what was refused, or at which byte the pickle is damaged.
absl::StatusOr<Pickle> ReadPickle(std::span<const std::byte> bytes);

}  // namespace lockstep::trainer
