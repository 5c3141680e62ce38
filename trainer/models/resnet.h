// Residual networks (He et al. 2015, "Deep Residual Learning for Image Recognition") with
// torchvision's names, shapes and initial distribution, so that its weight files fit.
//
// A network is one row: how many blocks each stage has and what a block is made of.
#pragma once

#include <array>

#include "trainer/models/graph.h"

namespace lockstep::trainer {

struct ResNetDesign {
  const char* name = "";
  std::array<int, 4> blocks{};  // Per stage; stages have 64, 128, 256, 512 channels.
  enum class Block {
    kBasic,       // 3x3, 3x3.
    kBottleneck,  // 1x1, 3x3, 1x1 to four times the channels; the stride is on the 3x3.
  } block = Block::kBasic;
};

inline constexpr ResNetDesign kResNets[] = {
    {"resnet18", {2, 2, 2, 2}, ResNetDesign::Block::kBasic},
    {"resnet34", {3, 4, 6, 3}, ResNetDesign::Block::kBasic},
    {"resnet50", {3, 4, 6, 3}, ResNetDesign::Block::kBottleneck},
    {"resnet101", {3, 4, 23, 3}, ResNetDesign::Block::kBottleneck},
    {"resnet152", {3, 8, 36, 3}, ResNetDesign::Block::kBottleneck},
};

/// Throws std::invalid_argument when the picture is smaller than what the strides divide it by.
Graph BuildResNet(const ResNetDesign& design, const config::ModelConfig& config,
                  const InputShape& input);

}  // namespace lockstep::trainer
