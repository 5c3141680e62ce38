// A set of labelled pictures that can be read by index. Read() may be called from many threads at
// once. No LibTorch here.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "config/run_config.h"
#include "trainer/pictures/picture.h"

namespace lockstep::trainer {

struct Preprocessing;  // trainer/pictures/preprocessing.h

struct Sample {
  Picture picture;
  std::vector<float> features;  // In place of a picture where the data set has features().
  int64_t label = 0;
  std::vector<float> targets;  // In place of a label where the data set has targets().
};

enum class Split { kTrain, kEval, kTest };

// A number that is learnt. Reading gives (value - mean) / std of it.
struct Target {
  std::string name;
  double mean = 0;  // Over the training samples; 0 and 1 for yes-or-no targets.
  double std = 1;
};

class Dataset {
 public:
  virtual ~Dataset() = default;
  virtual int64_t size() const = 0;
  virtual int width() const = 0;  // Every picture read has this size.
  virtual int height() const = 0;
  virtual int channels() const = 0;
  virtual const std::vector<std::string>& classes() const = 0;  // Empty with targets().
  /// What is learnt in place of a class: csv_regression, csv_multilabel. Empty: classes.
  virtual const std::vector<Target>& targets() const;
  /// Above 0: samples are so many floats and not pictures (a feature cache).
  virtual int64_t features() const { return 0; }
  /// Variants of each sample that Read(index + view * size()) knows, 0 <= view < views(). In epoch
  /// e training reads view e % views().
  virtual int64_t views() const { return 1; }
  /// The class of a sample, without its picture. With targets() empty.
  virtual int64_t LabelOf(int64_t index) const;
  /// Samples of each class among all size(); one number per class. With targets() empty.
  virtual std::vector<int64_t> ClassCounts() const;
  /// Where each run of samples that are stored one after another ends, the last one at size(), as
  /// in SampleOrder; empty: reading in any order costs the same.
  virtual std::vector<int64_t> StoredRuns() const { return {}; }
  /// Where a sample comes from, for people: a path, or "train 17".
  virtual std::string NameOf(int64_t index) const;
  /// Changes when what Read() gives changes: names, contents (by size and time of change),
  /// preprocessing. Hexadecimal xxh3-128. What a feature cache is keyed by.
  virtual std::string Fingerprint() const;
  /// How its pictures were brought to width() x height(), and how they are to be normalized.
  virtual const Preprocessing& preprocessing() const = 0;
  /// 0 <= index < size(). Reuses the memory in `sample`. Throws DataError.
  virtual void Read(int64_t index, Sample& sample) const = 0;
  /// As Read(), but all of the picture, of any shape, at the scale at which PictureReader keeps it
  /// (trainer/pictures/picture_reader.h): what a random resized crop or a rotation is taken from.
  /// Pixels outside of `part` may be anything.
  virtual void ReadWhole(int64_t index, const PartOf& part, Sample& sample) const;
  /// Samples that were left out because they cannot be used (data.on_bad_sample: skip), for people.
  virtual std::vector<std::string> Skipped() const { return {}; }
  /// How often Read() gave another sample because the one asked for went bad after opening
  /// (data.on_bad_sample: skip).
  virtual int64_t replaced() const { return 0; }
  /// One line for the log: what was opened, how much of it, what was left out.
  virtual std::string Describe() const { return {}; }
};

// Where `classes` or `targets` are given, the data are to be judged by what was learnt elsewhere: a
// label is the class's place in `classes`, targets are normalized as given, and a held-out or test
// split of data that has no splits is all of it.
struct OpenRequest {
  const config::RunConfig& config;  // data, model (its name and whether it is pretrained), seed.
  Split split = Split::kTrain;
  const Preprocessing* preprocessing = nullptr;  // In place of the config's: a checkpoint's; the
                                                 // training split's for the held-out one.
  const std::vector<std::string>* classes = nullptr;  // A checkpoint's.
  const std::vector<Target>* targets = nullptr;       // A checkpoint's.
};

/// Opens a split; looks at every file there is before the first step. Throws DataError naming every
/// bad file (the first twenty) and the reason, or leaves them out (data.on_bad_sample: skip).
///
/// kTest is the test split where the data have one besides the held-out split, otherwise the
/// held-out split, which Describe() says. Where pictures have no size of their own and the config
/// gives none, each split's own pictures decide: open the held-out split with the training split's
/// preprocessing().
std::unique_ptr<Dataset> OpenDataset(const OpenRequest& request);

/// "train", "held-out", "test".
const char* ToString(Split split);
/// "classes of 2 to 400 (median 100); rare: emu (2)"; `counts` has one number per class.
std::string DescribeCounts(const std::vector<std::string>& classes,
                           const std::vector<int64_t>& counts);
/// A report of many problems: `head`, then the first twenty, each on a line of its own.
std::string ListProblems(const std::string& head, const std::vector<std::string>& problems);

}  // namespace lockstep::trainer
