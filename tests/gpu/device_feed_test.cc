// On a real GPU, with the host running ahead of it: the bits of every batch are the CPU ranks'.
#include <ATen/ops/equal.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/ones.h>
#include <gtest/gtest.h>

#include <memory>
#include <vector>

#include "tests/trainer/data/noise.h"
#include "trainer/data/batches.h"
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
  BatchesOptions options = OptionsFor(noise, 256);
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
    labels.push_back(batch.labels.clone());
  }
  for (size_t i = 0; i < images.size(); ++i) {
    const Batch expected = host.Next();
    ASSERT_TRUE(at::equal(images[i].cpu(), expected.images)) << "step " << i;
    ASSERT_TRUE(at::equal(labels[i].cpu(), expected.labels)) << "step " << i;
  }
}

TEST_P(DeviceFeedOnGpu, HeldOutPicturesToo) {
  const Noise noise(1000, {1, 20, 30});
  BatchesOptions options = OptionsFor(noise, 96);
  EvalBatches host(noise, options);
  options.device = device_->torch();
  options.resident = GetParam();
  EvalBatches batches(noise, options);
  for (int64_t i = 0; i < host.count(); ++i) {
    const Batch expected = host.Next();
    const Batch batch = batches.Next();
    ASSERT_TRUE(at::equal(batch.images.cpu(), expected.images));
    ASSERT_TRUE(at::equal(batch.labels.cpu(), expected.labels));
  }
}

INSTANTIATE_TEST_SUITE_P(Gpu, DeviceFeedOnGpu,
                         ::testing::Values(config::Use::kAuto, config::Use::kAlways,
                                           config::Use::kNever));

}  // namespace
}  // namespace lockstep::trainer
