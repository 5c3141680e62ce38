// A model as a table: its layers, what leaves them, their parameters and their cost, from the graph
// alone.
//
// An activation, a dropout or a flattening stands in the row of the operation it follows. The cost
// is that of one picture's forward pass in multiply-adds: output values times inputs of each, of
// convolutions and dense layers. What norms, activations and pools do is left out (about a
// hundredth). FLOPs are twice the multiply-adds: one multiplication, one addition.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "trainer/models/graph.h"

namespace lockstep::trainer {

enum class ModelPart { kTrunk, kHead, kAuxiliary };

struct LayerDescription {
  std::string name;  // Of its tensors; empty without any.
  std::string kind;  // "convolution 3x3 / 2, 64 groups", "batch norm, relu".
  ValueShape output;
  int64_t parameters = 0;
  int64_t multiply_adds = 0;
  ModelPart part = ModelPart::kTrunk;
};

struct PartTotal {
  int64_t parameters = 0;
  int64_t multiply_adds = 0;
};

struct ModelDescription {
  InputShape input;
  std::vector<LayerDescription> layers;
  int64_t features = 0;  // Values per picture between trunk and head.
  PartTotal trunk, head, auxiliary, total;
  int64_t weights_bytes = 0;  // Parameters and statistics, as a checkpoint holds them.
};

ModelDescription DescribeModel(const Graph& graph);
/// Multiply-adds of one sample in a training step: the forward pass of every operation, and twice
/// as much for those from `frozen` on (FrozenOperations()), whose gradients by inputs and by
/// weights are computed. With cached features the trunk does not run at all.
int64_t StepMultiplyAdds(const Graph& graph, int frozen, bool cached_features);
/// A table with totals, ending with a line break.
std::string ToText(const ModelDescription& description);
/// {"input": [c, h, w], "layers": [{"name", "kind", "output": [c, h, w], "part", "parameters",
/// "flops", "multiply_adds"}], "features", "totals": {"trunk": {…}, "head", "auxiliary", "all"},
/// "weights_bytes"}
std::string ToJson(const ModelDescription& description);

}  // namespace lockstep::trainer
