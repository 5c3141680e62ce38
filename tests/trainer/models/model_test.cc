// The cnn model and what holds for every model: names, initial values from the seed, modes,
// refusals.
#include "trainer/models/model.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/zeros_like.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <stdexcept>
#include <string>
#include <vector>

namespace lockstep::trainer {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

at::Tensor Pictures(int64_t n, const InputShape& input) {
  const int64_t count = n * input.channels * input.height * input.width;
  return at::arange(count)
      .to(at::kFloat)
      .mul(0.37)
      .sin()
      .view({n, input.channels, input.height, input.width});
}

config::ModelConfig TwoBlocks() {
  config::ModelConfig config;
  config.name = "cnn";
  config.num_classes = 10;
  config.cnn.blocks = {
      {.filters = 8, .kernel = 3, .pool = config::Pool::kMax, .batch_norm = true},
      {.filters = 12, .kernel = 5, .pool = config::Pool::kAverage, .batch_norm = false}};
  config.cnn.dense = {20};
  return config;
}

std::vector<std::string> Names(const NamedTensors& tensors) {
  std::vector<std::string> names;
  for (const NamedTensor& tensor : tensors) names.push_back(tensor.name);
  return names;
}

int64_t Count(const NamedTensors& tensors) {
  int64_t count = 0;
  for (const NamedTensor& tensor : tensors) count += tensor.tensor.numel();
  return count;
}

void SeedDropout(uint64_t seed) {
  at::Generator generator = at::detail::getDefaultCPUGenerator();
  generator.set_current_seed(seed);
}

std::string Refusal(const config::ModelConfig& config, const InputShape& input) {
  try {
    MakeModel(config, input, 1);
  } catch (const std::invalid_argument& error) {
    return error.what();
  }
  return "accepted";
}

TEST(CnnTest, NamesAreStableAndInForwardOrder) {
  const auto model = MakeModel(TwoBlocks(), {3, 32, 32}, 1);
  EXPECT_THAT(Names(model->Parameters()),
              ElementsAre("blocks.0.conv.weight", "blocks.0.norm.weight", "blocks.0.norm.bias",
                          "blocks.1.conv.weight", "blocks.1.conv.bias", "dense.0.weight",
                          "dense.0.bias", "classifier.weight", "classifier.bias"));
  EXPECT_THAT(Names(model->Buffers()),
              ElementsAre("blocks.0.norm.running_mean", "blocks.0.norm.running_var",
                          "blocks.0.norm.num_batches_tracked"));
}

TEST(CnnTest, ParameterCountFollowsTheConfig) {
  // Conv 8x3x3x3, norm 2x8, conv 12x8x5x5 + 12, dense (12x8x8)x20 + 20, classifier 20x10 + 10.
  const auto model = MakeModel(TwoBlocks(), {3, 32, 32}, 1);
  EXPECT_EQ(Count(model->Parameters()), 216 + 16 + 2412 + 15380 + 210);

  config::ModelConfig pooled = TwoBlocks();
  pooled.cnn.global_pool = true;
  pooled.cnn.dense.clear();
  EXPECT_EQ(Count(MakeModel(pooled, {3, 32, 32}, 1)->Parameters()), 216 + 16 + 2412 + 130);
}

TEST(CnnTest, WithoutBlocksItIsALinearModel) {
  config::ModelConfig config;
  config.num_classes = 4;
  const auto model = MakeModel(config, {1, 6, 5}, 1);
  EXPECT_EQ(Count(model->Parameters()), 30 * 4 + 4);
  EXPECT_THAT(model->Forward(Pictures(2, {1, 6, 5})).logits.sizes(), ElementsAre(2, 4));
}

TEST(CnnTest, EveryPoolActivationAndStrideGivesLogitsOfTheRightShape) {
  for (const auto pool : {config::Pool::kNone, config::Pool::kMax, config::Pool::kAverage}) {
    for (const auto activation :
         {config::Activation::kRelu, config::Activation::kLeakyRelu, config::Activation::kGelu,
          config::Activation::kSilu, config::Activation::kTanh}) {
      for (const bool global_pool : {false, true}) {
        config::ModelConfig config = TwoBlocks();
        config.cnn.blocks[0].pool = pool;
        config.cnn.blocks[1].stride = 2;
        config.cnn.activation = activation;
        config.cnn.global_pool = global_pool;
        const InputShape input{1, 21, 18};
        const auto model = MakeModel(config, input, 3);
        EXPECT_THAT(model->Forward(Pictures(2, input)).logits.sizes(), ElementsAre(2, 10));
      }
    }
  }
}

TEST(CnnTest, ActivationsDiffer) {
  std::vector<at::Tensor> outputs;
  for (const auto activation :
       {config::Activation::kRelu, config::Activation::kLeakyRelu, config::Activation::kGelu,
        config::Activation::kSilu, config::Activation::kTanh}) {
    config::ModelConfig config = TwoBlocks();
    config.cnn.activation = activation;
    outputs.push_back(MakeModel(config, {3, 32, 32}, 1)->Forward(Pictures(2, {3, 32, 32})).logits);
    for (size_t i = 0; i + 1 < outputs.size(); ++i) EXPECT_FALSE(outputs[i].equal(outputs.back()));
  }
}

TEST(CnnTest, ChannelsLastInputGivesTheSameLogits) {
  const auto model = MakeModel(TwoBlocks(), {3, 32, 32}, 1);
  model->SetTraining(false);
  const at::Tensor images = Pictures(4, {3, 32, 32});
  const at::Tensor plain = model->Forward(images).logits;
  const at::Tensor last = model->Forward(images.contiguous(at::MemoryFormat::ChannelsLast)).logits;
  EXPECT_TRUE(plain.allclose(last, 1e-4, 1e-5));
}

TEST(CnnTest, BatchNormLearnsStatisticsOnlyInTraining) {
  const auto model = MakeModel(TwoBlocks(), {3, 32, 32}, 1);
  const at::Tensor mean = model->Buffers()[0].tensor;
  const at::Tensor tracked = model->Buffers()[2].tensor;
  EXPECT_EQ(tracked.scalar_type(), at::kLong);

  model->SetTraining(false);
  model->Forward(Pictures(4, {3, 32, 32}));
  EXPECT_EQ(mean.abs().sum().item<float>(), 0.0f);
  EXPECT_EQ(tracked.item<int64_t>(), 0);

  model->SetTraining(true);
  model->Forward(Pictures(4, {3, 32, 32}));
  EXPECT_GT(mean.abs().sum().item<float>(), 0.0f);
  EXPECT_EQ(tracked.item<int64_t>(), 1);
}

TEST(CnnTest, DropoutIsDrawnFromTheDefaultGeneratorAndOnlyInTraining) {
  config::ModelConfig config = TwoBlocks();
  config.cnn.dropout = 0.5;
  config.cnn.blocks[0].batch_norm = false;
  config.cnn.blocks[1].dropout = 0.25;
  const auto model = MakeModel(config, {3, 32, 32}, 1);
  const at::Tensor images = Pictures(4, {3, 32, 32});
  const auto seeded = [&](uint64_t seed) {
    SeedDropout(seed);
    return model->Forward(images).logits;
  };
  EXPECT_TRUE(seeded(5).equal(seeded(5)));
  EXPECT_FALSE(seeded(5).equal(seeded(6)));
  model->SetTraining(false);
  EXPECT_TRUE(seeded(5).equal(seeded(6)));
}

TEST(ModelTest, InitialValuesAreAFunctionOfTheSeed) {
  for (const char* name : {"cnn", "resnet18"}) {
    config::ModelConfig config = TwoBlocks();
    config.name = name;
    const NamedTensors first = MakeModel(config, {3, 32, 32}, 7)->Parameters();
    // What was drawn from the process-wide generator before must not matter.
    at::rand({1000});
    const NamedTensors same = MakeModel(config, {3, 32, 32}, 7)->Parameters();
    const NamedTensors other = MakeModel(config, {3, 32, 32}, 8)->Parameters();
    ASSERT_EQ(first.size(), same.size());
    for (size_t i = 0; i < first.size(); ++i) {
      EXPECT_TRUE(first[i].tensor.equal(same[i].tensor)) << first[i].name;
    }
    EXPECT_FALSE(first[0].tensor.equal(other[0].tensor));
  }
}

TEST(ModelTest, MakingAModelLeavesTheDefaultGeneratorAlone) {
  SeedDropout(11);
  const at::Tensor expected = at::rand({8});
  SeedDropout(11);
  MakeModel(TwoBlocks(), {3, 32, 32}, 99);
  EXPECT_TRUE(at::rand({8}).equal(expected));
}

TEST(ModelTest, EveryParameterGetsAGradientAndNoBufferDoes) {
  for (const char* name : {"cnn", "resnet18"}) {
    config::ModelConfig config = TwoBlocks();
    config.name = name;
    const auto model = MakeModel(config, {3, 32, 32}, 7);
    // Weighted, because the plain sum of a batch-normalised signal has no gradient.
    const at::Tensor logits = model->Forward(Pictures(4, {3, 32, 32})).logits;
    logits.mul(at::arange(logits.numel()).view_as(logits)).sum().backward();
    for (const NamedTensor& parameter : model->Parameters()) {
      EXPECT_TRUE(parameter.tensor.is_leaf()) << parameter.name;
      ASSERT_TRUE(parameter.tensor.grad().defined()) << parameter.name;
      EXPECT_GT(parameter.tensor.grad().abs().sum().item<float>(), 0.0f) << parameter.name;
    }
    for (const NamedTensor& buffer : model->Buffers()) {
      EXPECT_FALSE(buffer.tensor.requires_grad()) << buffer.name;
    }
  }
}

TEST(ModelTest, ForwardFollowsParametersWhoseStorageWasMoved) {
  const auto model = MakeModel(TwoBlocks(), {3, 32, 32}, 1);
  model->SetTraining(false);
  for (const NamedTensor& parameter : model->Parameters()) {
    at::NoGradGuard no_grad;
    at::Tensor tensor = parameter.tensor;
    tensor.set_data(at::zeros_like(tensor));
  }
  EXPECT_EQ(model->Forward(Pictures(1, {3, 32, 32})).logits.abs().sum().item<float>(), 0.0f);
}

TEST(ModelTest, RefusesPicturesTooSmallForThePools) {
  config::ModelConfig config = TwoBlocks();
  config.cnn.blocks.assign(4, {.filters = 4, .pool = config::Pool::kMax});
  EXPECT_EQ(Refusal(config, {3, 16, 16}), "accepted");
  EXPECT_THAT(Refusal(config, {3, 15, 16}),
              AllOf(HasSubstr("model.cnn.blocks[3]"), HasSubstr("2x2 pool"), HasSubstr("1x2"),
                    HasSubstr("data.image_size")));
}

TEST(ModelTest, RefusesAKernelLargerThanWhatIsLeft) {
  config::ModelConfig config = TwoBlocks();
  config.cnn.blocks = {{.filters = 4, .kernel = 7, .padding = 1}};
  EXPECT_EQ(Refusal(config, {3, 5, 5}), "accepted");
  EXPECT_THAT(Refusal(config, {3, 5, 4}),
              AllOf(HasSubstr("model.cnn.blocks[0]"), HasSubstr("7x7 kernel")));
}

TEST(ModelTest, RefusesUnknownNamesAndOpenClassCounts) {
  config::ModelConfig config = TwoBlocks();
  config.name = "resnet19";
  EXPECT_THAT(Refusal(config, {3, 32, 32}),
              AllOf(HasSubstr("unknown model 'resnet19'"), HasSubstr("cnn, resnet18")));
  config = TwoBlocks();
  config.num_classes = 0;
  EXPECT_THAT(Refusal(config, {3, 32, 32}), HasSubstr("model.num_classes"));
  EXPECT_THAT(Refusal(TwoBlocks(), {0, 32, 32}), HasSubstr("0 channels"));
}

}  // namespace
}  // namespace lockstep::trainer
