// Batches ready to be trained on: read, augmented, normalized, prefetched by threads of their own.
//
// Position is one number, the step: there is no other state, so starting at any step costs nothing.
// Augmentation is seeded per (seed, epoch, sample), so it is the same wherever and whenever a
// sample is read.
//
// Three ways lead to a batch, all to the same bits. On the CPU loader threads make the tensors. For
// a GPU they make pinned bytes, which travel on a side stream while the step before computes; or,
// when the whole set is in the GPU's memory, only index numbers (trainer/batches/device_feed.h). A
// set stays there only where pictures are merely moved (flip, crop with padding): everything else
// is done by the loader threads. Features (Dataset::features()) always travel.
//
// mixup and cutmix: a sample's partner is the next one in the endless order of samples, changed as
// it is on its own, so that it is the same whatever the ranks' shares.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "config/run_config.h"
#include "trainer/batches/targets.h"
#include "trainer/data/dataset.h"

namespace lockstep::trainer {

struct Batch {
  int64_t step = 0;
  at::Tensor images;  // float32 [n, channels, height, width], channels_last strides, normalized; or
                      // [n, features] of a data set of features. n may be 0.
  Targets targets;
  std::vector<int64_t> indices;  // EvalBatches: which samples these are, in the data set.
  // On a GPU tensors are the same memory in every batch: the next Next() overwrites it, in the
  // order of the stream that is current then.
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
  int64_t augment_epoch = -1;  // EvalBatches: augment as in this epoch, but mix nothing; below 0:
                               // not at all.

  at::Device device{at::kCPU};                // Where the tensors are to be.
  config::Use resident = config::Use::kAuto;  // All training pictures in the device's memory; auto:
                                              // when they take at most a quarter of what is free.
  int64_t free_device_bytes = 0;              // What is free there, as the caller has measured it.
  bool feed_on_cpu = false;                   // For tests: the GPU's way, on the CPU.
};

// Training batches, endless, in step order. Next() blocks until the batch is there and rethrows
// what a loader thread threw, at the step it belongs to and on every later call. One thread may
// call; the data set must outlive this. Constructing throws std::invalid_argument when the numbers
// do not fit together.
class Batches {
 public:
  /// Reads the whole set first where it is to be resident, and throws what that throws: the data
  /// set's errors, c10::OutOfMemoryError.
  Batches(const Dataset& dataset, const BatchesOptions& options);
  ~Batches();  // Joins the threads.

  /// Returns when the host has all of the next batch: what Next() does after it waits for nobody.
  /// So the time in Await() is the wait for data, the time in Next() that of handing work to the
  /// device; the copies themselves go on behind the step. Next() alone does both.
  void Await();
  Batch Next();

  bool resident() const;
  double steps_per_epoch() const;
  int64_t samples_read() const;  // By this rank, in the batches that Next() gave out.

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// The held-out pictures once, in order, without augmentation; rank r gets every sample with index %
// world_size == r, in batches of at most `batch` (options: rank, world_size, threads, depth,
// device; global_batch = samples per batch on this rank). Every rank has the same
// number of batches; the last ones may be empty.
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
