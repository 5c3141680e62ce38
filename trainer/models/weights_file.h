// A file of weights in memory, whatever its format. No LibTorch here.
#pragma once

#include <cstddef>
#include <deque>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "trainer/checkpoint/safetensors.h"

namespace lockstep::trainer {

struct WeightsFile {
  WeightsFile() = default;
  WeightsFile(WeightsFile&&) = default;
  WeightsFile& operator=(WeightsFile&&) = default;

  std::string format;
  std::string xxh3_128;              // Of `bytes`, 32 hex digits.
  std::vector<TensorBytes> tensors;  // Borrow from the members below.
  std::vector<std::byte> bytes;
  std::deque<std::vector<std::byte>> copies;
};

/// Errors as LoadWeights() (weights.h); a file that is something else (a web page, a pointer of git
/// lfs, HDF5) is called by its name.
absl::StatusOr<WeightsFile> ReadWeightsFile(const std::string& path);

}  // namespace lockstep::trainer
