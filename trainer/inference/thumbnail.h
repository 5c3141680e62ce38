// A small JPEG of a picture, for pages.
#pragma once

#include <string>

#include "trainer/data/dataset.h"

namespace lockstep::trainer {

/// JPEG bytes; the longer side has at most `side` pixels. One or three channels. Empty where the
/// picture has no pixels.
std::string Thumbnail(const Picture& picture, int side);

}  // namespace lockstep::trainer
