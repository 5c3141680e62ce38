// JPEG, PNG and WebP bytes in, red-green-blue pixels out. Bytes come from anywhere: nothing they
// hold may crash, hang or exhaust memory. The format is told by the bytes, not by the file's name.
//
// Grey, palette, CMYK and 16-bit pictures become 8-bit RGB; transparency is dropped (the colour
// below it stays). A camera's note on which side is up (EXIF) is followed: sizes and pixels are
// those of the upright picture. Of an animated PNG the picture that other programs show is taken;
// an animated WebP is an error. Truncated and damaged pictures are errors, never half a picture:
// damage that the JPEG library would only warn of is an error too, apart from stray bytes and odd
// markers that do not touch the pixels. Functions may be called from many threads at once.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "trainer/pictures/picture.h"

namespace lockstep::trainer {

inline constexpr int64_t kMaxPixels = 100'000'000;  // A picture's width x height. Larger: refused.

struct PictureSize {
  int width = 0;
  int height = 0;
  bool operator==(const PictureSize&) const = default;
};

/// Width and height from the header, of the upright picture where the note on that is in `bytes`,
/// which may be the first part of the file (PNG and WebP may have the note at the end). Throws
/// DataError "NAME: reason".
PictureSize DecodeSize(std::span<const std::byte> bytes, const std::string& name);

struct DecodeOptions {
  // Where both are above 0, a JPEG may come out at 1/2, 1/4 or 1/8 of its size, as long as it stays
  // at least so wide and high: much cheaper when it is shrunk after. Pixels.
  int least_width = 0;
  int least_height = 0;
  PartOf part = {};  // Given the size that comes out. Pixels outside of it may be anything, and
                     // damage there may pass unnoticed.
};

/// Three channels. Reuses the memory of `picture`. Throws DataError "NAME: reason".
void Decode(std::span<const std::byte> bytes, const std::string& name, const DecodeOptions& options,
            Picture& picture);

inline Picture Decode(std::span<const std::byte> bytes, const std::string& name) {
  Picture picture;
  Decode(bytes, name, {}, picture);
  return picture;
}

}  // namespace lockstep::trainer
