// Every family of models trains; what is frozen does not move, in weights or in statistics; the
// head alone takes features.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/randn.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/trainer/comm/run_ranks.h"
#include "trainer/models/model.h"

namespace lockstep::trainer {
namespace {

struct Case {
  const char* name;
  int pixels;
  double auxiliary_weight;
  double learning_rate;
  bool dense_head = false;
};

config::ModelConfig Config(const Case& of) {
  config::ModelConfig config;
  config.name = of.name;
  config.num_classes = 3;
  config.auxiliary_loss_weight = of.auxiliary_weight;
  config.cnn.blocks = {
      {.filters = 8, .pool = config::Pool::kMax},
      {.filters = 8, .activation = config::BlockActivation::kNone, .dropout = 0.1}};
  config.cnn.dense = {16};
  config.head.replace = of.dense_head;
  if (of.dense_head) config.head.dense = {16};
  return config;
}

at::Tensor Pictures(const Case& of, int64_t n) {
  return at::randn({n, 3, of.pixels, of.pixels}, at::make_generator<at::CPUGeneratorImpl>(4));
}

at::Tensor Loss(const ModelOutput& output, double auxiliary_weight) {
  const at::Tensor labels = at::arange(output.logits.size(0)).remainder(3);
  const at::Tensor loss = at::cross_entropy_loss(output.logits, labels);
  if (!output.auxiliary.defined()) return loss;
  return loss.add(at::cross_entropy_loss(output.auxiliary, labels), auxiliary_weight);
}

double Step(Model& model, const at::Tensor& pictures, const Case& of) {
  const at::Tensor loss = Loss(model.Forward(pictures), of.auxiliary_weight);
  loss.backward();
  const at::NoGradGuard no_grad;
  for (const NamedTensor& parameter : model.Parameters()) {
    if (!parameter.tensor.requires_grad()) continue;
    parameter.tensor.sub_(parameter.tensor.grad(), of.learning_rate);
    parameter.tensor.mutable_grad() = at::Tensor();
  }
  return loss.item<double>();
}

class Families : public ::testing::TestWithParam<Case> {};

TEST_P(Families, TheLossFallsAndEveryParameterHasAGradient) {
  const Case& of = GetParam();
  at::Generator generator = at::detail::getDefaultCPUGenerator();
  generator.set_current_seed(5);
  const auto model = MakeModel(Config(of), {3, of.pixels, of.pixels}, 1);
  const at::Tensor pictures = Pictures(of, 3);
  const ModelOutput output = model->Forward(pictures);
  EXPECT_EQ(output.auxiliary.defined(), of.auxiliary_weight > 0);
  Loss(output, of.auxiliary_weight).backward();
  for (const NamedTensor& parameter : model->Parameters()) {
    ASSERT_TRUE(parameter.tensor.grad().defined()) << parameter.name;
    EXPECT_TRUE(parameter.tensor.grad().isfinite().all().item<bool>()) << parameter.name;
    parameter.tensor.mutable_grad() = at::Tensor();
  }
  const double first = Step(*model, pictures, of);
  double last = first;
  for (int step = 0; step < 6; ++step) last = Step(*model, pictures, of);
  EXPECT_LT(last, first);
  model->SetTraining(false);
  EXPECT_FALSE(model->Forward(pictures).auxiliary.defined());
}

TEST_P(Families, AFrozenTrunkStaysAsItIs) {
  const Case& of = GetParam();
  const auto model = MakeModel(Config(of), {3, of.pixels, of.pixels}, 1);
  const int count = FrozenOperations(model->graph(), "backbone");
  model->Freeze(count);
  std::vector<at::Tensor> before;
  for (const NamedTensors& tensors : {model->Parameters(), model->Buffers()}) {
    for (const NamedTensor& tensor : tensors) before.push_back(tensor.tensor.detach().clone());
  }
  const at::Tensor pictures = Pictures(of, 3);
  const at::Tensor features = model->Features(pictures);
  EXPECT_FALSE(features.requires_grad());
  EXPECT_EQ(features.size(1),
            model->graph().shapes[static_cast<size_t>(model->graph().features)].numel());
  EXPECT_FALSE(model->Forward(pictures).auxiliary.defined());
  Step(*model, pictures, of);
  // In training, too, the trunk is as in evaluation.
  EXPECT_TRUE(model->Features(pictures).equal(features));
  size_t i = 0, moved = 0;
  for (const NamedTensor& parameter : model->Parameters()) {
    const bool same = parameter.tensor.equal(before[i++]);
    EXPECT_EQ(same, !parameter.tensor.requires_grad()) << parameter.name;
    moved += same ? 0 : 1;
  }
  EXPECT_GE(moved, 2u);
  EXPECT_LT(moved, model->Parameters().size());
  for (const NamedTensor& buffer : model->Buffers()) {
    EXPECT_TRUE(buffer.tensor.equal(before[i++])) << buffer.name;
  }
  // The head alone gives the same logits from features.
  model->SetTraining(false);
  EXPECT_TRUE(
      model->Forward(features).logits.allclose(model->Forward(pictures).logits, 1e-5, 1e-6));
  // And everything trains again.
  model->Freeze(0);
  for (const NamedTensor& parameter : model->Parameters()) {
    EXPECT_TRUE(parameter.tensor.requires_grad()) << parameter.name;
  }
}

INSTANTIATE_TEST_SUITE_P(Models, Families,
                         ::testing::Values(Case{"cnn", 16, 0, 0.05}, Case{"resnet18", 32, 0, 0.02},
                                           Case{"resnet50", 32, 0, 0.0001},
                                           Case{"vgg11", 32, 0, 0.02},
                                           Case{"vgg11_bn", 32, 0, 0.005, true},
                                           Case{"inception_v3", 299, 0.4, 0.01},
                                           Case{"mobilenet_v2", 64, 0, 0.02}),
                         [](const auto& info) { return std::string(info.param.name); });

TEST(FreezeTest, LayersBeforeTheCountStayAndThoseAfterItTrain) {
  const Case of{"resnet18", 32, 0, 0.02};
  const auto model = MakeModel(Config(of), {3, 32, 32}, 1);
  model->Freeze(FrozenOperations(model->graph(), "2 layers"));
  std::vector<std::string> frozen;
  for (const NamedTensor& parameter : model->Parameters()) {
    if (!parameter.tensor.requires_grad()) frozen.push_back(parameter.name);
  }
  EXPECT_EQ(frozen, (std::vector<std::string>{"conv1.weight", "bn1.weight", "bn1.bias",
                                              "layer1.0.conv1.weight", "layer1.0.bn1.weight",
                                              "layer1.0.bn1.bias"}));
  Step(*model, Pictures(of, 3), of);
  for (const NamedTensor& buffer : model->Buffers()) {
    if (!buffer.name.ends_with("num_batches_tracked")) continue;
    const bool still = buffer.name.starts_with("bn1") || buffer.name.starts_with("layer1.0.bn1");
    EXPECT_EQ(buffer.tensor.item<int64_t>(), still ? 0 : 1) << buffer.name;
  }
}

// Two ranks of which only one runs forward: a norm that asked the other would wait for ever.
TEST(FreezeTest, FrozenNormsNeedNoOtherRank) {
  const Case of{"resnet18", 32, 0, 0.02};
  config::ModelConfig config = Config(of);
  config.sync_batch_norm = true;
  RunRanks(2, [&](Communicator& communicator) {
    const auto model = MakeModel(config, {3, 32, 32}, 1, &communicator);
    model->Freeze(FrozenOperations(model->graph(), "backbone"));
    if (communicator.rank() == 0) {
      EXPECT_TRUE(model->Forward(Pictures(of, 2)).logits.isfinite().all().item<bool>());
    }
  });
}

}  // namespace
}  // namespace lockstep::trainer
