// The confusion matrix as a picture: a row per true class, a column per predicted one, the darker
// the larger the share of the row; grey rows had no sample. Counts and class names are written
// where they fit.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "absl/status/statusor.h"
#include "trainer/tensorboard/event.h"

namespace lockstep::trainer {

/// counts [classes, classes], true class major. Up to 10 classes about 800 pixels wide, 50 classes
/// 1,100. `names` may be empty. INTERNAL where the picture cannot be encoded.
absl::StatusOr<PngPicture> ConfusionPicture(std::span<const int64_t> counts,
                                            std::span<const std::string> names);

}  // namespace lockstep::trainer
