// On a real GPU: a checkpoint holds what the tensors held when Save() was called, although the step
// loop goes on writing to them at once.
#include <ATen/ops/full.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <cstring>
#include <memory>
#include <optional>

#include "absl/strings/str_cat.h"
#include "tests/trainer/checkpoint/checkpoint_fixture.h"
#include "trainer/checkpoint/snapshot.h"
#include "trainer/device/device.h"

namespace lockstep::trainer {
namespace {

class SnapshotOnGpu : public ::testing::Test {
 protected:
  void SetUp() override {
    if (GpuCount() == 0) GTEST_SKIP() << "no GPU: " << WhyNoGpu();
    device_ = OpenGpu(0, {});
    ASSERT_TRUE(store_.Open().ok());
  }
  std::unique_ptr<Device> device_;
  TempFolder temp_;
  CheckpointStore store_{temp_.path() / "checkpoints", 1, {.keep_last = 9, .keep_best = 0}};
};

TEST_F(SnapshotOnGpu, HoldsWhatWasThereWhenItWasTaken) {
  const auto options = at::TensorOptions().device(device_->torch());
  const at::Tensor flat = at::zeros({23'400'000}, options);
  const at::Tensor on_host = at::zeros({7});
  NamedTensors weights, state;
  for (int64_t i = 0; i < 60; ++i) {
    weights.push_back({absl::StrCat("w", i), flat.narrow(0, i * 195'000, 195'000)});
    state.push_back({absl::StrCat("m", i), flat.narrow(0, (60 + i) * 195'000, 195'000)});
  }
  weights.push_back({"nhwc", flat.as_strided({4, 3, 5, 5}, {75, 1, 15, 3}, 32)});
  weights.push_back({"host", on_host});
  CheckpointWriter writer(store_);
  writer.Prepare(weights, state);
  at::Tensor busy = at::ones({4096, 4096}, options);
  for (int64_t step = 1; step <= 4; ++step) {
    // The fill waits in the stream when Save() is called, and the next one is put behind it.
    for (int i = 0; i < 20; ++i) busy = at::mm(busy, busy).mul_(1e-4);
    flat.fill_(static_cast<double>(step));
    on_host.fill_(static_cast<double>(step));
    const double stall = writer.Save(step, weights, state, "{}", std::nullopt);
    flat.fill_(-1.0);
    on_host.fill_(-1.0);
    std::printf("a save of %.1f MB from the GPU held up its caller for %.2f ms\n",
                1e-6 * static_cast<double>(flat.nbytes()), 1e3 * stall);
    ASSERT_TRUE(writer.Wait().status.ok());
    const auto loaded = store_.Load(store_.PathOf(step));
    ASSERT_TRUE(loaded.ok()) << loaded.status();
    for (const SafetensorsView* file : {&loaded->weights, &loaded->optimizer}) {
      for (const TensorBytes& tensor : file->tensors) {
        for (size_t i = 0; i < tensor.bytes.size(); i += 4) {
          float value = 0;
          std::memcpy(&value, tensor.bytes.data() + i, 4);
          ASSERT_EQ(value, static_cast<float>(step)) << tensor.name;
        }
      }
    }
  }
}

}  // namespace
}  // namespace lockstep::trainer
