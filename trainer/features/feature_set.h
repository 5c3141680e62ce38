// The features of a data set's samples, in one memory-mapped file: a data set itself, that reads
// floats in place of pictures.
//
// The file is safetensors: "labels" I64 [samples] or "targets" F32 [samples, targets], and
// "features" F32 [views, samples, width]. With several views Read(index + view x size()) gives the
// sample as it was augmented for that view.
#pragma once

#include <filesystem>
#include <memory>

#include "absl/status/statusor.h"
#include "trainer/data/dataset.h"

namespace lockstep::trainer {

struct FeatureShape {
  int64_t views = 1;
  int64_t samples = 0;
  int64_t width = 0;    // Features of a sample.
  int64_t targets = 0;  // 0 = labels.
};

// A file of features that is being filled, by several processes at once: each writes its own rows.
class FeatureFile {
 public:
  /// Makes the file, with all its space: RESOURCE_EXHAUSTED where the disk has not so much.
  static absl::Status Create(const std::filesystem::path& path, const FeatureShape& shape);
  /// Opens one made by Create() with this shape.
  static absl::StatusOr<std::unique_ptr<FeatureFile>> Open(const std::filesystem::path& path,
                                                           const FeatureShape& shape);
  ~FeatureFile();
  FeatureFile(const FeatureFile&) = delete;
  FeatureFile& operator=(const FeatureFile&) = delete;

  float* Features(int64_t view, int64_t sample);
  int64_t* Label(int64_t sample);
  float* Targets(int64_t sample);
  /// To the disk: DATA_LOSS where that fails.
  absl::Status Sync();

 private:
  FeatureFile(const FeatureShape& shape, std::byte* map, size_t bytes);
  FeatureShape shape_;
  std::byte* map_;
  size_t bytes_;
  size_t targets_at_ = 0;  // Offsets of the two tensors.
  size_t features_at_ = 0;
};

/// `pictures` is what the features were made from: it answers for classes, targets and names, and
/// outlives the result. INVALID_ARGUMENT or DATA_LOSS when the file is not one of its features.
absl::StatusOr<std::unique_ptr<Dataset>> OpenFeatureSet(const std::filesystem::path& path,
                                                        const Dataset& pictures);

}  // namespace lockstep::trainer
