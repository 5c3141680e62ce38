#include "trainer/models/graph.h"

#include <algorithm>
#include <functional>
#include <numeric>
#include <stdexcept>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"

namespace lockstep::trainer {

int64_t TensorSpec::numel() const {
  return std::accumulate(shape.begin(), shape.end(), int64_t{1}, std::multiplies<>());
}

std::vector<TensorSpec> TensorsOf(const Graph& graph, int operation) {
  using Role = TensorSpec::Role;
  const Operation& op = graph.operations[static_cast<size_t>(operation)];
  std::vector<TensorSpec> tensors;
  const auto add = [&](Role role, const char* suffix, std::vector<int64_t> shape) {
    tensors.push_back({role, absl::StrCat(op.name, suffix), std::move(shape)});
  };
  if (op.kind == OpKind::kConv2d) {
    const int64_t in = graph.input_shape_of(operation).channels / op.groups;
    add(Role::kWeight, ".weight", {op.out, in, op.kernel.height, op.kernel.width});
  } else if (op.kind == OpKind::kLinear) {
    add(Role::kWeight, ".weight", {op.out, graph.input_shape_of(operation).channels});
  }
  if (op.bias) add(Role::kBias, ".bias", {op.out});
  if (op.kind == OpKind::kBatchNorm) {
    const int64_t channels = graph.input_shape_of(operation).channels;
    add(Role::kWeight, ".weight", {channels});
    add(Role::kBias, ".bias", {channels});
    add(Role::kRunningMean, ".running_mean", {channels});
    add(Role::kRunningVar, ".running_var", {channels});
    add(Role::kNumBatchesTracked, ".num_batches_tracked", {});
  }
  return tensors;
}

const char* NameOf(OpKind kind) {
  switch (kind) {
    case OpKind::kInput:
      return "input";
    case OpKind::kConv2d:
      return "convolution";
    case OpKind::kBatchNorm:
      return "batch norm";
    case OpKind::kLinear:
      return "dense";
    case OpKind::kRelu:
      return "relu";
    case OpKind::kRelu6:
      return "relu6";
    case OpKind::kLeakyRelu:
      return "leaky relu";
    case OpKind::kGelu:
      return "gelu";
    case OpKind::kSilu:
      return "silu";
    case OpKind::kTanh:
      return "tanh";
    case OpKind::kMaxPool:
      return "max pool";
    case OpKind::kAvgPool:
      return "average pool";
    case OpKind::kAdaptiveAvgPool:
      return "adaptive average pool";
    case OpKind::kFlatten:
      return "flatten";
    case OpKind::kDropout:
      return "dropout";
    case OpKind::kAdd:
      return "add";
    case OpKind::kConcat:
      return "concatenate";
  }
  throw std::invalid_argument("Unknown kind of operation.");
}

std::vector<int> Needed(const Graph& graph, const std::vector<int>& targets, int first) {
  std::vector<bool> needed(graph.operations.size(), false);
  for (const int target : targets) needed[static_cast<size_t>(target)] = true;
  for (int i = static_cast<int>(graph.operations.size()) - 1; i >= first; --i) {
    if (!needed[static_cast<size_t>(i)]) continue;
    for (const int input : graph.operations[static_cast<size_t>(i)].inputs) {
      needed[static_cast<size_t>(input)] = true;
    }
  }
  std::vector<int> ascending;
  for (int i = first; i < static_cast<int>(graph.operations.size()); ++i) {
    if (needed[static_cast<size_t>(i)]) ascending.push_back(i);
  }
  return ascending;
}

int FrozenOperations(const Graph& graph, const std::string& freeze) {
  if (freeze == "none") return 0;
  if (freeze == "backbone") return graph.features + 1;
  absl::string_view count = freeze;
  int layers = 0;
  if (!absl::ConsumeSuffix(&count, " layers") || !absl::SimpleAtoi(count, &layers) || layers < 1) {
    throw std::invalid_argument(
        absl::StrCat("model.freeze: '", freeze, "' is not one of none, backbone, and `N layers`."));
  }
  int seen = 0;
  for (const int i : Needed(graph, {graph.output})) {
    const OpKind kind = graph.operations[static_cast<size_t>(i)].kind;
    if (kind != OpKind::kConv2d && kind != OpKind::kLinear) continue;
    if (seen == layers) return i;
    ++seen;
  }
  throw std::invalid_argument(absl::StrCat("model.freeze: '", freeze,
                                           "' leaves nothing to train: the model has ", seen,
                                           " layers with weights; freeze at most ", seen - 1, "."));
}

}  // namespace lockstep::trainer
