#include "trainer/data/batches.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cmath>
#include <latch>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "trainer/data/sample_order.h"
#include "trainer/data/shapes.h"

namespace lockstep::trainer {
namespace {

// 3x2 pictures of two channels that count upwards from the sample's number.
class Counting : public Dataset {
 public:
  explicit Counting(int64_t size) : size_(size) {}
  int64_t size() const override { return size_; }
  int width() const override { return 3; }
  int height() const override { return 2; }
  int channels() const override { return 2; }
  const std::vector<std::string>& classes() const override { return classes_; }
  void Read(int64_t index, Sample& sample) const override {
    sample.picture = {3, 2, 2, {}};
    for (int i = 0; i < 12; ++i) {
      sample.picture.pixels.push_back(static_cast<uint8_t>(index + i));
    }
    sample.label = index;
  }

 private:
  int64_t size_;
  std::vector<std::string> classes_ = {"one"};
};

BatchesOptions Plain(int64_t global_batch) {
  BatchesOptions options;
  options.seed = 5;
  options.global_batch = global_batch;
  options.normalization = {{0.0, 0.5}, {1.0, 0.25}};
  return options;
}

std::vector<int64_t> Labels(const Batch& batch) {
  const auto* labels = batch.labels.const_data_ptr<int64_t>();
  return {labels, labels + batch.labels.size(0)};
}

TEST(Batches, TensorsAreNormalizedFloatsWithChannelsLast) {
  const Counting dataset(100);
  Batches batches(dataset, Plain(4));
  const Batch batch = batches.Next();
  EXPECT_EQ(batch.step, 0);
  EXPECT_EQ(batch.images.sizes(), (std::vector<int64_t>{4, 2, 2, 3}));
  EXPECT_TRUE(batch.images.is_contiguous(at::MemoryFormat::ChannelsLast));
  EXPECT_EQ(batch.images.scalar_type(), at::kFloat);
  EXPECT_EQ(batch.labels.scalar_type(), at::kLong);
  for (int64_t n = 0; n < 4; ++n) {
    const auto label = batch.labels[n].item<int64_t>();
    for (int y = 0; y < 2; ++y) {
      for (int x = 0; x < 3; ++x) {
        const double first = static_cast<double>(label + (y * 3 + x) * 2) / 255;
        const double second = static_cast<double>(label + (y * 3 + x) * 2 + 1) / 255;
        EXPECT_FLOAT_EQ(batch.images[n][0][y][x].item<float>(), static_cast<float>(first));
        EXPECT_FLOAT_EQ(batch.images[n][1][y][x].item<float>(),
                        static_cast<float>((second - 0.5) / 0.25));
      }
    }
  }
}

TEST(Batches, FollowTheSampleOrderFromAnyStepOn) {
  const Counting dataset(23);
  for (const int64_t first : {0, 1, 4, 5, 100}) {
    for (const int world_size : {1, 3}) {
      BatchesOptions options = Plain(5);
      options.world_size = world_size;
      options.rank = world_size - 1;
      options.first_step = first;
      Batches batches(dataset, options);
      SampleOrder order(5, 23, 5);
      const Share share = ShareOf(5, options.rank, world_size);
      for (int64_t step = first; step < first + 12; ++step) {
        std::vector<int64_t> expected;
        for (const SampleRef& ref : order.Slice(step, share.begin, share.end)) {
          expected.push_back(ref.index);
        }
        const Batch batch = batches.Next();
        ASSERT_EQ(batch.step, step);
        ASSERT_EQ(Labels(batch), expected) << "step " << step << " of " << world_size << " ranks";
      }
      EXPECT_EQ(batches.samples_read(), 12 * (share.end - share.begin));
    }
  }
}

TEST(Batches, MoreRanksThanSamplesGiveEmptyBatchesToSome) {
  const Counting dataset(10);
  BatchesOptions options = Plain(2);
  options.world_size = 3;
  int64_t samples = 0;
  for (int rank = 0; rank < 3; ++rank) {
    options.rank = rank;
    Batches batches(dataset, options);
    const Batch batch = batches.Next();
    EXPECT_EQ(batch.images.size(0), batch.labels.size(0));
    EXPECT_EQ(batch.images.dim(), 4);
    samples += batch.labels.size(0);
  }
  EXPECT_EQ(samples, 2);
}

TEST(Batches, ThreadsAndDepthDoNotChangeOneBit) {
  const auto shapes = MakeShapes({.seed = 3, .size = 16, .count = 50});
  const auto read = [&](int threads, int depth) {
    BatchesOptions options;
    options.seed = 9;
    options.global_batch = 8;
    options.threads = threads;
    options.depth = depth;
    options.augment = {.horizontal_flip = true, .crop_padding = 2};
    options.normalization = {{0.5, 0.4, 0.3}, {0.25, 0.26, 0.27}};
    Batches batches(*shapes, options);
    std::vector<at::Tensor> images;
    images.reserve(30);
    for (int i = 0; i < 30; ++i) images.push_back(batches.Next().images);
    return at::cat(images);
  };
  const at::Tensor alone = read(1, 1);
  for (const auto& [threads, depth] : {std::pair{1, 4}, {3, 1}, {3, 2}, {3, 4}, {3, 16}}) {
    EXPECT_TRUE(at::equal(read(threads, depth), alone)) << threads << " threads, depth " << depth;
  }
}

TEST(Batches, AugmentationIsTheSameOnAnyWorldSizeAndDiffersBetweenEpochs) {
  const auto shapes = MakeShapes({.seed = 3, .size = 16, .count = 12});
  BatchesOptions options;
  options.seed = 9;
  options.global_batch = 12;
  options.augment = {.horizontal_flip = true, .crop_padding = 4};
  options.normalization = {{0.5, 0.5, 0.5}, {0.25, 0.25, 0.25}};
  const auto read = [&](int world_size, int64_t step) {
    std::vector<at::Tensor> parts;
    parts.reserve(static_cast<size_t>(world_size));
    for (int rank = 0; rank < world_size; ++rank) {
      BatchesOptions own = options;
      own.rank = rank;
      own.world_size = world_size;
      own.first_step = step;
      Batches batches(*shapes, own);
      parts.push_back(batches.Next().images);
    }
    return at::cat(parts);
  };
  EXPECT_TRUE(at::equal(read(2, 0), read(1, 0)));
  EXPECT_TRUE(at::equal(read(4, 1), read(1, 1)));
  // A step is an epoch here. Crops lose other pixels each time, so the sums differ by far; without
  // augmentation they differ by rounding only.
  const auto difference = [&] {
    return std::abs(read(1, 0).sum().item<float>() - read(1, 1).sum().item<float>());
  };
  EXPECT_GT(difference(), 20.0f);
  options.augment = {};
  EXPECT_LT(difference(), 0.1f);
}

// Fails at one sample.
class Failing final : public Counting {
 public:
  using Counting::Counting;
  void Read(int64_t index, Sample& sample) const override {
    if (index == 17) throw DataError("sample 17 is broken");
    Counting::Read(index, sample);
  }
};

TEST(Batches, ALoadersErrorComesOutOfNextAtItsStep) {
  const Failing dataset(40);
  SampleOrder order(5, 40, 4);
  int64_t bad_step = -1;
  for (int64_t step = 0; step < 10; ++step) {
    for (const SampleRef& ref : order.Slice(step, 0, 4)) {
      if (ref.index == 17) bad_step = step;
    }
  }
  ASSERT_GE(bad_step, 0);
  for (const int threads : {1, 3}) {
    BatchesOptions options = Plain(4);
    options.threads = threads;
    Batches batches(dataset, options);
    for (int64_t step = 0; step < bad_step; ++step) ASSERT_EQ(batches.Next().step, step);
    for (int again = 0; again < 2; ++again) {
      try {
        batches.Next();
        FAIL() << "no error at step " << bad_step;
      } catch (const DataError& error) {
        EXPECT_STREQ(error.what(), "sample 17 is broken");
      }
    }
  }
}

// Counts what is read.
class Watched final : public Counting {
 public:
  using Counting::Counting;
  void Read(int64_t index, Sample& sample) const override {
    reads.fetch_add(1);
    Counting::Read(index, sample);
  }
  mutable std::atomic<int64_t> reads{0};
};

TEST(Batches, EndQuicklyWhileFullAndAmidALargeBatch) {
  const Watched full(100);
  {
    BatchesOptions options = Plain(4);
    options.threads = 2;
    options.depth = 3;
    Batches batches(full, options);
    while (full.reads.load() < 12) std::this_thread::yield();  // Three batches: no more room.
  }
  EXPECT_EQ(full.reads.load(), 12);
  // A batch of so many samples would take minutes; only a look at the stop request ends it now.
  constexpr int64_t kHuge = 20'000'000;
  const Watched large(100);
  {
    Batches batches(large, Plain(kHuge));
    while (large.reads.load() == 0) std::this_thread::yield();
  }
  EXPECT_LT(large.reads.load(), kHuge);
}

TEST(Batches, NonsenseIsRefused) {
  const Counting dataset(10);
  EXPECT_THROW(Batches(dataset, Plain(0)), std::invalid_argument);
  BatchesOptions options = Plain(4);
  options.rank = 1;
  EXPECT_THROW(Batches(dataset, options), std::invalid_argument);
  options = Plain(4);
  options.normalization.mean.pop_back();
  EXPECT_THROW(Batches(dataset, options), std::invalid_argument);
}

TEST(EvalBatches, EverySampleOnceAndAsManyBatchesOnEveryRank) {
  for (const int64_t size : {1, 5, 24, 25}) {
    const Counting dataset(size);
    for (const int world_size : {1, 2, 3, 4}) {
      std::vector<int> seen(static_cast<size_t>(size), 0);
      int64_t count = -1;
      for (int rank = 0; rank < world_size; ++rank) {
        BatchesOptions options = Plain(3);
        options.rank = rank;
        options.world_size = world_size;
        options.threads = 2;
        EvalBatches batches(dataset, options);
        if (count < 0) count = batches.count();
        EXPECT_EQ(batches.count(), count);
        int64_t next = rank;
        for (int64_t i = 0; i < count; ++i) {
          const Batch batch = batches.Next();
          EXPECT_EQ(batch.step, i);
          EXPECT_LE(batch.labels.size(0), 3);
          EXPECT_EQ(batch.images.size(0), batch.labels.size(0));
          for (const int64_t label : Labels(batch)) {
            EXPECT_EQ(label, next);
            next += world_size;
            ++seen.at(static_cast<size_t>(label));
          }
        }
        EXPECT_THROW(batches.Next(), std::out_of_range);
      }
      EXPECT_EQ(seen, std::vector<int>(static_cast<size_t>(size), 1))
          << size << " samples, " << world_size << " ranks";
    }
  }
}

TEST(EvalBatches, AreNotAugmented) {
  const Counting dataset(6);
  BatchesOptions options = Plain(6);
  EvalBatches plain(dataset, options);
  options.augment = {.horizontal_flip = true, .crop_padding = 2};
  EvalBatches augmented(dataset, options);
  EXPECT_TRUE(at::equal(plain.Next().images, augmented.Next().images));
}

}  // namespace
}  // namespace lockstep::trainer
