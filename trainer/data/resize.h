// Changing a picture's size, with the same bits on every machine.
#pragma once

#include "trainer/data/dataset.h"

namespace lockstep::trainer {

/// The centred square of `in` (its shorter side long) at size x size: bilinear, and when shrinking
/// averaged over the area each new pixel covers. The same as scaling the shorter side to `size` and
/// cropping the centre, without computing what the crop drops. `out` must be another picture.
void ResizeToSquare(const Picture& in, int size, Picture& out);

}  // namespace lockstep::trainer
