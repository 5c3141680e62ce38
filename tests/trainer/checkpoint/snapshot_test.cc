// From tensors to a checkpoint and back: every dtype and layout bit for bit, the writer behind the
// step loop, and what a file that does not fit is told.
#include "trainer/checkpoint/snapshot.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstring>
#include <mutex>

#include "absl/strings/str_cat.h"
#include "tests/trainer/checkpoint/checkpoint_fixture.h"

namespace lockstep::trainer {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

at::Tensor Numbers(at::IntArrayRef sizes, at::ScalarType dtype) {
  int64_t count = 1;
  for (const int64_t size : sizes) count *= size;
  at::Tensor values = at::arange(count).sub(count / 2).view(sizes);
  return dtype == at::kBool ? values.remainder(3).to(dtype) : values.to(dtype);
}

// Every dtype; contiguous, channels_last, transposed, sliced, expanded, scalar and empty tensors.
NamedTensors ManyTensors() {
  NamedTensors tensors;
  for (const auto dtype : {at::kDouble, at::kFloat, at::kHalf, at::kBFloat16, at::kLong, at::kInt,
                           at::kByte, at::kBool}) {
    const std::string name = absl::StrCat("dtype", static_cast<int>(dtype));
    tensors.push_back({name + ".plain", Numbers({3, 5}, dtype)});
    tensors.push_back({name + ".channels_last",
                       Numbers({4, 3, 2, 5}, dtype).contiguous(at::MemoryFormat::ChannelsLast)});
    tensors.push_back({name + ".transposed", Numbers({4, 6}, dtype).t()});
    tensors.push_back({name + ".sliced", Numbers({6, 6}, dtype).slice(0, 0, 6, 2).slice(1, 1, 4)});
    tensors.push_back({name + ".expanded", Numbers({1, 6}, dtype).expand({4, 6})});
    tensors.push_back({name + ".scalar", Numbers({}, dtype)});
    tensors.push_back({name + ".empty", Numbers({0, 3}, dtype)});
  }
  return tensors;
}

class SnapshotTest : public ::testing::Test {
 protected:
  SnapshotTest() { EXPECT_TRUE(store_.Open().ok()); }

  LoadedCheckpoint Load(int64_t step) {
    auto loaded = store_.Load(store_.PathOf(step));
    EXPECT_TRUE(loaded.ok()) << loaded.status();
    return loaded.ok() ? *std::move(loaded) : LoadedCheckpoint();
  }

  TempFolder temp_;
  CheckpointStore store_{temp_.path() / "checkpoints", 1, {.keep_last = 9, .keep_best = 0}};
};

TEST_F(SnapshotTest, EveryDtypeAndLayoutComesBackBitForBit) {
  const NamedTensors saved = ManyTensors();
  {
    CheckpointWriter writer(store_);
    writer.Save(5, saved, {{"steps", Numbers({}, at::kFloat)}}, "{\"a\": 1}", 0.5);
    const WriteResult result = writer.Wait();
    ASSERT_TRUE(result.status.ok()) << result.status;
  }
  const LoadedCheckpoint loaded = Load(5);
  EXPECT_EQ(loaded.state_json, "{\"a\": 1}");
  EXPECT_EQ(loaded.info.metric, 0.5);
  // Into contiguous memory, and into the strides that they came from.
  for (const bool same_strides : {false, true}) {
    NamedTensors restored;
    for (const NamedTensor& tensor : saved) {
      const bool dense = tensor.tensor.is_non_overlapping_and_dense();
      restored.push_back({tensor.name, same_strides && dense ? at::zeros_like(tensor.tensor)
                                                             : at::zeros(tensor.tensor.sizes(),
                                                                         tensor.tensor.options())});
    }
    const absl::Status status = Restore(loaded.weights, restored);
    ASSERT_TRUE(status.ok()) << status;
    for (size_t i = 0; i < saved.size(); ++i) {
      EXPECT_TRUE(restored[i].tensor.equal(saved[i].tensor)) << saved[i].name;
    }
  }
}

TEST_F(SnapshotTest, NanAndNegativeZeroKeepTheirBits) {
  const at::Tensor odd = at::zeros({4});
  const uint32_t bits[4] = {0x7fc00001, 0xffc12345, 0x80000000, 0x00000001};
  std::memcpy(odd.data_ptr(), bits, sizeof(bits));
  CheckpointWriter writer(store_);
  writer.Save(1, {{"odd", odd}}, {}, "{}", {});
  ASSERT_TRUE(writer.Wait().status.ok());
  const LoadedCheckpoint loaded = Load(1);
  EXPECT_EQ(std::memcmp(loaded.weights.tensors[0].bytes.data(), bits, sizeof(bits)), 0);
  const at::Tensor restored = at::zeros({4});
  ASSERT_TRUE(Restore(loaded.weights, {{"odd", restored}}).ok());
  EXPECT_EQ(std::memcmp(restored.data_ptr(), bits, sizeof(bits)), 0);
}

TEST_F(SnapshotTest, InTheFileEveryTensorIsRowMajor) {
  const at::Tensor weights =
      Numbers({2, 3, 2, 2}, at::kFloat).contiguous(at::MemoryFormat::ChannelsLast);
  ASSERT_FALSE(weights.is_contiguous());
  Snapshot snapshot;
  snapshot.Take({{"w", weights}}, {}, "{}");
  const CheckpointContents contents = snapshot.Contents();
  EXPECT_THAT(contents.weights[0].shape, ElementsAre(2, 3, 2, 2));
  for (int i = 0; i < 24; ++i) {
    float value = 0;
    std::memcpy(&value, contents.weights[0].bytes.data() + 4 * i, 4);
    EXPECT_EQ(value, static_cast<float>(i - 12));
  }
}

TEST_F(SnapshotTest, ASnapshotIsACopyInBuffersThatAreUsedAgain) {
  const at::Tensor tensor = at::zeros({100});
  Snapshot snapshot;
  snapshot.Take({{"t", tensor}}, {}, "{}");
  tensor.fill_(7);
  const auto before = snapshot.Contents().weights[0].bytes;
  EXPECT_EQ(before[3], std::byte{0});
  snapshot.Take({{"t", tensor}}, {}, "{}");
  const auto after = snapshot.Contents().weights[0].bytes;
  EXPECT_EQ(after.data(), before.data());
  float value = 0;
  std::memcpy(&value, after.data(), 4);
  EXPECT_EQ(value, 7.0f);
}

TEST_F(SnapshotTest, StridedTensorsAreTakenAnewEachTime) {
  const at::Tensor tensor = at::zeros({2, 3, 2, 2}).contiguous(at::MemoryFormat::ChannelsLast);
  Snapshot snapshot;
  for (const float want : {1.0f, 2.0f}) {
    tensor.fill_(want);
    snapshot.Take({{"t", tensor}}, {}, "{}");
    float value = 0;
    std::memcpy(&value, snapshot.Contents().weights[0].bytes.data(), 4);
    EXPECT_EQ(value, want);
  }
}

// Views as the arena makes them: one after another in one storage, with padding, some strided.
NamedTensors ViewsOf(const at::Tensor& flat, const std::string& prefix, int count) {
  NamedTensors views;
  for (int i = 0; i < count; ++i) {
    const int64_t offset = 64 * i;
    views.push_back({absl::StrCat(prefix, i),
                     i % 2 == 0 ? flat.as_strided({50}, {1}, offset)
                                : flat.as_strided({2, 3, 2, 4}, {24, 1, 12, 3}, offset)});
  }
  return views;
}

TEST_F(SnapshotTest, ViewsOfOneStorageAreCopiedInOnePiece) {
  const at::Tensor weights = Numbers({640}, at::kFloat);
  const at::Tensor state = Numbers({1000}, at::kFloat).add(0.5);
  NamedTensors all = ViewsOf(weights, "w", 10);
  all.push_back({"steps", Numbers({}, at::kLong)});
  // A part of another storage: what is not taken is not copied.
  const at::Tensor large = Numbers({1 << 20}, at::kFloat);
  all.push_back({"begin", large.narrow(0, 0, 8)});
  all.push_back({"end", large.narrow(0, (1 << 20) - 8, 8)});
  const NamedTensors state_views = ViewsOf(state, "s", 10);
  Snapshot snapshot;
  snapshot.Take(all, state_views, "{}");
  EXPECT_EQ(snapshot.pieces(), 5u);
  const CheckpointContents contents = snapshot.Contents();
  ASSERT_EQ(contents.weights.size(), 13u);
  ASSERT_EQ(contents.optimizer.size(), 10u);
  const auto expect_same = [](const TensorBytes& bytes, const NamedTensor& tensor) {
    EXPECT_EQ(bytes.name, tensor.name);
    const at::Tensor row_major = tensor.tensor.contiguous();
    ASSERT_EQ(bytes.bytes.size(), row_major.nbytes());
    EXPECT_EQ(std::memcmp(bytes.bytes.data(), row_major.const_data_ptr(), bytes.bytes.size()), 0)
        << tensor.name;
  };
  for (size_t i = 0; i < all.size(); ++i) expect_same(contents.weights[i], all[i]);
  for (size_t i = 0; i < state_views.size(); ++i)
    expect_same(contents.optimizer[i], state_views[i]);
}

TEST_F(SnapshotTest, OverlappingViewsAreTakenToo) {
  const at::Tensor flat = Numbers({10, 10}, at::kFloat);
  Snapshot snapshot;
  snapshot.Take({{"all", flat}, {"column", flat.select(1, 3)}, {"row", flat.select(0, 9)}},
                {{"transposed", flat.t()}}, "{}");
  EXPECT_EQ(snapshot.pieces(), 1u);
  const CheckpointContents contents = snapshot.Contents();
  for (int i = 0; i < 10; ++i) {
    float value = 0;
    std::memcpy(&value, contents.weights[1].bytes.data() + 4 * i, 4);
    EXPECT_EQ(value, static_cast<float>(10 * i + 3 - 50));
    std::memcpy(&value, contents.weights[2].bytes.data() + 4 * i, 4);
    EXPECT_EQ(value, static_cast<float>(90 + i - 50));
    std::memcpy(&value, contents.optimizer[0].bytes.data() + 4 * i, 4);
    EXPECT_EQ(value, static_cast<float>(10 * i - 50));
  }
}

TEST_F(SnapshotTest, TensorsMayMoveAndGrowBetweenTwoTakes) {
  Snapshot snapshot;
  snapshot.Prepare({{"t", at::zeros({3})}}, {});
  for (const int64_t size : {3, 5000, 7}) {
    snapshot.Take({{"t", Numbers({size}, at::kFloat)}}, {{"u", Numbers({size}, at::kLong)}}, "{}");
    const CheckpointContents contents = snapshot.Contents();
    const at::Tensor expected = Numbers({size}, at::kFloat);
    ASSERT_EQ(contents.weights[0].bytes.size(), expected.nbytes());
    EXPECT_EQ(
        std::memcmp(contents.weights[0].bytes.data(), expected.const_data_ptr(), expected.nbytes()),
        0);
  }
}

// The figures go into the log. The limit is loose, and on the best of as many rounds as a busy
// machine needs: it shows the mistakes that matter, a copy tensor by tensor or into fresh memory,
// which no round would be without.
TEST_F(SnapshotTest, ASaveHoldsUpItsCallerForLittleMoreThanACopyOfTheBytes) {
  constexpr int64_t kParameters = 11'700'000;  // ResNet-18 with momentum: 93.6 MB.
  constexpr int kViews = 60;
  const at::Tensor flat = at::full({2 * kParameters}, 0.5, at::kFloat);
  NamedTensors weights, momentum;
  for (int64_t i = 0; i < kViews; ++i) {
    constexpr int64_t kSize = kParameters / kViews;
    weights.push_back({absl::StrCat("w", i), flat.narrow(0, i * kSize, kSize)});
    momentum.push_back({absl::StrCat("m", i), flat.narrow(0, kParameters + i * kSize, kSize)});
  }
  FileOperations operations;  // The disk has its own tests.
  operations.write_file = [](const auto&, const auto&) { return absl::OkStatus(); };
  CheckpointStore store(temp_.path() / "copies", 1, {}, {}, operations);
  ASSERT_TRUE(store.Open().ok());
  CheckpointWriter writer(store);
  writer.Prepare(weights, momentum);
  std::vector<std::byte> warm(flat.nbytes(), std::byte{1});
  std::vector<double> stalls, copies;
  const auto median = [](std::vector<double> times) {
    std::ranges::nth_element(times, times.begin() + static_cast<ptrdiff_t>(times.size() / 2));
    return times[times.size() / 2];
  };
  constexpr int64_t kRounds = 9, kMostRounds = 100;
  for (int64_t round = 0; round < kMostRounds; ++round) {
    if (round >= kRounds && *std::ranges::min_element(stalls) < 2 * median(copies)) break;
    stalls.push_back(1e3 * writer.Save(round, weights, momentum, "{}", std::nullopt));
    writer.Wait();
    const auto start = std::chrono::steady_clock::now();
    std::memcpy(warm.data(), flat.const_data_ptr(), flat.nbytes());
    const std::chrono::duration<double, std::milli> took = std::chrono::steady_clock::now() - start;
    copies.push_back(took.count());
  }
  const double best = *std::ranges::min_element(stalls);
  std::printf(
      "a save of %.1f MB holds up its caller for %.2f ms (best of %zu; median %.2f, first %.2f), "
      "memcpy takes %.2f ms (median): ratio of the best %.2f, of the medians %.2f\n",
      1e-6 * static_cast<double>(flat.nbytes()), best, stalls.size(), median(stalls), stalls[0],
      median(copies), best / median(copies), median(stalls) / median(copies));
  EXPECT_LT(best, 2 * median(copies));
}

TEST_F(SnapshotTest, RefusesWhatAFileCannotHold) {
  Snapshot snapshot;
  EXPECT_THROW(snapshot.Take({{"c", at::zeros({2}, at::kComplexFloat)}}, {}, "{}"),
               std::invalid_argument);
  const at::Tensor t = at::zeros({2});
  EXPECT_THROW(snapshot.Take({{"t", t}, {"t", t}}, {}, "{}"), std::invalid_argument);
}

TEST_F(SnapshotTest, RestoringWritesIntoLeavesThatRequireGrad) {
  at::Tensor parameter = at::zeros({3});
  parameter.set_requires_grad(true);
  CheckpointWriter writer(store_);
  writer.Save(1, {{"p", Numbers({3}, at::kFloat)}}, {}, "{}", {});
  writer.Wait();
  ASSERT_TRUE(Restore(Load(1).weights, {{"p", parameter}}).ok());
  EXPECT_TRUE(parameter.detach().equal(Numbers({3}, at::kFloat)));
  EXPECT_TRUE(parameter.is_leaf());
}

TEST_F(SnapshotTest, RestoreListsAllThatDoesNotFitAndThenCopiesNothing) {
  CheckpointWriter writer(store_);
  writer.Save(1,
              {{"fits", Numbers({3}, at::kFloat)},
               {"shape", Numbers({2, 3}, at::kFloat)},
               {"dtype", Numbers({3}, at::kFloat)},
               {"extra", Numbers({3}, at::kFloat)}},
              {}, "{}", {});
  writer.Wait();
  const at::Tensor fits = at::zeros({3});
  const absl::Status status = Restore(Load(1).weights, {{"fits", fits},
                                                        {"shape", at::zeros({3, 2})},
                                                        {"dtype", at::zeros({3}, at::kDouble)},
                                                        {"missing", at::zeros({3})}});
  EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
  EXPECT_THAT(
      std::string(status.message()),
      AllOf(HasSubstr("4 problems"), HasSubstr("'shape' has shape [2, 3] in the file, but [3, 2]"),
            HasSubstr("'dtype' has dtype F32 in the file, but F64"),
            HasSubstr("'missing' is missing"), HasSubstr("'extra' is only in the file")));
  EXPECT_TRUE(fits.equal(at::zeros({3})));
}

TEST_F(SnapshotTest, RestoreShowsTwentyProblemsAndCountsTheRest) {
  NamedTensors into;
  for (int i = 0; i < 50; ++i) into.push_back({absl::StrCat("t", i), at::zeros({1})});
  const std::string message(Restore({}, into).message());
  EXPECT_THAT(message, AllOf(HasSubstr("'t19'"), Not(HasSubstr("'t20'")), HasSubstr("30 more")));
}

TEST_F(SnapshotTest, ABoolMayOnlyBeZeroOrOne) {
  const std::byte bytes[2] = {std::byte{1}, std::byte{2}};
  const SafetensorsView file{{{"b", "BOOL", {2}, bytes}}, {}};
  EXPECT_THAT(std::string(Restore(file, {{"b", at::zeros({2}, at::kBool)}}).message()),
              HasSubstr("other than 0 and 1"));
}

// File operations whose first write waits until the test lets it go.
class Gate {
 public:
  FileOperations Operations() {
    FileOperations operations;
    operations.write_file = [this, real = operations.write_file](const auto& path,
                                                                 const auto& pieces) {
      std::unique_lock lock(mutex_);
      waiting_ = true;
      changed_.notify_all();
      changed_.wait(lock, [this] { return open_; });
      return real(path, pieces);
    };
    return operations;
  }
  void AwaitWrite() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return waiting_; });
  }
  void Open() {
    const std::lock_guard lock(mutex_);
    open_ = true;
    changed_.notify_all();
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool waiting_ = false;
  bool open_ = false;
};

TEST_F(SnapshotTest, SaveReturnsWhileTheWriteGoesOn) {
  Gate gate;
  CheckpointStore store(temp_.path() / "gated", 1, {}, {}, gate.Operations());
  ASSERT_TRUE(store.Open().ok());
  CheckpointWriter writer(store);
  EXPECT_FALSE(writer.busy());
  const at::Tensor tensor = at::zeros({4});
  const double stall = writer.Save(3, {{"t", tensor}}, {}, "{}", 0.5);
  EXPECT_GE(stall, 0.0);
  gate.AwaitWrite();
  EXPECT_TRUE(writer.busy());
  EXPECT_FALSE(writer.Poll().has_value());
  tensor.fill_(9);  // What the step loop does next must not be seen in the checkpoint.
  gate.Open();
  const WriteResult result = writer.Wait();
  EXPECT_EQ(result.step, 3);
  ASSERT_TRUE(result.status.ok()) << result.status;
  EXPECT_EQ(result.path, store.PathOf(3));
  EXPECT_GT(result.bytes, 16);
  EXPECT_GT(result.write_seconds, 0.0);
  EXPECT_FALSE(writer.Poll().has_value()) << "Wait() has reported it";
  const at::Tensor restored = at::ones_like(tensor);
  const auto loaded = store.Load(result.path);
  ASSERT_TRUE(loaded.ok());
  ASSERT_TRUE(Restore(loaded->weights, {{"t", restored}}).ok());
  EXPECT_TRUE(restored.equal(at::zeros({4})));
}

TEST_F(SnapshotTest, ASecondSaveWaitsForTheFirstAndBothAreReported) {
  CheckpointWriter writer(store_);
  EXPECT_EQ(writer.Wait().step, -1);
  const at::Tensor tensor = at::zeros({4});
  for (int64_t step = 1; step <= 3; ++step) {
    tensor.fill_(step);
    writer.Save(step, {{"t", tensor}}, {}, "{}", {});
  }
  EXPECT_EQ(writer.Wait().step, 3);
  EXPECT_EQ(writer.Poll()->step, 1);
  EXPECT_EQ(writer.Poll()->step, 2);
  EXPECT_FALSE(writer.Poll().has_value());
  EXPECT_EQ(writer.Wait().step, 3);
  for (int64_t step = 1; step <= 3; ++step) {
    float value = 0;
    std::memcpy(&value, Load(step).weights.tensors[0].bytes.data(), 4);
    EXPECT_EQ(value, static_cast<float>(step));
  }
}

TEST_F(SnapshotTest, DestroyingTheWriterEndsTheWriteFirst) {
  {
    CheckpointWriter writer(store_);
    writer.Save(8, {{"t", at::zeros({4})}}, {}, "{}", {});
  }
  EXPECT_TRUE(store_.Verify(store_.PathOf(8)).ok());
}

TEST_F(SnapshotTest, AFailedWriteIsReportedAndTheNextOneWorks) {
  FileOperations operations;
  std::atomic<bool> full = true;
  operations.write_file = [&, real = operations.write_file](const auto& path, const auto& pieces) {
    return full ? absl::ResourceExhaustedError("disk full") : real(path, pieces);
  };
  CheckpointStore store(temp_.path() / "full", 1, {}, {}, operations);
  ASSERT_TRUE(store.Open().ok());
  CheckpointWriter writer(store);
  writer.Save(1, {{"t", at::zeros({4})}}, {}, "{}", {});
  WriteResult result = writer.Wait();
  EXPECT_EQ(result.step, 1);
  EXPECT_TRUE(absl::IsResourceExhausted(result.status)) << result.status;
  full = false;
  writer.Save(1, {{"t", at::zeros({4})}}, {}, "{}", {});
  result = writer.Wait();
  EXPECT_TRUE(result.status.ok()) << result.status;
}

TEST_F(SnapshotTest, AnExceptionInTheWriterIsAStatusAndNotTheEnd) {
  CheckpointStore store(temp_.path() / "thrown", 1, {}, []() -> absl::Status { throw Crash(); });
  ASSERT_TRUE(store.Open().ok());
  CheckpointWriter writer(store);
  writer.Save(1, {{"t", at::zeros({4})}}, {}, "{}", {});
  EXPECT_TRUE(absl::IsInternal(writer.Wait().status));
}

}  // namespace
}  // namespace lockstep::trainer
