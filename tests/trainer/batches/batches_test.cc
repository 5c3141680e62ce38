#include "trainer/batches/batches.h"

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

#include "tests/trainer/pictures/noise.h"
#include "trainer/batches/sample_order.h"
#include "trainer/data/shapes.h"
#include "trainer/pictures/preprocessing.h"

namespace lockstep::trainer {
namespace {

// 3x2 pictures of two channels that count upwards from the sample's number.
class Counting : public Dataset {
 public:
  explicit Counting(int64_t size) : size_(size) {
    preprocessing_.channels = 2;
    preprocessing_.height = 2;
    preprocessing_.width = 3;
    preprocessing_.mean = {0.0, 0.5};
    preprocessing_.std = {1.0, 0.25};
  }
  int64_t size() const override { return size_; }
  int width() const override { return 3; }
  int height() const override { return 2; }
  int channels() const override { return 2; }
  const std::vector<std::string>& classes() const override { return classes_; }
  const Preprocessing& preprocessing() const override { return preprocessing_; }
  void Read(int64_t index, Sample& sample) const override {
    sample.picture = {3, 2, 2, {}};
    for (int i = 0; i < 12; ++i) {
      sample.picture.pixels.push_back(static_cast<uint8_t>(index + i));
    }
    sample.label = index;
  }

 protected:
  Preprocessing preprocessing_;

 private:
  int64_t size_;
  std::vector<std::string> classes_ = {"one"};
};

BatchesOptions Plain(int64_t global_batch) {
  BatchesOptions options;
  options.seed = 5;
  options.global_batch = global_batch;
  return options;
}

std::vector<int64_t> Labels(const Batch& batch) {
  const auto* labels = batch.targets.values.const_data_ptr<int64_t>();
  return {labels, labels + batch.targets.size()};
}

TEST(Batches, TensorsAreNormalizedFloatsWithChannelsLast) {
  const Counting dataset(100);
  Batches batches(dataset, Plain(4));
  const Batch batch = batches.Next();
  EXPECT_EQ(batch.step, 0);
  EXPECT_EQ(batch.images.sizes(), (std::vector<int64_t>{4, 2, 2, 3}));
  EXPECT_TRUE(batch.images.is_contiguous(at::MemoryFormat::ChannelsLast));
  EXPECT_EQ(batch.images.scalar_type(), at::kFloat);
  EXPECT_EQ(batch.targets.values.scalar_type(), at::kLong);
  for (int64_t n = 0; n < 4; ++n) {
    const auto label = batch.targets.values[n].item<int64_t>();
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
    EXPECT_EQ(batch.images.size(0), batch.targets.size());
    EXPECT_EQ(batch.images.dim(), 4);
    samples += batch.targets.size();
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

std::vector<at::Tensor> ReadStep(const Dataset& dataset, BatchesOptions options, int world_size,
                                 int64_t step) {
  std::vector<at::Tensor> images, values, mixed_with, shares;
  for (int rank = 0; rank < world_size; ++rank) {
    options.rank = rank;
    options.world_size = world_size;
    options.first_step = step;
    Batches batches(dataset, options);
    const Batch batch = batches.Next();
    images.push_back(batch.images);
    values.push_back(batch.targets.values);
    mixed_with.push_back(batch.targets.mixed_with);
    shares.push_back(batch.targets.share);
  }
  return {at::cat(images), at::cat(values), at::cat(mixed_with), at::cat(shares)};
}

TEST(Batches, MixedSamplesAreTheSameOnAnyWorldSizeAndThePartnerIsTheNextSample) {
  const Noise noise(23, {3, 8, 8});
  BatchesOptions options = OptionsFor(7);
  options.augment = {.horizontal_flip = true, .crop_padding = 2};
  options.augment.mixup = 0.8;
  options.augment.cutmix = 1;
  options.augment.resized_crop = 0.5;
  for (const int64_t step : {0, 2, 3}) {  // Also across the border between two epochs.
    const std::vector<at::Tensor> whole = ReadStep(noise, options, 1, step);
    for (const int world_size : {2, 3, 7, 9}) {
      const std::vector<at::Tensor> parts = ReadStep(noise, options, world_size, step);
      for (size_t i = 0; i < whole.size(); ++i) {
        EXPECT_TRUE(at::equal(parts[i], whole[i])) << i << " of " << world_size << " ranks";
      }
    }
    SampleOrder order(options.seed, 23, 7);
    std::vector<SampleRef> refs = order.Slice(step, 0, 7);
    refs.push_back(order.Slice(step + 1, 0, 1).front());
    for (int64_t i = 0; i < 7; ++i) {
      EXPECT_EQ(whole[1][i].item<int64_t>(), refs[static_cast<size_t>(i)].index * 7);
      EXPECT_EQ(whole[2][i].item<int64_t>(), refs[static_cast<size_t>(i) + 1].index * 7);
    }
  }
}

TEST(Batches, TheFirstPixelsOfABlendAreWhatTheSharesSay) {
  const Counting dataset(100);
  BatchesOptions options = Plain(16);
  options.augment.mixup = 1;
  Batches batches(dataset, options);
  const Batch batch = batches.Next();
  for (int64_t i = 0; i < 16; ++i) {
    const auto share = batch.targets.share[i].item<float>();
    const auto own = static_cast<float>(batch.targets.values[i].item<int64_t>());
    const auto other = static_cast<float>(batch.targets.mixed_with[i].item<int64_t>());
    EXPECT_NEAR(batch.images[i][0][0][0].item<float>() * 255, share * own + (1 - share) * other,
                0.51);
  }
}

TEST(Batches, BlueComesFirstWhereThePreprocessingSaysSo) {
  const Noise rgb(4, {3, 2, 2});
  const Noise bgr(4, {3, 2, 2}, /*bgr=*/true);
  const Batch one = Batches(rgb, OptionsFor(4)).Next();
  const Batch other = Batches(bgr, OptionsFor(4)).Next();
  const Preprocessing& p = rgb.preprocessing();
  for (int c = 0; c < 3; ++c) {
    const size_t from = static_cast<size_t>(c);
    const size_t to = 2 - from;
    const at::Tensor bytes = one.images.select(1, c).mul(p.std[from]).add(p.mean[from]);
    const at::Tensor swapped = other.images.select(1, 2 - c).mul(p.std[to]).add(p.mean[to]);
    EXPECT_LT(bytes.sub(swapped).abs().max().item<float>(), 1e-5f);
  }
}

TEST(Batches, NumbersToLearnAreFloatsInTheirOrder) {
  const NumberedNoise noise(9, {1, 2, 2});
  const Batch batch = Batches(noise, OptionsFor(9)).Next();
  ASSERT_EQ(batch.targets.values.sizes(), (std::vector<int64_t>{9, 3}));
  ASSERT_EQ(batch.targets.values.scalar_type(), at::kFloat);
  double sum = 0;
  for (int64_t i = 0; i < 9; ++i) {
    const auto number = batch.targets.values[i][0].item<float>();
    EXPECT_EQ(batch.targets.values[i][1].item<float>(), number * number);
    EXPECT_EQ(batch.targets.values[i][2].item<float>(), -number);
    sum += number;
  }
  EXPECT_EQ(sum, 36);
}

TEST(Batches, FeaturesAreRowsOfFloatsAndCannotBeAugmented) {
  const NoiseFeatures features(9);
  BatchesOptions options = OptionsFor(4);
  const Batch batch = Batches(features, options).Next();
  ASSERT_EQ(batch.images.sizes(), (std::vector<int64_t>{4, 5}));
  Sample sample;
  for (int64_t i = 0; i < 4; ++i) {
    features.Read(batch.targets.values[i].item<int64_t>(), sample);
    for (int64_t f = 0; f < 5; ++f) {
      EXPECT_EQ(batch.images[i][f].item<float>(), sample.features[static_cast<size_t>(f)]);
    }
  }
  options.augment.horizontal_flip = true;
  EXPECT_THROW(Batches(features, options), std::invalid_argument);
  EXPECT_EQ(EvalBatches(features, options).Next().images.size(1), 5);
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

class OfOneMean final : public Counting {
 public:
  explicit OfOneMean(int64_t size) : Counting(size) { preprocessing_.mean.pop_back(); }
};

TEST(Batches, NonsenseIsRefused) {
  const Counting dataset(10);
  EXPECT_THROW(Batches(dataset, Plain(0)), std::invalid_argument);
  BatchesOptions options = Plain(4);
  options.rank = 1;
  EXPECT_THROW(Batches(dataset, options), std::invalid_argument);
  EXPECT_THROW(Batches(OfOneMean(10), Plain(4)), std::invalid_argument);
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
          EXPECT_LE(batch.targets.size(), 3);
          EXPECT_EQ(batch.images.size(0), batch.targets.size());
          EXPECT_EQ(batch.indices, Labels(batch));
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

TEST(EvalBatches, OfAnEpochAreAugmentedAsInItAndNotMixed) {
  const Noise noise(7, {3, 8, 8});
  BatchesOptions options = OptionsFor(7);
  options.augment.horizontal_flip = true;
  options.augment.random_erasing = 0.5;
  Batches training(noise, options);  // An epoch a step.
  training.Next();
  const Batch expected = training.Next();
  options.augment.mixup = options.augment.cutmix = 1;
  options.augment_epoch = 1;
  EvalBatches batches(noise, options);
  const Batch batch = batches.Next();
  ASSERT_EQ(batch.targets.size(), 7);
  EXPECT_FALSE(batch.targets.mixed_with.defined());
  for (int64_t i = 0; i < 7; ++i) {
    const auto at = expected.targets.values[i].item<int64_t>() / 7;
    EXPECT_TRUE(at::equal(batch.images[at], expected.images[i])) << at;
  }
}

TEST(EvalBatches, AreNotAugmented) {
  const Counting dataset(6);
  BatchesOptions options = Plain(6);
  EvalBatches plain(dataset, options);
  options.augment = {.horizontal_flip = true, .crop_padding = 2};
  options.augment.mixup = options.augment.resized_crop = options.augment.random_erasing = 1;
  EvalBatches augmented(dataset, options);
  EXPECT_TRUE(at::equal(plain.Next().images, augmented.Next().images));
}

}  // namespace
}  // namespace lockstep::trainer
