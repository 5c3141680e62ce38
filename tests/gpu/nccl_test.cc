// Two ranks and one GPU: NCCL itself, for correctness only. It takes one GPU for several ranks when
// each says it is another host, and then talks over sockets.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <ATen/ops/arange.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>

#include <cstdlib>
#include <string>

#include "trainer/comm/world.h"
#include "trainer/device/device.h"

namespace lockstep::trainer {
namespace {

World* world = nullptr;

class GpuNcclTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (GpuCount() == 0) GTEST_SKIP() << "no GPU: " << WhyNoGpu();
    device_ = OpenGpu(world->local_rank() % GpuCount(), {});
    try {
      communicator_ = world->MakeCommunicator(*device_, std::chrono::seconds(30));
    } catch (const std::exception& error) {
      if (GpuCount() >= world->size()) throw;
      GTEST_SKIP() << "NCCL does not put two ranks on one GPU here: " << error.what();
    }
  }
  void Await() {
    const EventHandle event = device_->NewEvent();
    device_->Record(event, device_->CurrentStream());
    communicator_->Await(event);
  }
  at::Tensor Mine(int64_t size, at::ScalarType type) const {
    const auto options = at::TensorOptions().dtype(type).device(device_->torch());
    return at::arange(size, options).add_(world->rank());
  }

  std::unique_ptr<Device> device_;
  std::unique_ptr<Communicator> communicator_;
};

TEST_F(GpuNcclTest, SumsOfEverySizeAndType) {
  for (const auto type : {at::kFloat, at::kDouble, at::kLong}) {
    for (const int64_t size : {1, 7919, 300'007}) {
      const at::Tensor tensor = Mine(size, type);
      communicator_->AllReduce(tensor);
      communicator_->Wait();
      const at::Tensor expected = at::arange(size, tensor.options()).mul_(2).add_(1);
      EXPECT_TRUE(tensor.equal(expected)) << size << " of " << c10::toString(type);
    }
  }
}

TEST_F(GpuNcclTest, BucketsOfOneRegionAreSummedInPlace) {
  const at::Tensor region = communicator_->Allocate(1'000'000);
  region.fill_(world->rank() + 1);
  for (int64_t begin = 0; begin < 1'000'000; begin += 250'000) {
    communicator_->AllReduce(region.narrow(0, begin, 250'000));
  }
  communicator_->Wait();
  EXPECT_TRUE(region.eq(3).all().item<bool>());
  Await();
}

TEST_F(GpuNcclTest, BroadcastsFromEachRank) {
  for (int root = 0; root < world->size(); ++root) {
    const at::Tensor tensor = at::full(
        {1234}, world->rank(), at::TensorOptions().dtype(at::kByte).device(device_->torch()));
    communicator_->Broadcast(tensor, root);
    EXPECT_TRUE(tensor.eq(root).all().item<bool>());
  }
}

TEST_F(GpuNcclTest, SumsWithinACapturedStep) {
  const at::Tensor region = communicator_->Allocate(10'000);
  const at::Tensor input = at::full({10'000}, 1.0, region.options());
  const auto step = [&] {
    region.copy_(input);
    communicator_->AllReduce(region.narrow(0, 0, 6'000));
    communicator_->AllReduce(region.narrow(0, 6'000, 4'000));
    communicator_->Wait();
    region.mul_(10.0);
  };
  step();
  Await();
  const auto graph = device_->Capture(step);
  for (int i = 1; i <= 3; ++i) {
    input.fill_(i + world->rank());
    graph->Replay();
    Await();
    EXPECT_TRUE(region.eq(10.0 * (2 * i + 1)).all().item<bool>()) << "replay " << i;
  }
}

TEST_F(GpuNcclTest, TensorsOfTheHostGoTheHostsWay) {
  const at::Tensor tensor = at::full({3}, 1.0, at::kDouble);
  communicator_->AllReduce(tensor);
  EXPECT_EQ(tensor.sum().item<double>(), 3.0 * world->size());
}

// Last: the communicators are lost afterwards.
TEST_F(GpuNcclTest, ZARankThatNeverJoinsEndsTheOthersAtTheDeadline) {
  communicator_ = nullptr;
  communicator_ = world->MakeCommunicator(*device_, std::chrono::seconds(2));
  if (world->rank() == 1) {
    // Another collective than rank 0's, whose abort reaches it here.
    EXPECT_THROW(communicator_->Barrier(), CommunicatorLost);
    return;
  }
  const at::Tensor tensor = Mine(100, at::kFloat);
  communicator_->AllReduce(tensor);
  communicator_->Wait();
  try {
    Await();
    ADD_FAILURE() << "rank 1 never joined";
  } catch (const CommunicatorLost& lost) {
    EXPECT_THAT(lost.what(), ::testing::HasSubstr("have not ended after 2.0 s"));
    EXPECT_THAT(communicator_->History(), ::testing::HasSubstr("all-reduce of 100 Float"));
  }
}

}  // namespace
}  // namespace lockstep::trainer

int main(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  lockstep::trainer::World world(&argc, &argv);
  lockstep::trainer::world = &world;
  if (lockstep::trainer::GpuCount() < world.size()) {
    setenv("NCCL_HOSTID", std::to_string(world.rank()).c_str(), /*overwrite=*/1);
  }
  const int failed = RUN_ALL_TESTS();
  // A lost communicator's peers may be gone; MPI_Finalize would wait for them.
  if (failed != 0) world.Abort(failed);
  return failed;
}
