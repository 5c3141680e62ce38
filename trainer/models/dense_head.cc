#include "trainer/models/dense_head.h"

#include "absl/strings/str_cat.h"

namespace lockstep::trainer {

Graph FinishWithDenseHead(GraphBuilder& builder, int trunk, const config::ModelConfig& config) {
  const int features = builder.GlobalAverage(trunk);
  int x = features;
  for (size_t i = 0; i < config.head.dense.size(); ++i) {
    x = builder.Dropout(x, config.head.dropout);
    const auto fan_in = static_cast<double>(builder.shape(x).channels);
    x = builder.Linear(x, absl::StrCat("head.", i),
                       {.out = config.head.dense[i],
                        .initial_deviation = HeDeviation(ActivationGain(OpKind::kRelu), fan_in)});
    x = builder.Activate(x, OpKind::kRelu);
  }
  x = builder.Dropout(x, config.head.dropout);
  return builder.Finish(features,
                        builder.Linear(x, "head.classifier", {.out = config.num_classes}));
}

}  // namespace lockstep::trainer
