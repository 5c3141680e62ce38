// Which side of a picture is up: a camera's note in the EXIF data of JPEG, PNG and WebP files, of
// which only this one field is read.
#pragma once

#include <cstddef>
#include <span>

#include "trainer/pictures/picture.h"

namespace lockstep::trainer {

// How the stored pixels lie, by EXIF's numbers: 1 upright, 2 mirrored, 3 upside down, 4 both
// mirrored and upside down, 5 to 8 the same with rows and columns exchanged.
inline constexpr int kUpright = 1;

/// The orientation in a block of EXIF data (a TIFF header and its first directory, with or without
/// "Exif\0\0" before it); kUpright where it has none or is damaged.
int OrientationOfExif(std::span<const std::byte> exif);

/// Likewise in a whole file, or in as much as there is of it. `bytes` must begin as the format
/// does.
int OrientationOfJpeg(std::span<const std::byte> bytes);
int OrientationOfPng(std::span<const std::byte> bytes);
int OrientationOfWebp(std::span<const std::byte> bytes);

/// Width and height change places.
inline bool Transposes(int orientation) {
  return orientation > 4;
}

/// Turns the picture upright.
void TurnUpright(int orientation, Picture& picture);

}  // namespace lockstep::trainer
