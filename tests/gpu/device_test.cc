// What the step stands on, on a real GPU: order between streams, a captured step, dropout in it,
// the fused optimizers, batches made on the device.
#include "trainer/device/device.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <ATen/Context.h>
#include <ATen/ops/dropout.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>

#include <chrono>
#include <thread>

#include "tests/trainer/comm/run_ranks.h"
#include "tests/trainer/step/small_net.h"
#include "trainer/batches/batches.h"
#include "trainer/data/dataset.h"
#include "trainer/step/step_runner.h"
#include "trainer/step/step_timer.h"

namespace lockstep::trainer {
namespace {

class GpuTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (GpuCount() == 0) GTEST_SKIP() << "no GPU: " << WhyNoGpu();
    device_ = OpenGpu(0, {.deterministic = true});
    float_ = at::TensorOptions().dtype(at::kFloat).device(device_->torch());
  }
  void WaitForAll() {
    const EventHandle event = device_->NewEvent();
    device_->Record(event, device_->CurrentStream());
    while (!device_->Done(event)) std::this_thread::sleep_for(std::chrono::microseconds(50));
  }

  std::unique_ptr<Device> device_;
  at::TensorOptions float_;
};

TEST_F(GpuTest, SaysWhatItIs) {
  EXPECT_TRUE(device_->is_gpu());
  EXPECT_THAT(device_->Describe(), ::testing::HasSubstr("GiB (GPU 0)"));
  EXPECT_THAT(device_->Uuid(),
              ::testing::MatchesRegex("GPU-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"));
  EXPECT_GT(device_->FreeBytes(), 1 << 20);
}

TEST_F(GpuTest, AnEventIsDoneWhenWhatCameBeforeItIs) {
  const at::Tensor large = at::ones({4096, 4096}, float_);
  at::Tensor product = large;
  for (int i = 0; i < 20; ++i) product = product.matmul(large).mul_(1.0 / 4096);
  const EventHandle event = device_->NewEvent();
  EXPECT_TRUE(device_->Done(event)) << "never recorded";
  device_->Record(event, device_->CurrentStream());
  device_->StreamWait(device_->SideStream(), event);
  while (!device_->Done(event)) std::this_thread::yield();
  EXPECT_EQ(product[7][7].item<float>(), 1.0f);
}

TEST_F(GpuTest, ACapturedStepRunsAgainAndAgain) {
  const at::Tensor input = at::ones({64}, float_);
  const at::Tensor sum = at::zeros({64}, float_);
  const auto step = [&] { sum.add_(input.mul(2.0)); };
  step();
  const auto graph = device_->Capture(step);
  WaitForAll();
  EXPECT_EQ(sum[0].item<float>(), 2.0f) << "capturing runs nothing";
  for (int i = 1; i <= 5; ++i) {
    input.fill_(i);
    graph->Replay();
  }
  EXPECT_EQ(sum[63].item<float>(), 2.0f + 2 * (1 + 2 + 3 + 4 + 5));
}

TEST_F(GpuTest, DropoutOfACapturedStepFollowsTheSeed) {
  const at::Tensor input = at::ones({100'000}, float_);
  const at::Tensor output = at::zeros({100'000}, float_);
  const auto step = [&] { output.copy_(at::dropout(input, 0.5, /*train=*/true)); };
  const auto eager = [&](uint64_t seed) {
    at::manual_seed(seed);
    step();
    return output.cpu();
  };
  const at::Tensor one = eager(1);
  const at::Tensor two = eager(2);
  const auto graph = device_->Capture(step);
  const auto replayed = [&](uint64_t seed) {
    at::manual_seed(seed);
    graph->Replay();
    return output.cpu();
  };
  EXPECT_TRUE(replayed(2).equal(two));
  EXPECT_TRUE(replayed(1).equal(one));
  EXPECT_TRUE(replayed(1).equal(one)) << "the seed alone decides";
  EXPECT_FALSE(one.equal(two));
}

TEST_F(GpuTest, AStepThatWaitsForTheDeviceCannotBeCaptured) {
  const at::Tensor value = at::ones({1}, float_);
  EXPECT_THROW(device_->Capture([&] { (void)value.item<float>(); }), std::runtime_error);
  EXPECT_EQ(value.add(1.0).item<float>(), 2.0f) << "the device is usable afterwards";
  const auto graph = device_->Capture([&] { value.add_(1.0); });
  graph->Replay();
  EXPECT_EQ(value.item<float>(), 2.0f);
}

// A long forward and a short backward, told apart also where they are one graph; no step's times
// are another's.
TEST_F(GpuTest, ItsTimesTellThePhasesOfAStep) {
  const at::Tensor large = at::ones({4096, 4096}, float_);
  const at::Tensor small = at::ones({64, 64}, float_);
  std::vector<std::string> said;
  const auto say = [&](const std::string& line) { said.push_back(line); };
  StepTimer timer(*device_, say);
  StepRunner runner(*device_, timer, config::Use::kAlways, [](const std::string&) {});
  const auto body = [&] {
    timer.Mark(config::Phase::kForward);
    at::Tensor product = large;
    for (int i = 0; i < 4; ++i) product = product.matmul(large).mul_(1.0 / 4096);
    timer.Mark(config::Phase::kBackward);
    (void)small.matmul(small);
    timer.Mark(config::Phase::kAllreduceExposed);
    (void)small.matmul(small);
    timer.Mark(config::Phase::kOptimizer);
    (void)small.matmul(small);
  };
  for (int64_t step = 0; step < 12; ++step) {
    timer.Begin(step);
    runner.Run(body);
    WaitForAll();
    if (step < 3) continue;  // The first ones load kernels.
    const auto times = timer.Read(step - 1);
    ASSERT_TRUE(times) << step;
    const auto in = [&](config::Phase phase) {
      return times->phase_seconds[static_cast<size_t>(phase)];
    };
    EXPECT_GT(in(config::Phase::kForward), 4 * in(config::Phase::kBackward)) << step;
    EXPECT_GT(in(config::Phase::kBackward), 0) << step;
    EXPECT_GT(in(config::Phase::kOptimizer), 0) << step;
    EXPECT_GT(times->arrival_seconds, in(config::Phase::kForward)) << step;
    EXPECT_LT(times->arrival_seconds, 5) << step;
  }
  EXPECT_THAT(said, ::testing::IsEmpty());
}

TEST_F(GpuTest, FusedOptimizersEqualTheCpus) {
  for (const auto kind :
       {config::OptimizerKind::kSgd, config::OptimizerKind::kAdam, config::OptimizerKind::kAdamW}) {
    config::OptimizerConfig config;
    config.kind = kind;
    config.weight_decay = 0.01;
    const auto train = [&](at::Device where) {
      const at::Tensor gradient = at::full({1000}, 0.25, at::kFloat).to(where);
      const at::Tensor weight = at::ones({20, 50}).set_requires_grad(true);
      struct Alone : Communicator {
        explicit Alone(at::Device where) : where(where) {}
        int rank() const override { return 0; }
        int size() const override { return 1; }
        at::Tensor Allocate(int64_t n) override {
          return at::zeros({n}, at::TensorOptions().dtype(at::kFloat).device(where));
        }
        void AllReduce(const at::Tensor&) override {}
        void Wait() override {}
        void Broadcast(const at::Tensor&, int) override {}
        void Barrier() override {}
        std::string Describe() const override { return "nobody"; }
        void Abort(std::string_view) noexcept override {}
        at::Device where;
      } alone(where);
      GradientArena arena({{"weight", weight}}, {}, 1, alone);
      Optimizer optimizer(config, arena);
      const at::Tensor rate = at::full({}, 0.01, arena.parameters().options());
      for (int step = 0; step < 50; ++step) {
        arena.ZeroGradients();
        weight.mutable_grad().view(-1).copy_(gradient).mul_(step % 7 - 3);
        if (step == 20) weight.mutable_grad()[0][0] = NAN;
        arena.Reduce(1.0);
        arena.ClipNorm(2.0);
        optimizer.Step(rate, arena.found_nonfinite());
      }
      return arena.parameters().cpu();
    };
    EXPECT_LE(RelativeDifference(train(device_->torch()), train(at::kCPU)), 1e-5);
  }
}

TEST_F(GpuTest, BatchesOnTheDeviceHaveTheHostsBits) {
  config::RunConfig config;
  config.seed = 3;
  config.data.image_size = 24;
  config.data.train_samples = 500;
  const auto dataset = OpenDataset({.config = config, .split = Split::kTrain});
  BatchesOptions options;
  options.seed = 3;
  options.global_batch = 64;
  options.augment = {.horizontal_flip = true, .crop_padding = 3};
  for (const config::Use resident : {config::Use::kAlways, config::Use::kNever}) {
    Batches host(*dataset, options);
    BatchesOptions on_device = options;
    on_device.device = device_->torch();
    on_device.resident = resident;
    on_device.free_device_bytes = device_->FreeBytes();
    Batches gpu(*dataset, on_device);
    const void* place = nullptr;
    for (int step = 0; step < 20; ++step) {
      const Batch expected = host.Next();
      const Batch got = gpu.Next();
      EXPECT_TRUE(got.images.cpu().equal(expected.images)) << "step " << step;
      EXPECT_TRUE(got.targets.values.cpu().equal(expected.targets.values)) << "step " << step;
      if (place != nullptr) {
        EXPECT_EQ(got.images.data_ptr(), place) << "a graph's input stays";
      }
      place = got.images.data_ptr();
    }
  }
}

}  // namespace
}  // namespace lockstep::trainer
