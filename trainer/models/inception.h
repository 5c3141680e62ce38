// Inception-v3 (Szegedy et al. 2015, "Rethinking the Inception Architecture for Computer Vision")
// with torchvision's names, shapes and initial distribution, made for pictures of 299 px.
//
// torchvision's weights from ImageNet expect pictures with mean and deviation 0.5 (its
// transform_input): that is a preset of the data (`inception`), not of the model.
#pragma once

#include "trainer/models/graph.h"

namespace lockstep::trainer {

/// Throws std::invalid_argument for pictures under 75 px, and under 299 px with the auxiliary head
/// (auxiliary_loss_weight > 0), whose pool and 5x5 kernel need 17x17 pixels of it.
Graph BuildInceptionV3(const config::ModelConfig& config, const InputShape& input);

}  // namespace lockstep::trainer
