#include "trainer/models/mobilenet.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "trainer/models/dense_head.h"
#include "trainer/models/graph_builder.h"

namespace lockstep::trainer {
namespace {

// The paper's table 2: expansion, output channels, repetitions, stride of the first.
struct Stage {
  int expansion;
  int out;
  int blocks;
  int stride;
};
constexpr Stage kStages[] = {{1, 16, 1, 1}, {6, 24, 2, 2},  {6, 32, 3, 2}, {6, 64, 4, 2},
                             {6, 96, 3, 1}, {6, 160, 3, 2}, {6, 320, 1, 1}};

struct Shape {
  int out = 0;
  int kernel = 1;
  int stride = 1;
  int groups = 1;
};

int AddConvNorm(GraphBuilder& builder, int x, const std::string& conv_name,
                const std::string& norm_name, const Shape& shape) {
  const Extent2d kernel{shape.kernel, shape.kernel};
  const int padding = shape.kernel / 2;
  x = builder.Conv(x, conv_name,
                   {.out = shape.out,
                    .kernel = kernel,
                    .stride = {shape.stride, shape.stride},
                    .padding = {padding, padding},
                    .groups = shape.groups,
                    .initial_deviation = FanOutDeviation(shape.out, kernel)});
  return builder.BatchNorm(x, norm_name);
}

int AddActivated(GraphBuilder& builder, int x, const std::string& name, const Shape& shape) {
  return builder.Activate(AddConvNorm(builder, x, name + ".0", name + ".1", shape), OpKind::kRelu6);
}

int AddInvertedResidual(GraphBuilder& builder, int input, const std::string& name,
                        const Stage& stage, int stride) {
  const auto in = static_cast<int>(builder.shape(input).channels);
  const int hidden = in * stage.expansion;
  int x = input;
  int index = 0;  // torchvision's place in `conv`.
  if (stage.expansion != 1) {
    x = AddActivated(builder, x, absl::StrCat(name, ".conv.", index++), {.out = hidden});
  }
  x = AddActivated(builder, x, absl::StrCat(name, ".conv.", index++),
                   {.out = hidden, .kernel = 3, .stride = stride, .groups = hidden});
  x = AddConvNorm(builder, x, absl::StrCat(name, ".conv.", index),
                  absl::StrCat(name, ".conv.", index + 1), {.out = stage.out});
  return stride == 1 && in == stage.out ? builder.Add(x, input) : x;
}

}  // namespace

Graph BuildMobileNetV2(const config::ModelConfig& config, const InputShape& input) {
  CheckPictureSize(input, 32, "mobilenet_v2");
  GraphBuilder builder(input, "model.name: mobilenet_v2");
  int index = 0;  // torchvision's place in `features`.
  int x = AddActivated(builder, builder.input(), absl::StrCat("features.", index++),
                       {.out = 32, .kernel = 3, .stride = 2});
  for (const Stage& stage : kStages) {
    for (int i = 0; i < stage.blocks; ++i) {
      x = AddInvertedResidual(builder, x, absl::StrCat("features.", index++), stage,
                              i == 0 ? stage.stride : 1);
    }
  }
  x = AddActivated(builder, x, absl::StrCat("features.", index), {.out = 1280});
  if (config.head.replace) return FinishWithDenseHead(builder, x, config);
  const int features = builder.GlobalAverage(x);
  const int logits =
      builder.Linear(builder.Dropout(features, 0.2), "classifier.1",
                     {.out = config.num_classes, .zero_bias = true, .initial_deviation = 0.01});
  return builder.Finish(features, logits);
}

}  // namespace lockstep::trainer
