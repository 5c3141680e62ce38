// Reads, changes and normalizes samples into one batch, or into what a DeviceFeed makes one of.
// Any thread; the data set must outlive it.
//
// What is only moved (flip, crop with padding) can be moved on the device. Everything else is
// finished here in bytes, for the CPU and for a device alike, so the bits are the same.
#pragma once

#include <cstdint>
#include <memory>
#include <stop_token>
#include <vector>

#include "trainer/batches/batches.h"
#include "trainer/batches/device_feed.h"
#include "trainer/batches/resident.h"
#include "trainer/batches/sample_order.h"
#include "trainer/pictures/augment.h"
#include "trainer/pictures/picture_changes.h"
#include "trainer/pictures/preprocessing.h"

namespace lockstep::trainer {

// What a loader thread makes: a batch, or what a DeviceFeed makes one of.
struct Loaded {
  Batch batch;
  FeedBatch feed;
};

class BatchMaker {
 public:
  /// Throws std::invalid_argument where options and data set do not fit together.
  BatchMaker(const Dataset& dataset, const BatchesOptions& options, bool training);

  /// Batches go through a DeviceFeed.
  bool feeds() const { return feeds_; }
  /// Samples are changed in ways that only the host can: nothing may be resident.
  bool finishes() const { return finishes_; }
  /// A batch of n samples is made of n + 1: each is mixed with the one after it.
  bool mixes() const { return mixes_; }

  /// Null where batches come as they are to be.
  std::unique_ptr<DeviceFeed> MakeFeed(int64_t samples, const ResidentSet* resident) const;

  /// `refs`: the samples, and one more where mixes() and there are any. Stops early, with part of a
  /// batch, when told to.
  Loaded Make(int64_t step, const std::vector<SampleRef>& refs, const ResidentSet* resident,
              const std::stop_token& stop) const;

 private:
  struct Scratch;

  FeedShape Shape(int64_t samples) const;
  int64_t SamplesOf(const std::vector<SampleRef>& refs) const;
  DrawKey KeyOf(const SampleRef& ref) const;
  FeedBatch MakeFeedBatch(const std::vector<SampleRef>& refs, const ResidentSet* resident,
                          const std::stop_token& stop) const;
  Batch MakeBatch(int64_t step, const std::vector<SampleRef>& refs,
                  const std::stop_token& stop) const;
  // Calls `take(i, picture)` with every sample's picture, in order, and writes its targets.
  // `finish`: with all changes; else as it is read.
  template <typename Take>
  void ForEach(const std::vector<SampleRef>& refs, bool finish, const TargetWriter& targets,
               const std::stop_token& stop, const Take& take) const;
  void ReadFeatures(const std::vector<SampleRef>& refs, const TargetWriter& targets,
                    const std::stop_token& stop, float* to) const;
  void Finish(const SampleRef& ref, Scratch& scratch, Sample& finished) const;

  const Dataset& dataset_;
  const uint64_t seed_;
  const config::AugmentConfig augment_;
  const bool moves_;     // Flip or crop with padding.
  const bool finishes_;  // Anything more.
  const bool mixes_;
  const bool bgr_;
  const std::vector<float> table_;  // Byte to float, 256 per channel, in the tensor's order.
  const Color mean_color_;          // Of a picture, what random_erasing fills in.
  const at::Device device_;
  const bool feeds_;
};

}  // namespace lockstep::trainer
