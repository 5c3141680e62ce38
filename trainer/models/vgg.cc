#include "trainer/models/vgg.h"

#include "absl/strings/str_cat.h"
#include "trainer/models/dense_head.h"
#include "trainer/models/graph_builder.h"

namespace lockstep::trainer {
namespace {

constexpr int kChannels[] = {64, 128, 256, 512, 512};
constexpr double kLinearDeviation = 0.01;

}  // namespace

Graph BuildVgg(const VggDesign& design, const config::ModelConfig& config,
               const InputShape& input) {
  CheckPictureSize(input, 32, design.name);
  GraphBuilder builder(input, absl::StrCat("model.name: ", design.name));
  int x = builder.input();
  int index = 0;  // torchvision's place in `features`; activations and pools have one, too.
  for (size_t group = 0; group < design.convolutions.size(); ++group) {
    const int channels = kChannels[group];
    for (int i = 0; i < design.convolutions[group]; ++i) {
      x = builder.Conv(x, absl::StrCat("features.", index++),
                       {.out = channels,
                        .padding = {1, 1},
                        .bias = true,
                        .zero_bias = true,
                        .initial_deviation = FanOutDeviation(channels, {3, 3})});
      if (design.batch_norm) x = builder.BatchNorm(x, absl::StrCat("features.", index++));
      x = builder.Activate(x, OpKind::kRelu);
      ++index;
    }
    x = builder.MaxPool(x, {.kernel = 2, .stride = 2});
    ++index;
  }
  if (config.head.replace) return FinishWithDenseHead(builder, x, config);
  const int features = builder.Flatten(builder.AdaptiveAvgPool(x, {7, 7}));
  x = features;
  for (const char* name : {"classifier.0", "classifier.3"}) {
    x = builder.Linear(x, name,
                       {.out = 4096, .zero_bias = true, .initial_deviation = kLinearDeviation});
    x = builder.Dropout(builder.Activate(x, OpKind::kRelu), 0.5);
  }
  x = builder.Linear(
      x, "classifier.6",
      {.out = config.num_classes, .zero_bias = true, .initial_deviation = kLinearDeviation});
  return builder.Finish(features, x);
}

}  // namespace lockstep::trainer
