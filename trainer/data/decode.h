// JPEG and PNG bytes in, red-green-blue pixels out. Bytes come from anywhere: nothing they hold may
// crash, hang or exhaust memory. The format is told by the bytes, not by the file's name.
//
// Grey, palette, CMYK and 16-bit pictures become 8-bit RGB; transparency is dropped (the colour
// below it stays), and a camera's note on which side is up is not followed: both as torchvision's
// ImageFolder does. Truncated and damaged pictures are errors, never half a picture: damage that
// the JPEG library would only warn of is an error too, apart from stray bytes and odd markers that
// do not touch the pixels. Functions may be called from many threads at once.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "trainer/data/dataset.h"

namespace lockstep::trainer {

inline constexpr int64_t kMaxPixels = 100'000'000;  // A picture's width x height. Larger: refused.

struct PictureSize {
  int width = 0;
  int height = 0;
  bool operator==(const PictureSize&) const = default;
};

/// Width and height from the header. `bytes` may be the first part of the file. Throws DataError
/// "NAME: reason".
PictureSize DecodeSize(std::span<const std::byte> bytes, const std::string& name);

/// Three channels. With `shorter_side` > 0 a JPEG may come out at 1/2, 1/4 or 1/8 of its size, as
/// long as its shorter side stays at least that many pixels: much cheaper when it is shrunk after.
/// Reuses the memory of `picture`. Throws DataError "NAME: reason".
void Decode(std::span<const std::byte> bytes, const std::string& name, int shorter_side,
            Picture& picture);

inline Picture Decode(std::span<const std::byte> bytes, const std::string& name) {
  Picture picture;
  Decode(bytes, name, 0, picture);
  return picture;
}

}  // namespace lockstep::trainer
