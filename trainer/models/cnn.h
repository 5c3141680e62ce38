// The `cnn` model: a plain stack composed from the run's config.
//
// Each block is convolution (with a bias only where no batch norm follows), batch norm, activation,
// 2x2 pool, dropout; then, if asked for, the average over the whole picture; dropout and a dense
// layer with activation for each hidden size; dropout and the classifier.
// Names: blocks.N.conv.*, blocks.N.norm.*, dense.N.*, classifier.*, counted from 0.
#pragma once

#include <memory>

#include "trainer/models/model.h"

namespace lockstep::trainer {

/// Throws std::invalid_argument naming the block when the picture becomes smaller than its kernel
/// or pool. With a communicator batch norm is over the samples of all ranks.
std::unique_ptr<Model> MakeCnn(const config::ModelConfig& config, const InputShape& input,
                               uint64_t seed, Communicator* communicator = nullptr);

}  // namespace lockstep::trainer
