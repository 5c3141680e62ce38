#include "trainer/models/resnet.h"

#include <algorithm>
#include <stdexcept>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "trainer/models/dense_head.h"
#include "trainer/models/graph_builder.h"

namespace lockstep::trainer {
namespace {

// The stem for small pictures keeps their resolution, as the paper's section 4.2 does for CIFAR-10.
bool UsesCifarStem(const config::ModelConfig& config, const InputShape& input) {
  if (config.stem == "cifar") return true;
  if (config.stem == "imagenet") return false;
  if (config.stem == "auto") return std::max(input.height, input.width) <= 64;
  throw std::invalid_argument(absl::StrCat("model.stem: unknown stem '", config.stem,
                                           "'; expected auto, imagenet or cifar."));
}

struct Shape {
  int out = 0;
  int kernel = 3;
  int stride = 1;
  int padding = 0;
};

int AddConvNorm(GraphBuilder& builder, int x, const std::string& conv_name,
                const std::string& norm_name, const Shape& shape) {
  const Extent2d kernel{shape.kernel, shape.kernel};
  x = builder.Conv(x, conv_name,
                   {.out = shape.out,
                    .kernel = kernel,
                    .stride = {shape.stride, shape.stride},
                    .padding = {shape.padding, shape.padding},
                    .initial_deviation = FanOutDeviation(shape.out, kernel)});
  return builder.BatchNorm(x, norm_name);
}

int AddBlock(GraphBuilder& builder, ResNetDesign::Block kind, int input, const std::string& name,
             int channels, int stride) {
  const bool bottleneck = kind == ResNetDesign::Block::kBottleneck;
  const int out = bottleneck ? 4 * channels : channels;
  const std::vector<Shape> shapes =
      bottleneck ? std::vector<Shape>{{channels, 1, 1, 0}, {channels, 3, stride, 1}, {out, 1, 1, 0}}
                 : std::vector<Shape>{{channels, 3, stride, 1}, {channels, 3, 1, 1}};
  int x = input;
  for (size_t i = 0; i < shapes.size(); ++i) {
    if (i > 0) x = builder.Activate(x, OpKind::kRelu);
    x = AddConvNorm(builder, x, absl::StrCat(name, ".conv", i + 1),
                    absl::StrCat(name, ".bn", i + 1), shapes[i]);
  }
  int shortcut = input;
  if (stride != 1 || builder.shape(input).channels != out) {
    shortcut = AddConvNorm(builder, input, name + ".downsample.0", name + ".downsample.1",
                           {out, 1, stride, 0});
  }
  return builder.Activate(builder.Add(x, shortcut), OpKind::kRelu);
}

}  // namespace

Graph BuildResNet(const ResNetDesign& design, const config::ModelConfig& config,
                  const InputShape& input) {
  const bool cifar = UsesCifarStem(config, input);
  // Three stages halve the picture; the stem for large pictures divides it by four before them.
  CheckPictureSize(input, cifar ? 8 : 32,
                   absl::StrCat(design.name, " with the ", cifar ? "cifar" : "imagenet", " stem"),
                   cifar ? "" : "model.stem: cifar");
  GraphBuilder builder(input, absl::StrCat("model.name: ", design.name));
  int x = AddConvNorm(builder, builder.input(), "conv1", "bn1",
                      cifar ? Shape{64, 3, 1, 1} : Shape{64, 7, 2, 3});
  x = builder.Activate(x, OpKind::kRelu);
  if (!cifar) x = builder.MaxPool(x, {.kernel = 3, .stride = 2, .padding = 1});
  for (int stage = 0; stage < 4; ++stage) {
    for (int i = 0; i < design.blocks[static_cast<size_t>(stage)]; ++i) {
      const int stride = stage > 0 && i == 0 ? 2 : 1;
      x = AddBlock(builder, design.block, x, absl::StrCat("layer", stage + 1, ".", i), 64 << stage,
                   stride);
    }
  }
  if (config.head.replace) return FinishWithDenseHead(builder, x, config);
  const int features = builder.GlobalAverage(x);
  return builder.Finish(features, builder.Linear(features, "fc", {.out = config.num_classes}));
}

}  // namespace lockstep::trainer
