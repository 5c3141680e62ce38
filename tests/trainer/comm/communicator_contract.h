// What every communicator must do, whatever is behind it. Each function is called on all ranks of a
// world at once, and takes what it needs of the others from known formulas, never from a second
// communicator.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>

#include <chrono>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "trainer/comm/communicator.h"

namespace lockstep::trainer::contract {

// Bounds in which the order of addition shows: terms of very different size.
inline double Term(int rank, int64_t i) {
  static constexpr double kScales[] = {1.0, 1e7, 1e-6, 3e3, -1e7};
  return kScales[(rank + i) % 5] * (1.0 + 0.001 * static_cast<double>(i % 997) + 0.37 * rank);
}

template <typename T>
void FillTerms(const at::Tensor& tensor, int rank, int64_t salt = 0) {
  auto* values = tensor.mutable_data_ptr<T>();
  for (int64_t i = 0; i < tensor.numel(); ++i) values[i] = static_cast<T>(Term(rank, i + salt));
}

template <typename T>
T ExpectedSum(int world_size, int64_t i) {
  T sum = static_cast<T>(Term(0, i));
  for (int rank = 1; rank < world_size; ++rank) sum += static_cast<T>(Term(rank, i));
  return sum;
}

// Index of the first element that is not the sum in rank order (bit for bit), or -1.
template <typename T>
int64_t FirstWrong(const at::Tensor& tensor, int world_size, int64_t salt = 0) {
  const auto* values = tensor.const_data_ptr<T>();
  for (int64_t i = 0; i < tensor.numel(); ++i) {
    const T expected = ExpectedSum<T>(world_size, i + salt);
    if (std::memcmp(&values[i], &expected, sizeof(T)) != 0) return i;
  }
  return -1;
}

// 0, 1, a prime, more than a staging window of every dtype and no multiple of anything.
inline constexpr int64_t kSizes[] = {0, 1, 7919, 300'007};

template <typename T>
void SumsAnyTensor(Communicator& communicator, at::ScalarType dtype) {
  for (const int64_t size : kSizes) {
    const at::Tensor tensor = at::empty({size}, dtype);
    FillTerms<T>(tensor, communicator.rank());
    communicator.AllReduce(tensor);
    communicator.Wait();
    EXPECT_EQ(FirstWrong<T>(tensor, communicator.size()), -1)
        << size << " elements of " << c10::toString(dtype);
  }
}

inline void SumsAllocatedMemory(Communicator& communicator) {
  for (const int64_t size : kSizes) {
    const at::Tensor memory = communicator.Allocate(size);
    ASSERT_EQ(memory.numel(), size);
    EXPECT_EQ(memory.count_nonzero().item<int64_t>(), 0) << "fresh memory is zero";
    FillTerms<float>(memory, communicator.rank());
    communicator.AllReduce(memory);
    communicator.Wait();
    EXPECT_EQ(FirstWrong<float>(memory, communicator.size()), -1) << size << " elements";
    if (size < 100) continue;
    // A slice that begins and ends inside a cache line; its neighbours must stay as they are.
    memory.fill_(5.0f);
    const at::Tensor slice = memory.narrow(0, 13, size - 30);
    FillTerms<float>(slice, communicator.rank(), 13);
    communicator.AllReduce(slice);
    communicator.Wait();
    EXPECT_EQ(FirstWrong<float>(slice, communicator.size(), 13), -1);
    EXPECT_EQ(memory.narrow(0, 0, 13).eq(5.0f).sum().item<int64_t>(), 13);
    EXPECT_EQ(memory.narrow(0, size - 17, 17).eq(5.0f).sum().item<int64_t>(), 17);
  }
}

inline void BroadcastsFromEveryRoot(Communicator& communicator) {
  for (int root = 0; root < communicator.size(); ++root) {
    for (const auto dtype : {at::kByte, at::kBool, at::kLong, at::kBFloat16, at::kDouble}) {
      for (const int64_t size : kSizes) {
        const int64_t value = dtype == at::kBool ? 1 : 3 + root;
        const at::Tensor tensor =
            communicator.rank() == root ? at::full({size}, value, dtype) : at::zeros({size}, dtype);
        communicator.Broadcast(tensor, root);
        EXPECT_EQ(tensor.eq(value).sum().item<int64_t>(), size)
            << size << " of " << c10::toString(dtype) << " from rank " << root;
      }
    }
  }
}

inline void RefusesWhatItCannotSum(Communicator& communicator) {
  EXPECT_THROW(communicator.AllReduce(at::zeros({3}, at::kInt)), std::invalid_argument);
  EXPECT_THROW(communicator.AllReduce(at::zeros({4, 4}).t().narrow(0, 0, 2)),
               std::invalid_argument);
  // And goes on: nothing was begun.
  communicator.Barrier();
}

inline void RepeatsTheSameBits(Communicator& communicator) {
  at::Tensor first;
  for (int repeat = 0; repeat < 10; ++repeat) {
    const at::Tensor tensor = at::empty({50'021}, at::kFloat);
    FillTerms<float>(tensor, communicator.rank(), 77);
    communicator.AllReduce(tensor);
    communicator.Wait();
    if (repeat == 0) first = tensor;
    EXPECT_TRUE(first.equal(tensor)) << "repeat " << repeat;
  }
}

// The text of the CommunicatorLost that `body` throws; empty when it throws none.
inline std::string LostText(const std::function<void()>& body) {
  try {
    body();
  } catch (const CommunicatorLost& lost) {
    return lost.what();
  }
  return "";
}

// The last rank never comes: the others say so, and it finds out when it comes too late. Needs a
// deadline of `deadline` and two ranks. `wait_for_others` lets the last rank wait without the
// communicator.
inline void NamesTheRankThatNeverArrives(Communicator& communicator,
                                         std::chrono::milliseconds deadline,
                                         const std::function<void()>& wait_for_others) {
  const int last = communicator.size() - 1;
  const at::Tensor tensor = at::zeros({12}, at::kFloat);
  communicator.Barrier();
  if (communicator.rank() == last) {
    wait_for_others();
    EXPECT_NE(LostText([&] { communicator.AllReduce(tensor); }), "");
    return;
  }
  const auto start = std::chrono::steady_clock::now();
  const std::string text = LostText([&] { communicator.AllReduce(tensor); });
  const auto waited = std::chrono::steady_clock::now() - start;
  EXPECT_THAT(text, ::testing::HasSubstr("all-reduce of 12 Float"));
  EXPECT_THAT(text, ::testing::HasSubstr("rank " + std::to_string(last) + " of"));
  EXPECT_GE(waited, deadline * 9 / 10);
  EXPECT_LT(waited, deadline + std::chrono::seconds(5));
  EXPECT_NE(LostText([&] { communicator.Barrier(); }), "") << "it stays lost";
  wait_for_others();
}

// The last rank aborts where the others wait for it, with a deadline far away.
inline void AbortWakesEveryone(Communicator& communicator) {
  const auto start = std::chrono::steady_clock::now();
  if (communicator.rank() == communicator.size() - 1) {
    communicator.Abort("the disk burns");
    communicator.Abort("a second reason");
  }
  const at::Tensor tensor = at::zeros({12}, at::kFloat);
  EXPECT_EQ(LostText([&] { communicator.AllReduce(tensor); }), "the disk burns");
  EXPECT_EQ(LostText([&] { communicator.Barrier(); }), "the disk burns");
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(10));
}

inline void TellsRanksThatWentDifferentWays(Communicator& communicator) {
  const int64_t size = communicator.rank() == 0 ? 3 : 4;
  const std::string text = LostText([&] { communicator.AllReduce(at::zeros({size}, at::kFloat)); });
  EXPECT_THAT(text, ::testing::HasSubstr("went different ways"));
  EXPECT_THAT(text, ::testing::HasSubstr("all-reduce of 3 Float"));
  EXPECT_THAT(text, ::testing::HasSubstr("all-reduce of 4 Float"));
}

}  // namespace lockstep::trainer::contract
