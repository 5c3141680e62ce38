#include "trainer/host_memory.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <c10/core/CPUAllocator.h>
#include <c10/util/Exception.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

namespace lockstep::trainer {
namespace {

constexpr int64_t kMegabyte = 1 << 20;

class HostMemoryTest : public testing::Test {
 protected:
  static void SetUpTestSuite() { KeepFreedHostMemory(); }
};

at::Tensor Bytes(int64_t bytes) {
  return at::empty({bytes}, at::kByte);
}

TEST_F(HostMemoryTest, AFreedBlockIsTheNextOneOfItsSize) {
  const void* first = Bytes(5 * kMegabyte).data_ptr();
  const int64_t kept = GetHostMemoryUse().kept_bytes;
  EXPECT_GE(kept, 5 * kMegabyte);
  const at::Tensor second = Bytes(5 * kMegabyte);
  EXPECT_EQ(second.data_ptr(), first);
  EXPECT_LE(GetHostMemoryUse().kept_bytes, kept - 5 * kMegabyte);
}

TEST_F(HostMemoryTest, LiveBlocksNeverOverlap) {
  std::vector<at::Tensor> live;
  // Sizes around the limits: the smallest kept, a page, a huge page.
  for (const int64_t bytes : {1, 63, 64, 32704, 32768, 32769, 65536, 2097088, 2097152, 2097153}) {
    for (int copy = 0; copy < 3; ++copy) {
      live.push_back(Bytes(bytes).fill_(static_cast<int>(live.size())));
      if (copy == 1) live.pop_back();
    }
  }
  for (size_t i = 0; i < live.size(); ++i) {
    const auto value = live[i].data_ptr<uint8_t>()[0];
    EXPECT_TRUE(live[i].eq(value).all().item<bool>()) << live[i].numel();
    EXPECT_EQ(reinterpret_cast<uintptr_t>(live[i].data_ptr()) % 64, 0u);
  }
}

TEST_F(HostMemoryTest, KeepsNoMoreThanWasOnceInUse) {
  for (int round = 1; round <= 40; ++round) {
    // Another size each time: nothing is ever used again.
    const at::Tensor tensor = Bytes(round * kMegabyte);
    const HostMemoryUse use = GetHostMemoryUse();
    EXPECT_LE(use.kept_bytes, use.peak_bytes);
    EXPECT_GE(use.peak_bytes, round * kMegabyte);
  }
  const HostMemoryUse use = GetHostMemoryUse();
  EXPECT_LE(use.kept_bytes, use.peak_bytes);
}

TEST_F(HostMemoryTest, BlocksMayBeFreedByAnotherThread) {
  std::vector<std::jthread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([t] {
      for (int i = 0; i < 200; ++i) {
        at::Tensor tensor = at::full({50'000}, t, at::kInt);
        std::jthread([moved = std::move(tensor), t] {
          EXPECT_TRUE(moved.eq(t).all().item<bool>());
        }).join();
      }
    });
  }
  threads.clear();
  const HostMemoryUse use = GetHostMemoryUse();
  EXPECT_GE(use.in_use_bytes, 0);
  EXPECT_LE(use.kept_bytes, use.peak_bytes);
}

TEST_F(HostMemoryTest, RawMemoryIsOfTheSameKind) {
  // oneDNN's buffers come this way.
  c10::Allocator* allocator = c10::GetCPUAllocator();
  void* data = allocator->raw_allocate(3 * kMegabyte);
  std::memset(data, 1, 3 * kMegabyte);
  const int64_t in_use = GetHostMemoryUse().in_use_bytes;
  allocator->raw_deallocate(data);
  EXPECT_LE(GetHostMemoryUse().in_use_bytes, in_use - 3 * kMegabyte);
}

TEST_F(HostMemoryTest, AnEmptyTensorTakesNothing) {
  const int64_t in_use = GetHostMemoryUse().in_use_bytes;
  const at::Tensor empty = Bytes(0);
  EXPECT_EQ(empty.numel(), 0);
  EXPECT_EQ(GetHostMemoryUse().in_use_bytes, in_use);
}

TEST_F(HostMemoryTest, MoreThanThereIsSaysSo) {
  try {
    Bytes(int64_t{1} << 60);
    FAIL() << "got an exabyte";
  } catch (const c10::Error& error) {
    // The words main.cc knows a shortage of memory by.
    EXPECT_THAT(std::string(error.what_without_backtrace()), testing::HasSubstr("allocate memory"));
  }
}

}  // namespace
}  // namespace lockstep::trainer
