// A data set of bytes without any pattern, and options to read it in batches.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "trainer/data/batches.h"
#include "trainer/data/counter_rng.h"

namespace lockstep::trainer {

struct Size {
  int channels = 3;
  int height = 32;
  int width = 32;
};

// Bytes without any pattern.
class Noise : public Dataset {
 public:
  Noise(int64_t count, Size size) : count_(count), size_(size) {}
  int64_t size() const override { return count_; }
  int width() const override { return size_.width; }
  int height() const override { return size_.height; }
  int channels() const override { return size_.channels; }
  const std::vector<std::string>& classes() const override { return classes_; }
  void Read(int64_t index, Sample& sample) const override {
    CounterRng random(1, RandomPurpose::kShapesTrain, static_cast<uint32_t>(index));
    sample.picture = {size_.width, size_.height, size_.channels, {}};
    sample.picture.pixels.resize(static_cast<size_t>(size_.width * size_.height * size_.channels));
    for (uint8_t& pixel : sample.picture.pixels) pixel = static_cast<uint8_t>(random.Next());
    sample.label = index * 7 % 1000;
  }

 private:
  int64_t count_;
  Size size_;
  std::vector<std::string> classes_ = {"noise"};
};

inline BatchesOptions OptionsFor(const Dataset& dataset, int64_t global_batch) {
  BatchesOptions options;
  options.seed = 11;
  options.global_batch = global_batch;
  options.threads = 2;
  for (int c = 0; c < dataset.channels(); ++c) {
    options.normalization.mean.push_back(0.4 + 0.05 * c);
    options.normalization.std.push_back(0.2 + 0.03 * c);
  }
  return options;
}

// The GPU's way, on the CPU.
inline BatchesOptions Fed(BatchesOptions options, config::Use resident) {
  options.feed_on_cpu = true;
  options.resident = resident;
  return options;
}

}  // namespace lockstep::trainer
