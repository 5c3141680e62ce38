// VGG (Simonyan & Zisserman 2014, "Very Deep Convolutional Networks for Large-Scale Image
// Recognition"), with and without batch norm, with torchvision's names, shapes and initial
// distribution.
//
// A network is one row: how many 3x3 convolutions stand before each of the five pools. Pictures
// other than 224 px reach the classifier through an average pool to 7x7.
#pragma once

#include <array>

#include "trainer/models/graph.h"

namespace lockstep::trainer {

struct VggDesign {
  const char* name = "";
  std::array<int, 5> convolutions{};  // Of 64, 128, 256, 512, 512 channels.
  bool batch_norm = false;
};

inline constexpr VggDesign kVggs[] = {
    {"vgg11", {1, 1, 2, 2, 2}, false},   {"vgg13", {2, 2, 2, 2, 2}, false},
    {"vgg16", {2, 2, 3, 3, 3}, false},   {"vgg19", {2, 2, 4, 4, 4}, false},
    {"vgg11_bn", {1, 1, 2, 2, 2}, true}, {"vgg13_bn", {2, 2, 2, 2, 2}, true},
    {"vgg16_bn", {2, 2, 3, 3, 3}, true}, {"vgg19_bn", {2, 2, 4, 4, 4}, true},
};

/// Throws std::invalid_argument for pictures under 32 px, which the five pools divide by.
Graph BuildVgg(const VggDesign& design, const config::ModelConfig& config, const InputShape& input);

}  // namespace lockstep::trainer
