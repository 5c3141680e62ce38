// Residual networks (He et al. 2015, "Deep Residual Learning for Image Recognition") with
// torchvision's names, shapes and initial distribution, so that its weight files fit.
//
// A network is one row: how many blocks each stage has and what a block is made of.
#pragma once

#include <array>
#include <memory>

#include "trainer/models/model.h"

namespace lockstep::trainer {

struct ResNetDesign {
  const char* name = "";
  std::array<int, 4> blocks{};  // Per stage; stages have 64, 128, 256, 512 channels.
  enum class Block {
    kBasic,       // 3x3, 3x3.
    kBottleneck,  // 1x1, 3x3, 1x1 to four times the channels; the stride is on the 3x3.
  } block = Block::kBasic;
};

inline constexpr ResNetDesign kResNet18{"resnet18", {2, 2, 2, 2}, ResNetDesign::Block::kBasic};

/// Throws std::invalid_argument when the picture is smaller than what the strides divide it by.
/// With a communicator batch norm is over the samples of all ranks.
std::unique_ptr<Model> MakeResNet(const ResNetDesign& design, const config::ModelConfig& config,
                                  const InputShape& input, uint64_t seed,
                                  Communicator* communicator = nullptr);

}  // namespace lockstep::trainer
