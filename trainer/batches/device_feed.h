// Training pictures on a device: the host says which pixels go where, the device makes them.
//
// A batch travels as a plan (for each picture where its rows and columns come from, and what the
// model should answer) and, unless all pictures are on the device already, as bytes, a quarter of
// what floats would be. Crop, flip and padding are then one gather; byte to float is another, from
// the very table of the host's path, so the bits are the host's.
//
// The plan and the bytes of the next batch are copied on a side stream while the current step
// computes. Two sets of buffers, and no more, are enough: what the copies write is read only by
// Make(), at the very beginning of a step, so the side stream may overwrite it for the rest of the
// step; what the step reads is written only by Make(), in the order of the stream that computes. So
// the tensors of a batch are the same memory in every step, which a captured graph needs, and
// nothing waits on the host.
//
// One thread, with one stream for all Make() calls. On the CPU the same happens at once; batches
// for CPU ranks do not come this way, tests do.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <vector>

#include "trainer/batches/targets.h"
#include "trainer/device/side_stream.h"
#include "trainer/pictures/augment.h"

namespace lockstep::trainer {

struct FeedShape {
  int64_t samples = 0;  // Of a batch, at most.
  int channels = 0;     // Pictures; features are sent as they are.
  int height = 0;
  int width = 0;
  int64_t features = 0;  // Above 0: floats of a sample, in place of a picture.
  TargetShape target = {};

  int64_t plan_rows() const { return features > 0 ? 0 : height; }
  int64_t plan_columns() const { return features > 0 ? 0 : width; }
};

// What a loader thread hands over.
struct FeedBatch {
  int64_t samples = 0;
  at::Tensor plan;   // int64, host: source rows [n, height], source columns [n, width], targets as
                     // TargetWords says.
  at::Tensor bytes;  // Host: uint8 [n, height x width x channels], or float32 [n, features];
                     // undefined = pictures are resident.
};

// Fills a plan. Any thread.
class FeedPlan {
 public:
  /// For `samples` pictures.
  FeedPlan(const FeedShape& shape, int64_t samples, at::Device device);
  /// Picture `sample` of the batch is picture `source` of the bytes, changed thus. Only for a feed
  /// that gathers.
  void Set(int64_t sample, int64_t source, const Augmentation& augmentation);
  /// To be filled for every sample.
  const TargetWriter& targets() const { return targets_; }
  const at::Tensor& tensor() const { return plan_; }

  static int64_t SizeOf(const FeedShape& shape, int64_t samples);

 private:
  const FeedShape shape_;
  at::Tensor plan_;
  int64_t* rows_;
  int64_t* columns_;
  TargetWriter targets_;
};

class DeviceFeed {
 public:
  /// `table`: 256 floats per channel. `resident`: undefined, or bytes as in ResidentSet. Pictures
  /// that are neither resident nor `augmented` need no gather.
  DeviceFeed(at::Device device, const FeedShape& shape, const std::vector<float>& table,
             at::Tensor resident, bool augmented);
  ~DeviceFeed();  // Waits for the copies under way.
  DeviceFeed(const DeviceFeed&) = delete;
  DeviceFeed& operator=(const DeviceFeed&) = delete;

  /// Begins to copy; the batch before must have been made.
  void Stage(FeedBatch batch);
  bool staged() const { return staged_.has_value(); }

  struct Tensors {
    at::Tensor images;  // float32 [n, channels, height, width], channels_last; or [n, features].
    Targets targets;
  };
  /// The staged batch, in memory that the next Make() uses again.
  Tensors Make();

 private:
  void Gather(int64_t first, int64_t samples);

  const FeedShape shape_;
  const bool gathers_;
  const bool resident_;
  at::Tensor table_;    // [256 x channels]
  at::Tensor offsets_;  // int32 [channels]: where a channel's part of the table begins.
  at::Tensor source_;   // uint8 [1 + pixels, channels]: resident pictures or the staged ones;
                        // float32 [samples, features].
  at::Tensor plan_;     // Staged.
  at::Tensor images_;   // As the step sees them.
  Targets targets_;
  SideStream side_;
  DeviceEvent copied_;    // On the side stream: the staged batch is there.
  DeviceEvent consumed_;  // On the computing stream: what was staged may be overwritten.
  std::optional<FeedBatch> staged_;
};

}  // namespace lockstep::trainer
