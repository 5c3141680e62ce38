// What the model should answer to a batch, and how it is written down and sent to a device.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "trainer/data/dataset.h"

namespace lockstep::trainer {

// Class numbers, or numbers. With mixup or cutmix two answers share a sample.
struct Targets {
  at::Tensor values;      // int64 [n] classes, or float32 [n, targets].
  at::Tensor mixed_with;  // Of the other sample, like `values`; undefined = nothing is mixed.
  at::Tensor share;       // float32 [n], of `values`; the rest is mixed_with's. Likewise.

  int64_t size() const { return values.size(0); }
  Targets Narrow(int64_t begin, int64_t size) const {
    const auto part = [&](const at::Tensor& t) {
      return t.defined() ? t.narrow(0, begin, size) : t;
    };
    return {part(values), part(mixed_with), part(share)};
  }
};

struct TargetShape {
  int64_t numbers = 0;  // Of a sample; 0 = a class.
  bool mixed = false;
};

/// Not filled.
Targets MakeTargets(const TargetShape& shape, int64_t samples, at::Device device);

/// Like tensors, same shapes; does not wait for a device.
void CopyTargets(const Targets& from, const Targets& to);

// How many int64 words the parts of `samples` targets take, one after another: everything a step
// needs besides pixels travels in one copy.
struct TargetWords {
  TargetWords(const TargetShape& shape, int64_t samples);
  int64_t all() const { return values + mixed_with + share; }
  int64_t values = 0;
  int64_t mixed_with = 0;
  int64_t share = 0;
};

/// The targets that lie in an int64 tensor from word `begin` on; shares its memory.
Targets TargetsAt(const TargetShape& shape, int64_t samples, const at::Tensor& words,
                  int64_t begin);

// Fills targets on the host. Any thread, samples in any order.
class TargetWriter {
 public:
  TargetWriter(const TargetShape& shape, const Targets& targets);
  /// Throws std::logic_error when the sample has not as many targets as the data set says.
  void Set(int64_t sample, const Sample& from) const { Write(sample, from, values_); }
  /// `share` is that of Set()'s answer.
  void Mix(int64_t sample, const Sample& with, float share) const;

 private:
  void Write(int64_t sample, const Sample& from, void* to) const;

  TargetShape shape_;
  void* values_;  // int64_t or float.
  void* mixed_with_;
  float* share_;
};

}  // namespace lockstep::trainer
