// Random changes to a training picture. What happens to a sample in an epoch is a pure function of
// (seed, epoch, sample), wherever and whenever it is read.
#pragma once

#include <cstdint>

#include "config/run_config.h"
#include "trainer/data/dataset.h"

namespace lockstep::trainer {

// Drawn first and applied after, so that it can be looked at without a picture.
struct Augmentation {
  bool flip = false;  // Mirrored left to right, after the shift.
  int shift_x = 0;    // The picture moves by so many pixels to the right and down; what comes in
  int shift_y = 0;    // from outside is black.
};

/// Flip with probability one half; shifts uniform in [-crop_padding, crop_padding], which is what
/// padding on each side and cropping back to the size does.
Augmentation DrawAugmentation(const config::AugmentConfig& config, uint64_t seed, int64_t epoch,
                              int64_t sample);

/// `out` gets the size of `in`; they must be two pictures.
void Apply(const Augmentation& augmentation, const Picture& in, Picture& out);

}  // namespace lockstep::trainer
