// Random changes to a training picture. What happens to a sample in an epoch is a pure function of
// (seed, epoch, sample), wherever and whenever it is read; one setting does not change what another
// one does.
//
// Drawn here, without a picture; applied by trainer/pictures/picture_changes.h. Rules and usual
// values are torchvision's where it has the transform.
#pragma once

#include <array>
#include <cstdint>

#include "config/run_config.h"
#include "trainer/pictures/picture.h"

namespace lockstep::trainer {

// Which numbers are drawn.
struct DrawKey {
  uint64_t seed = 0;
  int64_t epoch = 0;
  int64_t sample = 0;
};

struct Augmentation {
  bool flip = false;  // Mirrored left to right, after the shift.
  int shift_x = 0;    // The picture moves by so many pixels to the right and down; what comes in
  int shift_y = 0;    // from outside is black.
};

/// Flip with probability one half; shifts uniform in [-crop_padding, crop_padding], which is what
/// padding on each side and cropping back to the size does.
Augmentation DrawAugmentation(const config::AugmentConfig& config, const DrawKey& key);

/// Something besides flip and crop_padding is on.
bool ChangesPixels(const config::AugmentConfig& config);
bool Mixes(const config::AugmentConfig& config);

/// The part of a width x height picture that resized_crop keeps: area uniform in [resized_crop, 1]
/// of the picture's, ratio of its sides log-uniform in [3/4, 4/3]; where ten tries do not fit, the
/// centre.
Box DrawCrop(const config::AugmentConfig& config, const DrawKey& key, int width, int height);

/// Uniform in [-rotation_degrees, rotation_degrees].
double DrawDegrees(const config::AugmentConfig& config, const DrawKey& key);

// Factors are 65536 = unchanged.
struct ColorChange {
  enum class Kind : uint8_t { kBrightness, kContrast, kSaturation, kHue };
  std::array<Kind, 4> order = {Kind::kBrightness, Kind::kContrast, Kind::kSaturation, Kind::kHue};
  int32_t brightness = 65536;
  int32_t contrast = 65536;
  int32_t saturation = 65536;
  int32_t hue = 0;  // 24576 is a turn of the colour circle.
};

ColorChange DrawColorChange(const config::ColorJitterConfig& config, const DrawKey& key);

/// What random_erasing blanks; width 0 = nothing. Area uniform in [0.02, 0.33] of the picture's,
/// ratio of its sides log-uniform in [0.3, 3.3]; where ten tries do not fit, nothing.
Box DrawErasing(const config::AugmentConfig& config, const DrawKey& key, int width, int height);

// How much of a sample is another one.
struct Mixing {
  bool cut = false;    // cutmix: `box` comes from the other picture; else all is blended.
  int32_t weight = 0;  // mixup: of this picture; 65536 = all.
  Box box = {};        // May be empty.
  float share = 1.0f;  // Of this sample's target.
};

/// The share is drawn from Beta(alpha, alpha); cutmix's rectangle has a middle anywhere and is cut
/// off at the edges, and its share is that of the pixels left over. With both on, a coin decides.
Mixing DrawMixing(const config::AugmentConfig& config, const DrawKey& key, int width, int height);

}  // namespace lockstep::trainer
