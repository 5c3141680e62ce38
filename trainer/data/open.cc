#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "trainer/data/cifar.h"
#include "trainer/data/counter_rng.h"
#include "trainer/data/dataset.h"
#include "trainer/data/image_folder.h"
#include "trainer/data/resize.h"
#include "trainer/data/shapes.h"

namespace lockstep::trainer {
namespace {

// The first `count` samples of a seeded order of another data set. The same samples for every rank
// and resume; a smaller count is a part of a larger one.
class Subset final : public Dataset {
 public:
  Subset(std::unique_ptr<Dataset> whole, Split split, uint64_t seed, int64_t count)
      : whole_(std::move(whole)) {
    const char* key = split == Split::kTrain ? "data.train_samples" : "data.eval_samples";
    if (count > whole_->size()) {
      throw DataError(std::string(key) + " is " + std::to_string(count) +
                      ", but the data set has " + std::to_string(whole_->size()) + " (" +
                      whole_->Describe() + "); 0 takes all of them");
    }
    std::vector<uint32_t> order(static_cast<size_t>(whole_->size()));
    std::iota(order.begin(), order.end(), 0u);
    CounterRng rng(
        seed, split == Split::kTrain ? RandomPurpose::kSubsetTrain : RandomPurpose::kSubsetEval);
    for (size_t i = 0; i < static_cast<size_t>(count); ++i) {
      std::swap(order[i], order[i + rng.Below(static_cast<uint32_t>(order.size() - i))]);
    }
    indices_.assign(order.begin(), order.begin() + count);
    std::sort(indices_.begin(), indices_.end());  // Files are read best in their order.
  }

  int64_t size() const override { return static_cast<int64_t>(indices_.size()); }
  int width() const override { return whole_->width(); }
  int height() const override { return whole_->height(); }
  int channels() const override { return whole_->channels(); }
  const std::vector<std::string>& classes() const override { return whole_->classes(); }
  void Read(int64_t index, Sample& sample) const override {
    whole_->Read(indices_.at(static_cast<size_t>(index)), sample);
  }
  std::string Describe() const override {
    return std::to_string(size()) + " drawn from " + whole_->Describe();
  }

 private:
  std::unique_ptr<Dataset> whole_;
  std::vector<uint32_t> indices_;
};

// Another data set at another size.
class Resized final : public Dataset {
 public:
  Resized(std::unique_ptr<Dataset> original, int size)
      : original_(std::move(original)), side_(size) {}

  int64_t size() const override { return original_->size(); }
  int width() const override { return side_; }
  int height() const override { return side_; }
  int channels() const override { return original_->channels(); }
  const std::vector<std::string>& classes() const override { return original_->classes(); }
  void Read(int64_t index, Sample& sample) const override {
    Sample read;
    original_->Read(index, read);
    sample.label = read.label;
    ResizeToSquare(read.picture, side_, sample.picture);
  }
  std::string Describe() const override {
    return original_->Describe() + ", resized to " + std::to_string(side_) + "x" +
           std::to_string(side_);
  }

 private:
  std::unique_ptr<Dataset> original_;
  int side_;
};

constexpr int64_t kShapesTrainSamples = 8000;
constexpr int64_t kShapesEvalSamples = 2000;
constexpr int kShapesSize = 32;

std::unique_ptr<Dataset> OpenShapes(const config::DataConfig& config, Split split, uint64_t seed) {
  const bool train = split == Split::kTrain;
  const int64_t asked = train ? config.train_samples : config.eval_samples;
  return MakeShapes(
      {.seed = seed,
       .split = split,
       .size = config.image_size > 0 ? config.image_size : kShapesSize,
       .count = asked != 0 ? asked : (train ? kShapesTrainSamples : kShapesEvalSamples)});
}

std::unique_ptr<Dataset> OpenStored(const config::DataConfig& config, Split split) {
  if (config.path.empty()) {
    throw DataError("data.path is empty; it must name the folder of the data set");
  }
  if (config.kind == config::DatasetKind::kImageFolder) {
    return OpenImageFolder({.path = config.path, .split = split, .image_size = config.image_size});
  }
  std::unique_ptr<Dataset> dataset =
      OpenCifar({.path = config.path,
                 .hundred = config.kind == config::DatasetKind::kCifar100,
                 .split = split});
  if (config.image_size > 0 && config.image_size != dataset->width()) {
    dataset = std::make_unique<Resized>(std::move(dataset), config.image_size);
  }
  return dataset;
}

Normalization Preset(config::DatasetKind kind, int channels) {
  switch (kind) {
    case config::DatasetKind::kShapes:
      break;
    case config::DatasetKind::kCifar10:  // Of the 50,000 training pictures.
      return {{0.4914, 0.4822, 0.4465}, {0.2470, 0.2435, 0.2616}};
    case config::DatasetKind::kCifar100:
      return {{0.5071, 0.4865, 0.4409}, {0.2673, 0.2564, 0.2762}};
    case config::DatasetKind::kImageFolder:  // ImageNet's, which published weights expect.
      return {{0.485, 0.456, 0.406}, {0.229, 0.224, 0.225}};
  }
  const auto count = static_cast<size_t>(channels);
  return {std::vector<double>(count, 0.5), std::vector<double>(count, 0.25)};
}

void Check(const char* key, const std::vector<double>& values, int channels) {
  if (values.size() != static_cast<size_t>(channels)) {
    throw DataError(std::string(key) + " has " + std::to_string(values.size()) +
                    " numbers, but the pictures have " + std::to_string(channels) + " channels");
  }
}

}  // namespace

std::unique_ptr<Dataset> OpenDataset(const config::DataConfig& config, Split split, uint64_t seed) {
  const int asked = split == Split::kTrain ? config.train_samples : config.eval_samples;
  if (asked < 0 || config.image_size < 0) {
    throw DataError(
        "data.train_samples, data.eval_samples and data.image_size must not be negative");
  }
  if (config.kind == config::DatasetKind::kShapes) return OpenShapes(config, split, seed);
  std::unique_ptr<Dataset> dataset = OpenStored(config, split);
  if (asked > 0 && asked != dataset->size()) {
    dataset = std::make_unique<Subset>(std::move(dataset), split, seed, asked);
  }
  return dataset;
}

Normalization NormalizationOf(const config::DataConfig& config, int channels) {
  Normalization normalization = Preset(config.kind, channels);
  if (!config.mean.empty()) normalization.mean = config.mean;
  if (!config.std.empty()) normalization.std = config.std;
  Check("data.mean", normalization.mean, channels);
  Check("data.std", normalization.std, channels);
  for (const double value : normalization.std) {
    if (!(value > 0) || !std::isfinite(value)) {
      throw DataError("data.std has a value of " + std::to_string(value) +
                      "; expected numbers above 0");
    }
  }
  for (const double value : normalization.mean) {
    if (!std::isfinite(value)) throw DataError("data.mean has a value that is not a number");
  }
  return normalization;
}

}  // namespace lockstep::trainer
