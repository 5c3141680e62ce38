#include "trainer/models/graph_builder.h"

#include <cmath>
#include <stdexcept>
#include <utility>

#include "absl/strings/str_cat.h"

namespace lockstep::trainer {
namespace {

std::string Pixels(int64_t height, int64_t width) {
  return absl::StrCat(height, "x", width);
}

int64_t AfterWindow(int64_t size, int kernel, int stride, int padding) {
  return (size + 2 * padding - kernel) / stride + 1;
}

}  // namespace

GraphBuilder::GraphBuilder(const InputShape& input, std::string context)
    : context_(std::move(context)) {
  graph_.input = input;
  Append({}, {input.channels, input.height, input.width});
}

int GraphBuilder::Append(Operation operation, const ValueShape& shape) {
  graph_.operations.push_back(std::move(operation));
  graph_.shapes.push_back(shape);
  return static_cast<int>(graph_.operations.size()) - 1;
}

void GraphBuilder::Refuse(const std::string& problem) const {
  throw std::invalid_argument(absl::StrCat(context_, ": ", problem));
}

int GraphBuilder::Conv(int value, const std::string& name, const ConvOptions& options) {
  const ValueShape in = shape(value);
  const auto [height, width] = options.kernel;
  if (in.height + 2 * options.padding.height < height ||
      in.width + 2 * options.padding.width < width) {
    Refuse(absl::StrCat("a ", Pixels(height, width), " kernel with padding ",
                        options.padding.height == options.padding.width
                            ? absl::StrCat(options.padding.height)
                            : Pixels(options.padding.height, options.padding.width),
                        " does not fit the ", Pixels(in.height, in.width),
                        " pixels that are left; use fewer pools or strides, a smaller kernel, or "
                        "a larger data.image_size."));
  }
  if (in.channels % options.groups != 0 || options.out % options.groups != 0) {
    Refuse(absl::StrCat(name, ": ", in.channels, " and ", options.out,
                        " channels are not multiples of ", options.groups, " groups."));
  }
  return Append(
      {.kind = OpKind::kConv2d,
       .inputs = {value},
       .name = name,
       .out = options.out,
       .kernel = options.kernel,
       .stride = options.stride,
       .padding = options.padding,
       .groups = options.groups,
       .bias = options.bias,
       .initial_deviation = options.initial_deviation,
       .zero_bias = options.zero_bias},
      {options.out, AfterWindow(in.height, height, options.stride.height, options.padding.height),
       AfterWindow(in.width, width, options.stride.width, options.padding.width)});
}

int GraphBuilder::BatchNorm(int value, const std::string& name, double epsilon) {
  const ValueShape in = shape(value);
  return Append({.kind = OpKind::kBatchNorm, .inputs = {value}, .name = name, .epsilon = epsilon},
                in);
}

int GraphBuilder::Linear(int value, const std::string& name, const LinearOptions& options) {
  return Append({.kind = OpKind::kLinear,
                 .inputs = {value},
                 .name = name,
                 .out = options.out,
                 .bias = true,
                 .initial_deviation = options.initial_deviation,
                 .zero_bias = options.zero_bias},
                {options.out, 1, 1});
}

int GraphBuilder::Activate(int value, OpKind kind) {
  const ValueShape in = shape(value);
  return Append({.kind = kind, .inputs = {value}}, in);
}

int GraphBuilder::Pool(OpKind kind, int value, const PoolOptions& options) {
  const ValueShape in = shape(value);
  const auto [kernel, stride, padding] = options;
  if (in.height + 2 * padding < kernel || in.width + 2 * padding < kernel) {
    Refuse(absl::StrCat("a ", Pixels(kernel, kernel), " pool does not fit the ",
                        Pixels(in.height, in.width),
                        " pixels that are left; use fewer pools or a larger data.image_size."));
  }
  return Append({.kind = kind,
                 .inputs = {value},
                 .kernel = {kernel, kernel},
                 .stride = {stride, stride},
                 .padding = {padding, padding}},
                {in.channels, AfterWindow(in.height, kernel, stride, padding),
                 AfterWindow(in.width, kernel, stride, padding)});
}

int GraphBuilder::MaxPool(int value, const PoolOptions& options) {
  return Pool(OpKind::kMaxPool, value, options);
}

int GraphBuilder::AvgPool(int value, const PoolOptions& options) {
  return Pool(OpKind::kAvgPool, value, options);
}

int GraphBuilder::AdaptiveAvgPool(int value, Extent2d to) {
  const int64_t channels = shape(value).channels;
  return Append({.kind = OpKind::kAdaptiveAvgPool, .inputs = {value}, .pool_to = to},
                {channels, to.height, to.width});
}

int GraphBuilder::Flatten(int value) {
  const int64_t features = shape(value).numel();
  return Append({.kind = OpKind::kFlatten, .inputs = {value}}, {features, 1, 1});
}

int GraphBuilder::Dropout(int value, double probability) {
  if (probability == 0) return value;
  const ValueShape in = shape(value);
  return Append({.kind = OpKind::kDropout, .inputs = {value}, .dropout = probability}, in);
}

int GraphBuilder::Add(int a, int b) {
  const ValueShape in = shape(a);
  return Append({.kind = OpKind::kAdd, .inputs = {a, b}}, in);
}

int GraphBuilder::Concat(const std::vector<int>& values) {
  ValueShape out = shape(values.front());
  out.channels = 0;
  for (const int value : values) out.channels += shape(value).channels;
  return Append({.kind = OpKind::kConcat, .inputs = values}, out);
}

Graph GraphBuilder::Finish(int features, int output) {
  graph_.features = features;
  graph_.output = output;
  return std::move(graph_);
}

double HeDeviation(double gain, double fan) {
  return gain / std::sqrt(fan);
}

double ActivationGain(OpKind kind) {
  switch (kind) {
    case OpKind::kTanh:
      return 5.0 / 3.0;
    case OpKind::kLeakyRelu:
      return std::sqrt(2.0 / (1.0 + 0.01 * 0.01));
    case OpKind::kRelu:
    case OpKind::kRelu6:
    case OpKind::kGelu:  // No closed form; ReLU's is close and is what is usual.
    case OpKind::kSilu:
      return std::sqrt(2.0);
    default:
      return 1.0;
  }
}

double FanOutDeviation(int out, Extent2d kernel) {
  return HeDeviation(std::sqrt(2.0), static_cast<double>(out) * kernel.height * kernel.width);
}

void CheckPictureSize(const InputShape& input, int smallest, const std::string& model,
                      const std::string& otherwise) {
  if (input.height >= smallest && input.width >= smallest) return;
  throw std::invalid_argument(absl::StrCat(
      "model.name: ", model, " needs pictures of at least ", Pixels(smallest, smallest),
      " pixels, not ", Pixels(input.height, input.width), "; use a larger data.image_size",
      otherwise.empty() ? "" : " or ", otherwise, "."));
}

}  // namespace lockstep::trainer
