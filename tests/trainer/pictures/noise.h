// A data set of bytes without any pattern, and options to read it in batches.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "trainer/batches/batches.h"
#include "trainer/pictures/counter_rng.h"
#include "trainer/pictures/preprocessing.h"

namespace lockstep::trainer {

struct Size {
  int channels = 3;
  int height = 32;
  int width = 32;
};

inline Preprocessing PlainPreprocessing(const Size& size, bool bgr = false) {
  Preprocessing p;
  p.channels = size.channels;
  p.height = size.height;
  p.width = size.width;
  p.resize = config::ResizeRule::kStretch;
  p.bgr = bgr;
  for (int c = 0; c < size.channels; ++c) {
    p.mean.push_back(0.4 + 0.05 * c);
    p.std.push_back(0.2 + 0.03 * c);
  }
  return p;
}

// Bytes without any pattern.
class Noise : public Dataset {
 public:
  Noise(int64_t count, Size size, bool bgr = false)
      : count_(count), size_(size), preprocessing_(PlainPreprocessing(size, bgr)) {}
  int64_t size() const override { return count_; }
  int width() const override { return size_.width; }
  int height() const override { return size_.height; }
  int channels() const override { return size_.channels; }
  const std::vector<std::string>& classes() const override { return classes_; }
  const Preprocessing& preprocessing() const override { return preprocessing_; }
  void Read(int64_t index, Sample& sample) const override {
    CounterRng random(1, RandomPurpose::kShapesTrain, static_cast<uint32_t>(index));
    sample.picture = {size_.width, size_.height, size_.channels, {}};
    sample.picture.pixels.resize(static_cast<size_t>(size_.width * size_.height * size_.channels));
    for (uint8_t& pixel : sample.picture.pixels) pixel = static_cast<uint8_t>(random.Next());
    sample.label = index * 7 % 1000;
  }
  // Larger than Read()'s, so that a crop of it is another one.
  void ReadWhole(int64_t index, const PartOf&, Sample& sample) const override {
    const Noise whole(count_, {size_.channels, 2 * size_.height + 1, 3 * size_.width});
    whole.Read(index, sample);
  }

 private:
  int64_t count_;
  Size size_;
  std::vector<std::string> classes_ = {"noise"};
  Preprocessing preprocessing_;
};

// Noise to be judged by numbers: the sample's own, and its root.
class NumberedNoise : public Noise {
 public:
  using Noise::Noise;
  const std::vector<Target>& targets() const override { return targets_; }
  void Read(int64_t index, Sample& sample) const override {
    Noise::Read(index, sample);
    Answer(index, sample);
  }
  void ReadWhole(int64_t index, const PartOf& part, Sample& sample) const override {
    Noise::ReadWhole(index, part, sample);
    Answer(index, sample);
  }

 private:
  static void Answer(int64_t index, Sample& sample) {
    const auto number = static_cast<float>(index);
    sample.targets = {number, number * number, -number};
  }
  std::vector<Target> targets_ = {{"number"}, {"square"}, {"less"}};
};

// Five floats a sample.
class NoiseFeatures : public Dataset {
 public:
  explicit NoiseFeatures(int64_t count) : count_(count) {}
  int64_t size() const override { return count_; }
  int width() const override { return 0; }
  int height() const override { return 0; }
  int channels() const override { return 0; }
  int64_t features() const override { return 5; }
  const std::vector<std::string>& classes() const override { return classes_; }
  const Preprocessing& preprocessing() const override { return preprocessing_; }
  void Read(int64_t index, Sample& sample) const override {
    CounterRng random(1, RandomPurpose::kShapesTrain, static_cast<uint32_t>(index));
    sample.features.clear();
    for (int i = 0; i < 5; ++i) sample.features.push_back(random.Uniform());
    sample.label = index;
  }

 private:
  int64_t count_;
  std::vector<std::string> classes_ = {"noise"};
  Preprocessing preprocessing_;
};

inline BatchesOptions OptionsFor(int64_t global_batch) {
  BatchesOptions options;
  options.seed = 11;
  options.global_batch = global_batch;
  options.threads = 2;
  return options;
}

// The GPU's way, on the CPU.
inline BatchesOptions Fed(BatchesOptions options, config::Use resident) {
  options.feed_on_cpu = true;
  options.resident = resident;
  return options;
}

}  // namespace lockstep::trainer
