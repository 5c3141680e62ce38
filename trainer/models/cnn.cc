#include "trainer/models/cnn.h"

#include <optional>
#include <stdexcept>
#include <string>

#include "absl/strings/str_cat.h"
#include "trainer/models/dense_head.h"
#include "trainer/models/graph_builder.h"

namespace lockstep::trainer {
namespace {

OpKind KindOf(config::Activation activation) {
  switch (activation) {
    case config::Activation::kRelu:
      return OpKind::kRelu;
    case config::Activation::kLeakyRelu:
      return OpKind::kLeakyRelu;
    case config::Activation::kGelu:
      return OpKind::kGelu;
    case config::Activation::kSilu:
      return OpKind::kSilu;
    case config::Activation::kTanh:
      return OpKind::kTanh;
  }
  throw std::invalid_argument("Unknown activation.");
}

// nullopt = none.
std::optional<OpKind> KindOf(config::BlockActivation activation, config::Activation of_cnn) {
  switch (activation) {
    case config::BlockActivation::kAuto:
      return KindOf(of_cnn);
    case config::BlockActivation::kRelu:
      return OpKind::kRelu;
    case config::BlockActivation::kLeakyRelu:
      return OpKind::kLeakyRelu;
    case config::BlockActivation::kGelu:
      return OpKind::kGelu;
    case config::BlockActivation::kSilu:
      return OpKind::kSilu;
    case config::BlockActivation::kTanh:
      return OpKind::kTanh;
    case config::BlockActivation::kNone:
      return std::nullopt;
  }
  throw std::invalid_argument("Unknown activation.");
}

int AddBlock(GraphBuilder& builder, int x, const config::ConvBlockConfig& block,
             const std::string& name, config::Activation of_cnn) {
  const std::optional<OpKind> activation = KindOf(block.activation, of_cnn);
  const double gain = activation ? ActivationGain(*activation) : 1.0;
  const double fan_in =
      static_cast<double>(builder.shape(x).channels) * block.kernel * block.kernel;
  const int padding = block.padding < 0 ? block.kernel / 2 : block.padding;
  x = builder.Conv(x, name + ".conv",
                   {.out = block.filters,
                    .kernel = {block.kernel, block.kernel},
                    .stride = {block.stride, block.stride},
                    .padding = {padding, padding},
                    .bias = !block.batch_norm,
                    .initial_deviation = HeDeviation(gain, fan_in)});
  if (block.batch_norm) x = builder.BatchNorm(x, name + ".norm");
  if (activation) x = builder.Activate(x, *activation);
  const PoolOptions pool{.kernel = block.pool_size, .stride = block.pool_size};
  if (block.pool == config::Pool::kMax) x = builder.MaxPool(x, pool);
  if (block.pool == config::Pool::kAverage) x = builder.AvgPool(x, pool);
  return builder.Dropout(x, block.dropout);
}

}  // namespace

Graph BuildCnn(const config::ModelConfig& config, const InputShape& input) {
  const config::CnnConfig& cnn = config.cnn;
  GraphBuilder builder(input, "model.cnn");
  int x = builder.input();
  for (size_t i = 0; i < cnn.blocks.size(); ++i) {
    builder.SetContext(absl::StrCat("model.cnn.blocks[", i, "]"));
    x = AddBlock(builder, x, cnn.blocks[i], absl::StrCat("blocks.", i), cnn.activation);
  }
  if (config.head.replace) return FinishWithDenseHead(builder, x, config);
  const int features = cnn.global_pool ? builder.GlobalAverage(x) : builder.Flatten(x);
  x = features;
  const OpKind activation = KindOf(cnn.activation);
  for (size_t i = 0; i < cnn.dense.size(); ++i) {
    x = builder.Dropout(x, cnn.dropout);
    const auto fan_in = static_cast<double>(builder.shape(x).channels);
    x = builder.Linear(x, absl::StrCat("dense.", i),
                       {.out = cnn.dense[i],
                        .initial_deviation = HeDeviation(ActivationGain(activation), fan_in)});
    x = builder.Activate(x, activation);
  }
  x = builder.Dropout(x, cnn.dropout);
  return builder.Finish(features, builder.Linear(x, "classifier", {.out = config.num_classes}));
}

}  // namespace lockstep::trainer
