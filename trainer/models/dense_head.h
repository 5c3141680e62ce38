// The head of `model.head.kind: dense`, in place of a model's own.
#pragma once

#include "trainer/models/graph_builder.h"

namespace lockstep::trainer {

/// Averages the trunk's value over the picture (the features), then for each hidden size dropout, a
/// dense layer and relu, then dropout and the classifier. Names: head.0, head.1, …,
/// head.classifier.
Graph FinishWithDenseHead(GraphBuilder& builder, int trunk, const config::ModelConfig& config);

}  // namespace lockstep::trainer
