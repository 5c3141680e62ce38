// From a file's bytes to what a model sees, the same in training, evaluation, prediction and
// export. A value: it travels in the checkpoint, so that nobody has to know it again.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "config/run_config.h"
#include "trainer/pictures/picture.h"

namespace lockstep::trainer {

struct Preprocessing {
  int channels = 3;
  int height = 0;  // What the model sees. Pixels.
  int width = 0;
  config::ResizeRule resize = config::ResizeRule::kCrop;  // Never kAuto.
  int shorter_side = 0;  // kCrop: scale the shorter side to this, then cut height x width out of
                         // the middle. At least height and width. kStretch: 0.
  bool bgr = false;      // Blue first in the tensor. mean and std are in the tensor's order.
  std::vector<double> mean;  // Per channel, on the 0-1 scale: (byte / 255 - mean) / std.
  std::vector<double> std;

  bool operator==(const Preprocessing&) const = default;

  std::string ToJson() const;
  /// Throws DataError saying what is wrong.
  static Preprocessing FromJson(const std::string& text);
};

/// Closes every `auto` of data.preset, image_size, resize, shorter_side, channel_order, mean and
/// std. `model` is the model's name: with pretrained weights, auto means what those expect (the
/// table is in preprocessing.cc). `own` is the size of the data set's pictures where they have one
/// (0 = any). Throws DataError when no size follows.
Preprocessing PreprocessingOf(const config::DataConfig& config, const config::ModelConfig& model,
                              int own_channels, int own_height, int own_width);

/// Decodes one picture and brings it to size: 8-bit RGB (or grey, with one channel) of height x
/// width, before normalization. Throws DataError "NAME: reason".
void Prepare(std::span<const std::byte> bytes, const std::string& name,
             const Preprocessing& preprocessing, Picture& out);

/// The same from decoded pixels. `out` must be another picture.
void Resize(const Picture& in, const Preprocessing& preprocessing, Picture& out);

/// Decodes one picture for crops of any place and size: as it is, unless both its sides are twice
/// what Resize() would shrink it to or more; then a half, a quarter or an eighth of it (JPEG) or
/// what Resize() would cut height x width out of. So a crop is taken from more pixels than the
/// model sees, at no cost. Pixels outside of `part` may be anything. Throws DataError.
void PrepareWhole(std::span<const std::byte> bytes, const std::string& name,
                  const Preprocessing& preprocessing, const PartOf& part, Picture& out);

}  // namespace lockstep::trainer
