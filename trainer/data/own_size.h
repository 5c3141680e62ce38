// Square pictures that come as they are.
#pragma once

#include "trainer/pictures/preprocessing.h"

namespace lockstep::trainer {

/// Nothing is done to pictures of side x side x 3 but a plain normalization.
inline Preprocessing OwnSize(int side) {
  return {.channels = 3,
          .height = side,
          .width = side,
          .resize = config::ResizeRule::kCrop,
          .shorter_side = side,
          .bgr = false,
          .mean = {0.5, 0.5, 0.5},
          .std = {0.25, 0.25, 0.25}};
}

}  // namespace lockstep::trainer
