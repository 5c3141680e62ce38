// MobileNetV2 (Sandler et al. 2018, "MobileNetV2: Inverted Residuals and Linear Bottlenecks"),
// width 1, with torchvision's names, shapes and initial distribution.
#pragma once

#include "trainer/models/graph.h"

namespace lockstep::trainer {

/// Throws std::invalid_argument for pictures under 32 px, which the five strides divide by.
Graph BuildMobileNetV2(const config::ModelConfig& config, const InputShape& input);

}  // namespace lockstep::trainer
