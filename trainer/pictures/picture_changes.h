// What random augmentation does to pixels, in whole numbers: the same bits on every machine.
#pragma once

#include <array>
#include <cstdint>

#include "trainer/pictures/augment.h"
#include "trainer/pictures/picture.h"

namespace lockstep::trainer {

/// `out` gets the size of `in`; they must be two pictures.
void Apply(const Augmentation& augmentation, const Picture& in, Picture& out);

/// Turned around the middle, counterclockwise, bilinear; black where the picture has nothing. `out`
/// gets the size of `in`; they must be two pictures.
void Rotate(const Picture& in, double degrees, Picture& out);

/// brightness: times the factor. contrast: away from the picture's mean lightness. saturation: away
/// from each pixel's own lightness. hue: in the HSV colour circle. In `change.order`. Of a grey
/// picture only the first two change anything.
void ChangeColors(const ColorChange& change, Picture& picture);

using Color = std::array<uint8_t, 3>;  // Red, green, blue; or grey first.

void Erase(const Box& box, const Color& color, Picture& picture);

/// `picture` becomes what `mixing` says of it and of `other`, which has its size.
void Mix(const Mixing& mixing, const Picture& other, Picture& picture);

}  // namespace lockstep::trainer
