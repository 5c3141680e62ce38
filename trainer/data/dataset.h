// A set of labelled pictures that can be read by index. Read() may be called from many threads at
// once.
//
// No LibTorch here: pictures are plain bytes, so that decoding can be tested, sanitized and fuzzed
// alone.
#pragma once

#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "config/run_config.h"

namespace lockstep::trainer {

// The data set cannot be read. what() names the file and the reason.
class DataError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// Interleaved 8-bit pixels, height x width x channels.
struct Picture {
  int width = 0;
  int height = 0;
  int channels = 0;
  std::vector<uint8_t> pixels;
};

struct Sample {
  Picture picture;
  int64_t label = 0;
};

enum class Split { kTrain, kEval };

class Dataset {
 public:
  virtual ~Dataset() = default;
  virtual int64_t size() const = 0;
  virtual int width() const = 0;  // Every picture read has this size.
  virtual int height() const = 0;
  virtual int channels() const = 0;
  virtual const std::vector<std::string>& classes() const = 0;
  /// 0 <= index < size(). Reuses the memory in `sample`. Throws DataError.
  virtual void Read(int64_t index, Sample& sample) const = 0;
  /// One line for the log: what was opened, how much of it, what was left out.
  virtual std::string Describe() const { return {}; }
};

// Preset mean and standard deviation per channel on the 0-1 scale.
struct Normalization {
  std::vector<double> mean;
  std::vector<double> std;
};

/// Opens a split; scans what can be scanned before the first step. Throws DataError. `seed` matters
/// for shapes and subsets.
std::unique_ptr<Dataset> OpenDataset(const config::DataConfig& config, Split split, uint64_t seed);
Normalization NormalizationOf(const config::DataConfig& config, int channels);

}  // namespace lockstep::trainer
