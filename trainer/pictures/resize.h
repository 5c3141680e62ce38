// Changing a picture's size, with the same bits on every machine: bilinear, and when shrinking
// averaged over the area each new pixel covers, as Pillow's and torchvision's antialiased bilinear
// filter does.
#pragma once

#include "trainer/pictures/picture.h"

namespace lockstep::trainer {

/// `box` of `in`, as if there were nothing around it, at width x height. `out` must be another
/// picture.
void ResizeBox(const Picture& in, const Box& box, int width, int height, Picture& out);

/// All of `in` at width x height, of which only `cut` is computed. `out` must be another picture.
void ResizeAndCut(const Picture& in, int width, int height, const Box& cut, Picture& out);

}  // namespace lockstep::trainer
