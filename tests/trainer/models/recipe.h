// Weights and pictures that a test and torchvision (parity_test.py) can both compute to the last
// bit: each value is a hash of the tensor's name and the element's place.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>

#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "trainer/models/model.h"

namespace lockstep::trainer {

/// Uniform in [-0.5, 0.5), a multiple of 2^-24. Murmur3's finalizer over FNV-1a of the name plus
/// the place.
inline double RecipeValue(uint32_t seed, uint32_t place) {
  uint32_t x = seed + place * 2654435761u;
  x ^= x >> 16;
  x *= 0x85ebca6bu;
  x ^= x >> 13;
  x *= 0xc2b2ae35u;
  x ^= x >> 16;
  return static_cast<double>(x >> 8) / 16777216.0 - 0.5;
}

inline uint32_t RecipeSeed(const std::string& name) {
  uint32_t hash = 2166136261u;
  for (const char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 16777619u;
  return hash;
}

inline void FillByRecipe(const std::string& name, const at::Tensor& tensor, double center,
                         double scale) {
  const uint32_t seed = RecipeSeed(name);
  auto* values = static_cast<float*>(tensor.mutable_data_ptr());
  for (int64_t i = 0; i < tensor.numel(); ++i) {
    values[i] = static_cast<float>(center + scale * RecipeValue(seed, static_cast<uint32_t>(i)));
  }
}

/// Weights keep a signal's variance; norms' scales and statistics differ between channels.
inline void FillByRecipe(const Model& model) {
  for (const NamedTensors& tensors : {model.Parameters(), model.Buffers()}) {
    for (const auto& [name, tensor] : tensors) {
      if (!tensor.is_floating_point()) continue;
      if (tensor.dim() > 1) {
        const double fan_in =
            static_cast<double>(tensor.numel()) / static_cast<double>(tensor.size(0));
        FillByRecipe(name, tensor, 0, std::sqrt(24.0 / fan_in));  // Variance 2 / fan_in.
      } else if (name.ends_with(".running_var")) {
        FillByRecipe(name, tensor, 1, 1);
      } else if (name.ends_with(".weight")) {
        FillByRecipe(name, tensor, 0.6, 0.4);
      } else {
        FillByRecipe(name, tensor, 0, 0.4);
      }
    }
  }
}

inline at::Tensor RecipePictures(int64_t n, const InputShape& input) {
  const at::Tensor pictures = at::empty({n, input.channels, input.height, input.width});
  FillByRecipe("pictures", pictures, 0, 4);
  return pictures;
}

}  // namespace lockstep::trainer
