// A small data set of coloured blobs in memory, for tests that need pictures and not a certain one.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "trainer/data/dataset.h"
#include "trainer/pictures/preprocessing.h"

namespace lockstep::trainer {

class Blobs final : public Dataset {
 public:
  explicit Blobs(int64_t samples, std::string fingerprint = "blobs",
                 std::vector<Target> targets = {})
      : samples_(samples), fingerprint_(std::move(fingerprint)), targets_(std::move(targets)) {
    if (targets_.empty()) classes_ = {"a", "b", "c"};
    preprocessing_.height = preprocessing_.width = kSide;
    preprocessing_.shorter_side = kSide;
    preprocessing_.mean = {0.5, 0.5, 0.5};
    preprocessing_.std = {0.25, 0.25, 0.25};
  }

  int64_t size() const override { return samples_; }
  int width() const override { return kSide; }
  int height() const override { return kSide; }
  int channels() const override { return 3; }
  const std::vector<std::string>& classes() const override { return classes_; }
  const std::vector<Target>& targets() const override { return targets_; }
  std::string Fingerprint() const override { return fingerprint_; }
  const Preprocessing& preprocessing() const override { return preprocessing_; }
  std::string Describe() const override { return "blobs"; }
  std::vector<int64_t> ClassCounts() const override {
    std::vector<int64_t> counts(classes_.size());
    for (int64_t i = 0; i < samples_ && !counts.empty(); ++i) ++counts[static_cast<size_t>(i % 3)];
    return counts;
  }

  // Each class is bright in a channel of its own; pixels differ from sample to sample.
  void Read(int64_t index, Sample& sample) const override {
    sample.label = index % 3;
    sample.picture = {.width = kSide, .height = kSide, .channels = 3, .pixels = {}};
    for (int64_t i = 0; i < kSide * kSide * 3; ++i) {
      const int64_t noise = (index * 7919 + i * 104729) % 64;
      sample.picture.pixels.push_back(
          static_cast<uint8_t>((i % 3 == sample.label ? 160 : 60) + noise));
    }
    sample.targets.clear();
    for (size_t t = 0; t < targets_.size(); ++t) {
      sample.targets.push_back(static_cast<float>(sample.label) - 1 + static_cast<float>(t));
    }
  }

 private:
  static constexpr int kSide = 16;
  int64_t samples_;
  std::string fingerprint_;
  std::vector<Target> targets_;
  std::vector<std::string> classes_;
  Preprocessing preprocessing_;
};

}  // namespace lockstep::trainer
