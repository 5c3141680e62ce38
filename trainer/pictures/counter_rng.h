// Random numbers by counting: the n-th number of a stream is a pure function of (seed, purpose, a,
// b, n), so nothing has to be stored to resume, and any thread or rank can compute any of them.
//
// The generator is Philox4x32-10 from J. Salmon, M. Moraes, R. Dror, D. Shaw, "Parallel Random
// Numbers: As Easy as 1, 2, 3", SC 2011. Ranges and uniforms are drawn here and not by
// std::*_distribution, whose results differ between standard libraries. The bits are the same on
// every platform, and they are part of what makes a resumed run equal: changing them changes every
// run.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace lockstep::trainer {

using PhiloxBlock = std::array<uint32_t, 4>;

/// Ten rounds of Philox4x32.
inline PhiloxBlock Philox(PhiloxBlock counter, std::array<uint32_t, 2> key) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t product0 = uint64_t{0xD2511F53} * counter[0];
    const uint64_t product1 = uint64_t{0xCD9E8D57} * counter[2];
    counter = {static_cast<uint32_t>(product1 >> 32) ^ counter[1] ^ key[0],
               static_cast<uint32_t>(product1),
               static_cast<uint32_t>(product0 >> 32) ^ counter[3] ^ key[1],
               static_cast<uint32_t>(product0)};
    key[0] += 0x9E3779B9;
    key[1] += 0xBB67AE85;
  }
  return counter;
}

// What the numbers are for; keeps streams with equal (a, b) apart. Values are fixed for ever.
enum class RandomPurpose : uint32_t {
  kSampleOrder = 1,  // a = epoch.
  kAugment = 2,      // a = epoch, b = sample.
  kShapesTrain = 3,  // a = sample.
  kShapesEval = 4,   // a = sample.
  kSubsetTrain = 5,
  kSubsetEval = 6,
  kSplit = 7,         // a = class.
  kResizedCrop = 16,  // This and the next: a = epoch, b = sample.
  kRotation = 17,
  kColorJitter = 18,
  kRandomErasing = 19,
  kMixing = 20,
};

// One stream. Cheap to make and to copy; not shared between threads.
class CounterRng {
 public:
  CounterRng(uint64_t seed, RandomPurpose purpose, uint32_t a = 0, uint32_t b = 0)
      : counter_{0, a, b, static_cast<uint32_t>(purpose)},
        key_{static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)} {}

  /// 32 random bits.
  uint32_t Next() {
    if (used_ == block_.size()) {
      block_ = Philox(counter_, key_);
      ++counter_[0];
      used_ = 0;
    }
    return block_[used_++];
  }

  /// Uniform in [0, bound), bound > 0, without bias: D. Lemire, "Fast Random Integer Generation in
  /// an Interval", 2019.
  uint32_t Below(uint32_t bound) {
    uint64_t product = uint64_t{Next()} * bound;
    if (static_cast<uint32_t>(product) < bound) {
      const uint32_t threshold = (0u - bound) % bound;
      while (static_cast<uint32_t>(product) < threshold) product = uint64_t{Next()} * bound;
    }
    return static_cast<uint32_t>(product >> 32);
  }

  /// Uniform in [0, 1), 24 bits: every value is exact in a float.
  float Uniform() { return static_cast<float>(Next() >> 8) * 0x1p-24f; }
  float Uniform(float low, float high) { return low + (high - low) * Uniform(); }

 private:
  PhiloxBlock counter_;
  std::array<uint32_t, 2> key_;
  PhiloxBlock block_{};
  size_t used_ = 4;  // Numbers of block_ that are spent.
};

}  // namespace lockstep::trainer
