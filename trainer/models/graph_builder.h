// Makes a Graph operation by operation and knows what shape each value has.
//
// Each call appends one operation and returns its index, which later calls take as input. A value
// that an operation cannot take (a kernel larger than the picture that is left, say) throws
// std::invalid_argument with a message for the user that begins with the context and, for a kernel
// or pool, says what to change.
#pragma once

#include <string>
#include <vector>

#include "trainer/models/graph.h"

namespace lockstep::trainer {

struct ConvOptions {
  int out = 0;  // Channels.
  Extent2d kernel{3, 3};
  Extent2d stride{1, 1};
  Extent2d padding{0, 0};
  int groups = 1;
  bool bias = false;
  bool zero_bias = false;
  double initial_deviation = 0;  // graph.h
};

struct LinearOptions {
  int out = 0;  // Features.
  bool zero_bias = false;
  double initial_deviation = 0;
};

struct PoolOptions {
  int kernel = 2;
  int stride = 2;
  int padding = 0;
};

class GraphBuilder {
 public:
  /// `context` begins every message, e.g. "model.name: vgg16".
  GraphBuilder(const InputShape& input, std::string context);

  int input() const { return 0; }
  void SetContext(std::string context) { context_ = std::move(context); }
  const ValueShape& shape(int value) const { return graph_.shapes[static_cast<size_t>(value)]; }

  int Conv(int value, const std::string& name, const ConvOptions& options);
  int BatchNorm(int value, const std::string& name, double epsilon = 1e-5);
  int Linear(int value, const std::string& name, const LinearOptions& options);
  int Activate(int value, OpKind kind);
  int MaxPool(int value, const PoolOptions& options);
  int AvgPool(int value, const PoolOptions& options);
  int AdaptiveAvgPool(int value, Extent2d to);
  int Flatten(int value);
  int Dropout(int value, double probability);  // The value itself where the probability is 0.
  int Add(int a, int b);                       // Of one shape.
  int Concat(const std::vector<int>& values);  // Of one height and width.

  /// The average over the picture, flat: what most trunks end with.
  int GlobalAverage(int value) { return Flatten(AdaptiveAvgPool(value, {1, 1})); }

  void SetAuxiliary(int logits) { graph_.auxiliary = logits; }
  /// `features` is flat. Leaves the builder empty.
  Graph Finish(int features, int output);

 private:
  int Append(Operation operation, const ValueShape& shape);
  int Pool(OpKind kind, int value, const PoolOptions& options);
  [[noreturn]] void Refuse(const std::string& problem) const;

  std::string context_;
  Graph graph_;
};

// Standard deviations that keep a signal's variance: He et al. 2015, "Delving Deep into
// Rectifiers". `fan`: inputs of one output (forward form), or outputs of one input (backward form).
double HeDeviation(double gain, double fan);
double ActivationGain(OpKind kind);
/// The backward form for what a relu follows; torchvision's kaiming_normal_ with mode fan_out.
double FanOutDeviation(int out, Extent2d kernel);

/// Throws std::invalid_argument naming the model when the picture is smaller.
void CheckPictureSize(const InputShape& input, int smallest, const std::string& model,
                      const std::string& otherwise = "");

}  // namespace lockstep::trainer
