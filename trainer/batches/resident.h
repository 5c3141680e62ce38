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
  /// DeviceFeed reads them, colours in the order the model sees.
  const at::Tensor& pixels() const { return pixels_; }
  /// The label or the targets of a sample, without its picture.
  void Answer(int64_t index, Sample& sample) const;

 private:
  at::Tensor pixels_;
  std::vector<int64_t> labels_;
  size_t targets_per_sample_;
  std::vector<float> targets_;  // In place of labels_ where the data set has targets().
};

/// Throws std::logic_error when the picture has not as many bytes as the data set's size says.
void CheckBytes(const Dataset& dataset, int64_t index, const Picture& picture);

/// Copies a picture's bytes to `to`, blue first where the model wants them so.
void CopyPixels(const Picture& picture, bool bgr, uint8_t* to);

/// Bytes of one picture.
int64_t PictureBytes(const Dataset& dataset);

/// On the host, pinned where `device` copies from such memory without waiting.
at::Tensor HostMemory(at::IntArrayRef sizes, at::ScalarType type, at::Device device);

}  // namespace lockstep::trainer
