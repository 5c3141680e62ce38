// A tensor and the name it has in a checkpoint, e.g. "layer1.0.conv1.weight".
#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

namespace lockstep::trainer {

struct NamedTensor {
  std::string name;
  at::Tensor tensor;
};
using NamedTensors = std::vector<NamedTensor>;

}  // namespace lockstep::trainer
