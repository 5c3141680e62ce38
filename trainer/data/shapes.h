// `shapes`: pictures made on the fly, for trying things out without any download. Eight classes of
// one filled figure each, anywhere, of any size, angle and colour, lighter or darker than a blotchy
// background, with noise over all: no pixel tells the class, so a linear model stays near chance,
// and a small CNN learns it within minutes on two cores.
//
// A picture is a pure function of (seed, split, index, size): nothing is stored.
#pragma once

#include <cstdint>
#include <memory>

#include "trainer/data/dataset.h"

namespace lockstep::trainer {

struct ShapesOptions {
  uint64_t seed = 0;
  Split split = Split::kTrain;
  int size = 32;  // Width and height in pixels.
  int64_t count = 8000;
};

/// Throws DataError when size is not in [8, 1024] or count is not positive.
std::unique_ptr<Dataset> MakeShapes(const ShapesOptions& options);

}  // namespace lockstep::trainer
