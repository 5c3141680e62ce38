// Batches ready to be trained on: read, augmented, normalized, prefetched by threads of their own.
//
// Position is one number, the step: there is no other state, so starting at any step costs nothing.
// Augmentation is seeded per (seed, epoch, sample), so it is the same wherever and whenever a
// sample is read.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>

#include "config/run_config.h"
#include "trainer/data/dataset.h"

namespace lockstep::trainer {

struct Batch {
  int64_t step = 0;
  at::Tensor images;  // float32 [n, channels, height, width], channels_last strides, normalized. n
                      // may be 0.
  at::Tensor labels;  // int64 [n].
};

struct BatchesOptions {
  uint64_t seed = 0;
  int64_t global_batch = 0;
  int rank = 0;
  int world_size = 1;
  int threads = 1;
  int depth = 4;  // Batches kept ready.
  int64_t first_step = 0;
  config::AugmentConfig augment;
  Normalization normalization;
};

// Training batches, endless, in step order. Next() blocks until the batch is there and rethrows
// what a loader thread threw, at the step it belongs to and on every later call. One thread may
// call; the data set must outlive this. Constructing throws std::invalid_argument when the numbers
// do not fit together.
class Batches {
 public:
  Batches(const Dataset& dataset, const BatchesOptions& options);
  ~Batches();  // Joins the threads.
  Batch Next();
  double steps_per_epoch() const;
  int64_t samples_read() const;  // By this rank, in the batches that Next() gave out.

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// The held-out pictures once, in order, without augmentation; rank r gets every sample with index %
// world_size == r, in batches of at most `batch` (options: rank, world_size, threads, depth,
// normalization; global_batch = samples per batch on this rank). Every rank has the same number of
// batches; the last ones may be empty.
class EvalBatches {
 public:
  EvalBatches(const Dataset& dataset, const BatchesOptions& options);
  ~EvalBatches();
  int64_t count() const;
  Batch Next();  // As above, count() times; then std::out_of_range. `step` counts from 0.

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace lockstep::trainer
