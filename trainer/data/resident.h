// All pictures of a data set as bytes on a device, read once.
//
// What it costs: a byte per pixel and channel (CIFAR-10: 154 MB), and reading everything before the
// first step. What it buys: a step that sends a few index numbers instead of pictures, and that no
// disk or decoder can hold up.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "trainer/data/dataset.h"

namespace lockstep::trainer {

class ResidentSet {
 public:
  /// Reads with `threads` threads, through pinned memory where the device is not the CPU. Throws
  /// what the data set throws, and c10::OutOfMemoryError.
  ResidentSet(const Dataset& dataset, at::Device device, int threads);

  static int64_t BytesOf(const Dataset& dataset);

  /// uint8 [1 + size x height x width, channels]: one black pixel, then picture after picture, as
  /// DeviceFeed reads them.
  const at::Tensor& pixels() const { return pixels_; }
  int64_t label(int64_t index) const { return labels_[static_cast<size_t>(index)]; }

 private:
  at::Tensor pixels_;
  std::vector<int64_t> labels_;
};

/// Copies the bytes of sample `index` to `to`. Throws std::logic_error when they are not as many as
/// the data set's size says. `sample` is memory to use again.
void ReadPixels(const Dataset& dataset, int64_t index, Sample& sample, uint8_t* to);

/// Bytes of one picture.
int64_t PictureBytes(const Dataset& dataset);

/// uint8 on the host, pinned where `device` copies from such memory without waiting.
at::Tensor HostBytes(at::IntArrayRef sizes, at::Device device);

}  // namespace lockstep::trainer
