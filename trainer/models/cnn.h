// The `cnn` model: a plain stack composed from the run's config.
//
// Each block is convolution (with a bias only where no batch norm follows), batch norm, activation,
// pool, dropout; then, if asked for, the average over the whole picture; dropout and a dense layer
// with activation for each hidden size; dropout and the classifier.
// Names: blocks.N.conv.*, blocks.N.norm.*, dense.N.*, classifier.*, counted from 0.
#pragma once

#include "trainer/models/graph.h"

namespace lockstep::trainer {

/// Throws std::invalid_argument naming the block when the picture becomes smaller than its kernel
/// or pool.
Graph BuildCnn(const config::ModelConfig& config, const InputShape& input);

}  // namespace lockstep::trainer
