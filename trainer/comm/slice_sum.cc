#include "trainer/comm/slice_sum.h"

#include <algorithm>
#include <cstring>

namespace lockstep::trainer {
namespace {

// Elements summed at once. The partial sums of more than two ranks stay in the first-level cache:
// 2048 doubles are 16 KiB.
constexpr int64_t kBlock = 2048;

// Two ranks are the common case and need no partial sums: one pass, two loads, two stores.
template <typename T>
void SumPair(T* __restrict a, T* __restrict b, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    const T sum = a[i] + b[i];
    a[i] = sum;
    b[i] = sum;
  }
}

template <typename T>
void Add(T* __restrict sum, const T* __restrict term, int64_t n) {
  for (int64_t i = 0; i < n; ++i) sum[i] += term[i];
}

template <typename T>
void AddPair(T* __restrict sum, const T* __restrict a, const T* __restrict b, int64_t n) {
  for (int64_t i = 0; i < n; ++i) sum[i] = a[i] + b[i];
}

}  // namespace

template <typename T>
void SumToAll(const std::vector<T*>& buffers, int64_t begin, int64_t end) {
  if (begin >= end || buffers.size() < 2) return;
  if (buffers.size() == 2) {
    SumPair(buffers[0] + begin, buffers[1] + begin, end - begin);
    return;
  }
  T sum[kBlock];
  for (int64_t at = begin; at < end; at += kBlock) {
    const int64_t n = std::min(kBlock, end - at);
    AddPair(sum, buffers[0] + at, buffers[1] + at, n);
    for (size_t r = 2; r < buffers.size(); ++r) Add(sum, buffers[r] + at, n);
    for (T* buffer : buffers) std::memcpy(buffer + at, sum, n * sizeof(T));
  }
}

template <typename T>
void SumToFirst(const std::vector<T*>& buffers, int64_t begin, int64_t end) {
  for (int64_t at = begin; at < end; at += kBlock) {
    const int64_t n = std::min(kBlock, end - at);
    for (size_t r = 1; r < buffers.size(); ++r) Add(buffers[0] + at, buffers[r] + at, n);
  }
}

SliceRange SliceOf(int64_t count, int index, int parts) {
  const int64_t lines = (count + 15) / 16;
  return {.begin = std::min(count, lines * index / parts * 16),
          .end = std::min(count, lines * (index + 1) / parts * 16)};
}

template void SumToAll<float>(const std::vector<float*>&, int64_t, int64_t);
template void SumToAll<double>(const std::vector<double*>&, int64_t, int64_t);
template void SumToAll<int64_t>(const std::vector<int64_t*>&, int64_t, int64_t);
template void SumToFirst<float>(const std::vector<float*>&, int64_t, int64_t);
template void SumToFirst<double>(const std::vector<double*>&, int64_t, int64_t);
template void SumToFirst<int64_t>(const std::vector<int64_t*>&, int64_t, int64_t);

}  // namespace lockstep::trainer
