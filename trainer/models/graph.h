// A network as data: its operations, in the order in which they run.
//
// The zoo (resnet.cc, vgg.cc, …) builds graphs; four readers use them: the model that runs them
// with ATen (graph_model.h), the table of layers, shapes and FLOPs (describe.h), the ONNX writer
// (trainer/export/) and whoever wants to know where the trunk ends. So a model is written once. No
// LibTorch here.
//
// Tensors of an operation are named NAME.weight, NAME.bias and, for a batch norm,
// NAME.running_mean, NAME.running_var and NAME.num_batches_tracked: torchvision's names where
// torchvision has the model.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "config/run_config.h"

namespace lockstep::trainer {

struct InputShape {
  int channels = 3;
  int height = 32;
  int width = 32;
};

enum class OpKind {
  kInput,   // The normalized pictures [n, channels, height, width].
  kConv2d,  // NAME.weight [out, in / groups, kernel], NAME.bias [out] with `bias`.
  kBatchNorm,
  kLinear,  // NAME.weight [out, in], NAME.bias [out].
  kRelu,
  kRelu6,
  kLeakyRelu,  // Slope 0.01.
  kGelu,       // By the error function.
  kSilu,
  kTanh,
  kMaxPool,          // Padding counts as minus infinity.
  kAvgPool,          // Padding counts as zeros (count_include_pad).
  kAdaptiveAvgPool,  // To `pool_to` pixels.
  kFlatten,          // [n, c, h, w] to [n, c * h * w].
  kDropout,          // Only in training.
  kAdd,
  kConcat,  // Along the channels.
};

struct Extent2d {
  int height = 1;
  int width = 1;
  bool operator==(const Extent2d&) const = default;
};

struct Operation {
  OpKind kind = OpKind::kInput;
  std::vector<int> inputs{};  // Indices of earlier operations.
  std::string name{};         // Prefix of its tensors' names; empty without tensors.
  int out = 0;                // Channels (convolution) or features (linear) that leave.
  Extent2d kernel{}, stride{}, padding{0, 0};
  int groups = 1;
  bool bias = false;
  double epsilon = 1e-5;  // Batch norm.
  double momentum = 0.1;  // Batch norm: weight of the new statistics.
  double dropout = 0;     // Probability.
  Extent2d pool_to{};
  // How the first values of a weight are drawn: normally, with this standard deviation; 0:
  // uniformly within 1 / sqrt(inputs of one output), as torch's own layers are.
  double initial_deviation = 0;
  bool zero_bias = false;  // The bias starts at 0; else uniformly, as above.
};

// What leaves an operation, without the samples: channels x height x width, or features x 1 x 1.
struct ValueShape {
  int64_t channels = 0;
  int64_t height = 1;
  int64_t width = 1;
  int64_t numel() const { return channels * height * width; }
};

struct Graph {
  InputShape input;
  std::vector<Operation> operations;  // [0] is the input.
  std::vector<ValueShape> shapes;     // Of each operation's value.
  int features = -1;   // The last operation of the trunk, a kFlatten; its value is what a feature
                       // cache holds. Everything after it is the head.
  int output = -1;     // Logits.
  int auxiliary = -1;  // Logits of the auxiliary head, only used in training; -1 = none. Its
                       // operations stand where it branches off, before `features`.

  const ValueShape& input_shape_of(int operation) const {
    return shapes[static_cast<size_t>(operations[static_cast<size_t>(operation)].inputs.front())];
  }
};

// A tensor that an operation owns.
struct TensorSpec {
  enum class Role { kWeight, kBias, kRunningMean, kRunningVar, kNumBatchesTracked };
  Role role = Role::kWeight;
  std::string name;
  std::vector<int64_t> shape;
  bool is_parameter() const { return role == Role::kWeight || role == Role::kBias; }
  int64_t numel() const;
};

/// In the order in which a model makes them: weight, bias, then a norm's statistics.
std::vector<TensorSpec> TensorsOf(const Graph& graph, int operation);

/// "convolution", "max pool", …
const char* NameOf(OpKind kind);

/// The operations that `targets` need, ascending; those before `first` are taken as given.
std::vector<int> Needed(const Graph& graph, const std::vector<int>& targets, int first = 0);

/// The network of a run's config. Throws std::invalid_argument with a message for the user when it
/// cannot take this input (a picture too small for its pools, say). num_classes must be resolved
/// (> 0). The auxiliary head is there when auxiliary_loss_weight > 0.
Graph BuildGraph(const config::ModelConfig& config, const InputShape& input);

/// The first operation that is not frozen under `freeze` ("none", "backbone", "N layers"; see
/// model.freeze): operations before it are frozen. "backbone" ends with `features`. The layers of
/// an auxiliary head are not counted: it is frozen, and its loss left out, once all that feeds it
/// is. Throws std::invalid_argument when there are not more layers than that.
int FrozenOperations(const Graph& graph, const std::string& freeze);

}  // namespace lockstep::trainer
