// On a real GPU, with the host running ahead of it: the bits of every batch are the CPU ranks'.
#include <ATen/ops/equal.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/ones.h>
#include <gtest/gtest.h>

#include <memory>
#include <stdexcept>
#include <vector>

#include "tests/trainer/pictures/noise.h"
#include "trainer/batches/batches.h"
#include "trainer/device/device.h"

namespace lockstep::trainer {
namespace {

class DeviceFeedOnGpu : public ::testing::TestWithParam<config::Use> {
 protected:
  void SetUp() override {
    if (GpuCount() == 0) GTEST_SKIP() << "no GPU: " << WhyNoGpu();
    device_ = OpenGpu(0, {});
  }
  std::unique_ptr<Device> device_;
};

TEST_P(DeviceFeedOnGpu, EveryBatchHasTheHostsBitsWhileTheHostRunsAhead) {
  const Noise noise(3000, {3, 32, 32});
  BatchesOptions options = OptionsFor(256);
  options.augment = {.horizontal_flip = true, .crop_padding = 4};
  Batches host(noise, options);
  options.device = device_->torch();
  options.resident = GetParam();
  options.free_device_bytes = device_->FreeBytes();
  Batches batches(noise, options);
  EXPECT_EQ(batches.resident(), GetParam() != config::Use::kNever);

  // Milliseconds of work per step, enqueued in microseconds: a copy that does not wait for its turn
  // would overwrite what the steps before it have still to read.
  at::Tensor busy = at::ones({4096, 4096}, at::TensorOptions().device(device_->torch()));
  std::vector<at::Tensor> images, labels;
  for (int i = 0; i < 40; ++i) {
    const Batch batch = batches.Next();
    EXPECT_EQ(batch.images.device(), device_->torch());
    EXPECT_TRUE(batch.images.is_contiguous(at::MemoryFormat::ChannelsLast));
    busy = at::mm(busy, busy).mul_(1e-4);
    images.push_back(batch.images.clone());
    labels.push_back(batch.targets.values.clone());
  }
  for (size_t i = 0; i < images.size(); ++i) {
    const Batch expected = host.Next();
    ASSERT_TRUE(at::equal(images[i].cpu(), expected.images)) << "step " << i;
    ASSERT_TRUE(at::equal(labels[i].cpu(), expected.targets.values)) << "step " << i;
  }
}

TEST_P(DeviceFeedOnGpu, HeldOutPicturesToo) {
  const Noise noise(1000, {1, 20, 30});
  BatchesOptions options = OptionsFor(96);
  EvalBatches host(noise, options);
  options.device = device_->torch();
  options.resident = GetParam();
  EvalBatches batches(noise, options);
  for (int64_t i = 0; i < host.count(); ++i) {
    const Batch expected = host.Next();
    const Batch batch = batches.Next();
    ASSERT_TRUE(at::equal(batch.images.cpu(), expected.images));
    ASSERT_TRUE(at::equal(batch.targets.values.cpu(), expected.targets.values));
  }
}

TEST_P(DeviceFeedOnGpu, WhatTheHostFinishesAndMixesHasTheHostsBits) {
  const Noise noise(500, {3, 24, 24}, /*bgr=*/true);
  BatchesOptions options = OptionsFor(64);
  options.augment = {.horizontal_flip = true, .crop_padding = 2};
  options.augment.random_erasing = 0.5;
  options.augment.mixup = options.augment.cutmix = 1;
  Batches host(noise, options);
  options.device = device_->torch();
  options.resident = GetParam();
  options.free_device_bytes = device_->FreeBytes();
  if (GetParam() == config::Use::kAlways) {
    EXPECT_THROW(Batches(noise, options), std::invalid_argument);
    return;
  }
  Batches batches(noise, options);
  EXPECT_FALSE(batches.resident());
  for (int i = 0; i < 20; ++i) {
    const Batch expected = host.Next();
    const Batch batch = batches.Next();
    ASSERT_TRUE(at::equal(batch.images.cpu(), expected.images)) << "step " << i;
    ASSERT_TRUE(at::equal(batch.targets.values.cpu(), expected.targets.values));
    ASSERT_TRUE(at::equal(batch.targets.mixed_with.cpu(), expected.targets.mixed_with));
    ASSERT_TRUE(at::equal(batch.targets.share.cpu(), expected.targets.share));
  }
}

TEST_P(DeviceFeedOnGpu, FeaturesAndNumbersToLearnHaveTheHostsBits) {
  const NoiseFeatures features(300);
  const NumberedNoise numbered(300, {3, 8, 8});
  for (const Dataset* dataset :
       {static_cast<const Dataset*>(&features), static_cast<const Dataset*>(&numbered)}) {
    BatchesOptions options = OptionsFor(50);
    Batches host(*dataset, options);
    options.device = device_->torch();
    options.resident = GetParam();
    options.free_device_bytes = device_->FreeBytes();
    Batches batches(*dataset, options);
    for (int i = 0; i < 20; ++i) {
      const Batch expected = host.Next();
      const Batch batch = batches.Next();
      ASSERT_TRUE(at::equal(batch.images.cpu(), expected.images)) << "step " << i;
      ASSERT_TRUE(at::equal(batch.targets.values.cpu(), expected.targets.values));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Gpu, DeviceFeedOnGpu,
                         ::testing::Values(config::Use::kAuto, config::Use::kAlways,
                                           config::Use::kNever));

}  // namespace
}  // namespace lockstep::trainer
