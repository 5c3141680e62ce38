#include <algorithm>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "trainer/data/cifar.h"
#include "trainer/data/csv_pictures.h"
#include "trainer/data/dataset.h"
#include "trainer/data/image_folder.h"
#include "trainer/data/picture_set.h"
#include "trainer/data/shapes.h"
#include "trainer/data/tar_shards.h"
#include "trainer/pictures/counter_rng.h"
#include "trainer/pictures/fingerprint.h"
#include "trainer/pictures/preprocessing.h"

namespace lockstep::trainer {
namespace {

using config::DatasetKind;

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
  const std::vector<Target>& targets() const override { return whole_->targets(); }
  int64_t features() const override { return whole_->features(); }
  int64_t LabelOf(int64_t index) const override { return whole_->LabelOf(At(index)); }
  std::string NameOf(int64_t index) const override { return whole_->NameOf(At(index)); }
  std::string Fingerprint() const override {
    class Fingerprint fingerprint;
    fingerprint.Add(whole_->Fingerprint());
    for (const uint32_t index : indices_) fingerprint.Add(int64_t{index});
    return fingerprint.Hex();
  }
  const Preprocessing& preprocessing() const override { return whole_->preprocessing(); }
  void Read(int64_t index, Sample& sample) const override { whole_->Read(At(index), sample); }
  void ReadWhole(int64_t index, const PartOf& part, Sample& sample) const override {
    whole_->ReadWhole(At(index), part, sample);
  }
  std::vector<std::string> Skipped() const override { return whole_->Skipped(); }
  int64_t replaced() const override { return whole_->replaced(); }
  std::string Describe() const override {
    return std::to_string(size()) + " drawn from " + whole_->Describe();
  }

 private:
  int64_t At(int64_t index) const { return indices_.at(static_cast<size_t>(index)); }

  std::unique_ptr<Dataset> whole_;
  std::vector<uint32_t> indices_;
};

// A data set of pictures of one size, at another size where the preprocessing says so.
class Prepared final : public Dataset {
 public:
  Prepared(std::unique_ptr<Dataset> original, Preprocessing preprocessing)
      : original_(std::move(original)),
        preprocessing_(std::move(preprocessing)),
        // Scaled, then cut: nothing of both is left to do only where no side changes.
        resized_(
            preprocessing_.width != original_->width() ||
            preprocessing_.height != original_->height() ||
            preprocessing_.channels != original_->channels() ||
            (preprocessing_.resize == config::ResizeRule::kCrop &&
             preprocessing_.shorter_side != std::min(original_->width(), original_->height()))) {}

  int64_t size() const override { return original_->size(); }
  int width() const override { return preprocessing_.width; }
  int height() const override { return preprocessing_.height; }
  int channels() const override { return preprocessing_.channels; }
  const std::vector<std::string>& classes() const override { return original_->classes(); }
  int64_t LabelOf(int64_t index) const override { return original_->LabelOf(index); }
  std::string NameOf(int64_t index) const override { return original_->NameOf(index); }
  std::string Fingerprint() const override {
    class Fingerprint fingerprint;
    fingerprint.Add(original_->Fingerprint());
    fingerprint.Add(preprocessing_.ToJson());
    return fingerprint.Hex();
  }
  const Preprocessing& preprocessing() const override { return preprocessing_; }
  void Read(int64_t index, Sample& sample) const override {
    if (!resized_) {
      original_->Read(index, sample);
      return;
    }
    Sample read;
    original_->Read(index, read);
    sample.label = read.label;
    Resize(read.picture, preprocessing_, sample.picture);
  }
  void ReadWhole(int64_t index, const PartOf& part, Sample& sample) const override {
    original_->ReadWhole(index, part, sample);
  }
  std::string Describe() const override {
    if (!resized_) return original_->Describe();
    return original_->Describe() + ", resized to " + std::to_string(width()) + "x" +
           std::to_string(height());
  }

 private:
  const std::unique_ptr<Dataset> original_;
  const Preprocessing preprocessing_;
  const bool resized_;
};

constexpr int64_t kShapesTrainSamples = 8000;
constexpr int64_t kShapesEvalSamples = 2000;
constexpr int kShapesSize = 32;

// Drawn at the size that is wanted, where that is a square.
std::unique_ptr<Dataset> OpenShapes(const OpenRequest& request) {
  const config::DataConfig& data = request.config.data;
  const bool train = request.split == Split::kTrain;
  const int64_t asked = train ? data.train_samples : data.eval_samples;
  const Preprocessing preprocessing =
      request.preprocessing != nullptr
          ? *request.preprocessing
          : PreprocessingOf(data, request.config.model, 3, kShapesSize, kShapesSize);
  const int size = std::max(preprocessing.width, preprocessing.height);
  return std::make_unique<Prepared>(
      MakeShapes(
          {.seed = request.config.seed,
           .split = request.split,
           .size = size,
           .count = asked != 0 ? asked : (train ? kShapesTrainSamples : kShapesEvalSamples)}),
      preprocessing);
}

std::unique_ptr<Dataset> OpenCifarFiles(const OpenRequest& request) {
  const config::DataConfig& data = request.config.data;
  std::unique_ptr<Dataset> dataset = OpenCifar(
      {.path = data.path, .hundred = data.kind == DatasetKind::kCifar100, .split = request.split});
  return std::make_unique<Prepared>(std::move(dataset),
                                    request.preprocessing != nullptr
                                        ? *request.preprocessing
                                        : PreprocessingOf(data, request.config.model, 3, 32, 32));
}

std::unique_ptr<Dataset> OpenStored(const OpenRequest& request) {
  const PictureSetOptions options{
      .split = request.split, .config = request.config, .preprocessing = request.preprocessing};
  if (request.config.data.path.empty()) {
    throw DataError("data.path is empty; it must name the data set");
  }
  switch (request.config.data.kind) {
    case DatasetKind::kImageFolder:
      return OpenPictureSet(ListImageFolder(request), options);
    case DatasetKind::kCsvRegression:
    case DatasetKind::kCsvMultilabel:
      return OpenPictureSet(ListCsvPictures(request), options);
    case DatasetKind::kTarShards:
      return OpenPictureSet(ListTarShards(request), options);
    case DatasetKind::kCifar10:
    case DatasetKind::kCifar100:
    case DatasetKind::kShapes:
      break;
  }
  return OpenCifarFiles(request);
}

}  // namespace

std::unique_ptr<Dataset> OpenDataset(const OpenRequest& request) {
  const config::DataConfig& data = request.config.data;
  const int asked = request.split == Split::kTrain ? data.train_samples : data.eval_samples;
  if (asked < 0 || data.image_size < 0) {
    throw DataError(
        "data.train_samples, data.eval_samples and data.image_size must not be negative");
  }
  if (data.kind == DatasetKind::kShapes) return OpenShapes(request);
  std::unique_ptr<Dataset> dataset = OpenStored(request);
  // A test split of its own may be smaller than what evaluation in between is asked to take.
  const bool enough = request.split != Split::kTest || asked < dataset->size();
  if (asked > 0 && asked != dataset->size() && enough) {
    dataset =
        std::make_unique<Subset>(std::move(dataset), request.split, request.config.seed, asked);
  }
  return dataset;
}

}  // namespace lockstep::trainer
