// The ways by which pictures get to a GPU, tried on the CPU: resident, and in bytes on a side
// stream. Both must give the bits of the CPU ranks' way.
#include "trainer/batches/device_feed.h"

#include <ATen/ops/equal.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "tests/trainer/pictures/noise.h"
#include "tests/trainer/pictures/temp_folder.h"
#include "trainer/batches/batches.h"
#include "trainer/batches/resident.h"
#include "trainer/data/cifar.h"
#include "trainer/data/shapes.h"
#include "trainer/pictures/counter_rng.h"

namespace lockstep::trainer {
namespace {

void ExpectSameTargets(const Targets& targets, const Targets& expected, int64_t step) {
  ASSERT_TRUE(at::equal(targets.values, expected.values)) << "step " << step;
  ASSERT_EQ(targets.mixed_with.defined(), expected.mixed_with.defined());
  ASSERT_EQ(targets.share.defined(), expected.mixed_with.defined());
  if (!expected.mixed_with.defined()) return;
  ASSERT_TRUE(at::equal(targets.mixed_with, expected.mixed_with)) << "step " << step;
  ASSERT_TRUE(at::equal(targets.share, expected.share)) << "step " << step;
}

void ExpectTheHostsBits(const Dataset& dataset, const BatchesOptions& options, int64_t steps) {
  Batches host(dataset, options);
  Batches resident(dataset, Fed(options, config::Use::kAlways));
  Batches travelling(dataset, Fed(options, config::Use::kNever));
  ASSERT_FALSE(host.resident());
  ASSERT_TRUE(resident.resident());
  ASSERT_FALSE(travelling.resident());
  for (int64_t step = options.first_step; step < options.first_step + steps; ++step) {
    const Batch expected = host.Next();
    for (Batches* batches : {&resident, &travelling}) {
      const Batch batch = batches->Next();
      ASSERT_EQ(batch.step, step);
      ASSERT_EQ(batch.images.sizes(), expected.images.sizes());
      ASSERT_TRUE(batch.images.is_contiguous(at::MemoryFormat::ChannelsLast));
      ASSERT_TRUE(at::equal(batch.images, expected.images)) << "step " << step;
      ASSERT_NO_FATAL_FAILURE(ExpectSameTargets(batch.targets, expected.targets, step));
    }
  }
  EXPECT_EQ(resident.samples_read(), host.samples_read());
}

std::vector<config::AugmentConfig> Augmentations() {
  return {{.horizontal_flip = false, .crop_padding = 0},
          {.horizontal_flip = true, .crop_padding = 0},
          {.horizontal_flip = false, .crop_padding = 3},
          {.horizontal_flip = true, .crop_padding = 4}};
}

TEST(DeviceFeed, ShapesHaveTheHostsBitsForEveryAugmentation) {
  const auto shapes = MakeShapes({.seed = 3, .size = 16, .count = 70});
  for (const config::AugmentConfig& augment : Augmentations()) {
    BatchesOptions options = OptionsFor(24);
    options.augment = augment;
    ExpectTheHostsBits(*shapes, options, 10);  // More than three epochs.
  }
}

// What the loader threads must finish travels, and is never resident.
std::vector<config::AugmentConfig> FinishedAugmentations() {
  std::vector<config::AugmentConfig> all(8);
  all[0].resized_crop = 0.3;
  all[1].rotation_degrees = 20;
  all[2].color_jitter = {.brightness = 0.4, .contrast = 0.4, .saturation = 0.4, .hue = 0.1};
  all[3].random_erasing = 0.5;
  all[4].mixup = 0.4;
  all[5].cutmix = 1;
  all[6] = {.horizontal_flip = true, .crop_padding = 2};
  all[6].mixup = all[6].cutmix = 1;
  all[7] = all[6];
  all[7].resized_crop = 0.08;
  all[7].rotation_degrees = 180;
  all[7].color_jitter = all[2].color_jitter;
  all[7].random_erasing = 0.5;
  return all;
}

void ExpectTheHostsBitsTravelling(const Dataset& dataset, const BatchesOptions& options,
                                  int64_t steps) {
  Batches host(dataset, options);
  BatchesOptions fed = Fed(options, config::Use::kAuto);
  fed.free_device_bytes = int64_t{1} << 40;
  Batches travelling(dataset, fed);
  ASSERT_FALSE(travelling.resident());
  for (int64_t step = options.first_step; step < options.first_step + steps; ++step) {
    const Batch expected = host.Next();
    const Batch batch = travelling.Next();
    ASSERT_EQ(batch.step, step);
    ASSERT_EQ(batch.images.sizes(), expected.images.sizes());
    ASSERT_TRUE(at::equal(batch.images, expected.images)) << "step " << step;
    ASSERT_NO_FATAL_FAILURE(ExpectSameTargets(batch.targets, expected.targets, step));
  }
}

TEST(DeviceFeed, WhatTheHostFinishesHasTheHostsBits) {
  for (const Size& size : {Size{3, 12, 16}, Size{1, 9, 7}}) {
    for (const bool bgr : {false, true}) {
      const Noise noise(41, size, bgr);
      for (const config::AugmentConfig& augment : FinishedAugmentations()) {
        BatchesOptions options = OptionsFor(12);
        options.augment = augment;
        ExpectTheHostsBitsTravelling(noise, options, 5);
      }
    }
  }
}

TEST(DeviceFeed, NumbersToLearnHaveTheHostsBits) {
  const NumberedNoise noise(31, {3, 6, 5});
  for (int rank = 0; rank < 4; ++rank) {
    BatchesOptions options = OptionsFor(11);
    options.rank = rank;
    options.world_size = 4;
    options.augment = {.horizontal_flip = true, .crop_padding = 1};
    ExpectTheHostsBits(noise, options, 6);
    options.augment.mixup = 0.5;
    ExpectTheHostsBitsTravelling(noise, options, 6);
  }
}

TEST(DeviceFeed, BlueFirstHasTheHostsBits) {
  const Noise noise(31, {3, 6, 5}, /*bgr=*/true);
  BatchesOptions options = OptionsFor(11);
  options.augment = {.horizontal_flip = true, .crop_padding = 1};
  ExpectTheHostsBits(noise, options, 6);
}

TEST(DeviceFeed, FeaturesTravelAsTheyAre) {
  const NoiseFeatures features(17);
  const BatchesOptions options = OptionsFor(6);
  ExpectTheHostsBitsTravelling(features, options, 6);
  Batches batches(features, Fed(options, config::Use::kAlways));
  EXPECT_FALSE(batches.resident());
  const void* memory = batches.Next().images.const_data_ptr();
  EXPECT_EQ(batches.Next().images.const_data_ptr(), memory);
}

TEST(DeviceFeed, ResidentAlwaysIsRefusedWhereOnlyTheHostCanAugment) {
  const Noise noise(10, {3, 4, 4});
  BatchesOptions options = Fed(OptionsFor(5), config::Use::kAlways);
  options.augment.random_erasing = 0.1;
  EXPECT_THROW(Batches(noise, options), std::invalid_argument);
}

TEST(DeviceFeed, OddSizesAndAnyNumberOfChannels) {
  for (const Size& size : {Size{1, 5, 9}, Size{3, 7, 4}, Size{2, 1, 1}, Size{4, 11, 3}}) {
    const Noise noise(13, size);
    BatchesOptions options = OptionsFor(5);
    // More padding than the picture is wide: some crops see nothing of it.
    options.augment = {.horizontal_flip = true, .crop_padding = 6};
    ExpectTheHostsBits(noise, options, 8);
  }
}

TEST(DeviceFeed, EveryRankFromAnyStep) {
  const Noise noise(29, {3, 6, 5});
  for (const int world_size : {1, 2, 3, 5}) {
    for (const int64_t first : {0, 1, 7, 1000}) {
      for (int rank = 0; rank < world_size; ++rank) {
        BatchesOptions options = OptionsFor(4);  // With five ranks one has nothing to do.
        options.augment = {.horizontal_flip = true, .crop_padding = 2};
        options.world_size = world_size;
        options.rank = rank;
        options.first_step = first;
        ExpectTheHostsBits(noise, options, 4);
      }
    }
  }
}

TEST(DeviceFeed, PicturesTooLargeToBeGatheredAtOnce) {
  const Noise noise(3, {1, 2100, 2100});  // Two of them are more than 8 Mi pixels.
  BatchesOptions options = OptionsFor(3);
  options.augment = {.horizontal_flip = true, .crop_padding = 40};
  ExpectTheHostsBits(noise, options, 1);
}

TEST(DeviceFeed, Cifar) {
  const TempFolder temp;
  std::vector<char> records(10000 * 3073);
  CounterRng random(2, RandomPurpose::kShapesEval);
  for (size_t i = 0; i < records.size(); ++i) {
    records[i] = static_cast<char>(i % 3073 == 0 ? random.Below(10) : random.Next() & 0xff);
  }
  std::ofstream(temp.path() / "test_batch.bin", std::ios::binary)
      .write(records.data(), static_cast<std::streamsize>(records.size()));
  const auto cifar = OpenCifar({.path = temp.path(), .split = Split::kEval});
  BatchesOptions options = OptionsFor(512);
  options.augment = {.horizontal_flip = true, .crop_padding = 4};
  options.first_step = 15;  // Passes into the second epoch.
  ExpectTheHostsBits(*cifar, options, 8);
}

// A captured graph reads the same addresses each time.
TEST(DeviceFeed, TheTensorsOfEveryBatchAreTheSameMemory) {
  const Noise noise(50, {3, 4, 4});
  for (const config::Use resident : {config::Use::kAlways, config::Use::kNever}) {
    Batches batches(noise, Fed(OptionsFor(8), resident));
    const Batch first = batches.Next();
    for (int i = 0; i < 20; ++i) {
      const Batch batch = batches.Next();
      ASSERT_EQ(batch.images.const_data_ptr(), first.images.const_data_ptr());
      ASSERT_EQ(batch.targets.values.const_data_ptr(), first.targets.values.const_data_ptr());
    }
  }
}

TEST(DeviceFeed, AfterAwaitTheBatchIsThere) {
  const Noise noise(50, {3, 4, 4});
  for (const bool fed : {false, true}) {
    BatchesOptions options = OptionsFor(8);
    options.feed_on_cpu = fed;
    Batches batches(noise, options);
    for (int64_t step = 0; step < 20; ++step) {
      batches.Await();
      if (step % 2 == 0) batches.Await();
      ASSERT_EQ(batches.Next().step, step);
    }
    EXPECT_EQ(batches.samples_read(), 160);
  }
}

TEST(DeviceFeed, AutoKeepsResidentWhatTakesAtMostAQuarterOfWhatIsFree) {
  const Noise noise(10, {3, 4, 4});
  BatchesOptions options = Fed(OptionsFor(5), config::Use::kAuto);
  options.free_device_bytes = 4 * 480;
  EXPECT_TRUE(Batches(noise, options).resident());
  options.free_device_bytes = 4 * 480 - 1;
  EXPECT_FALSE(Batches(noise, options).resident());
}

TEST(DeviceFeed, CpuRanksNeverKeepPicturesResident) {
  const Noise noise(10, {3, 4, 4});
  BatchesOptions options = OptionsFor(5);
  options.resident = config::Use::kAlways;
  EXPECT_FALSE(Batches(noise, options).resident());
}

TEST(DeviceFeed, HeldOutPicturesHaveTheHostsBits) {
  const Noise noise(23, {3, 6, 5});
  for (const int world_size : {1, 2, 3}) {
    for (int rank = 0; rank < world_size; ++rank) {
      BatchesOptions options = OptionsFor(4);
      options.rank = rank;
      options.world_size = world_size;
      options.augment = {.horizontal_flip = true, .crop_padding = 2};  // Not for these.
      EvalBatches host(noise, options);
      EvalBatches fed(noise, Fed(options, config::Use::kAlways));
      ASSERT_EQ(fed.count(), host.count());
      for (int64_t i = 0; i < host.count(); ++i) {
        const Batch expected = host.Next();
        const Batch batch = fed.Next();
        ASSERT_EQ(batch.step, i);
        ASSERT_TRUE(at::equal(batch.images, expected.images));
        ASSERT_TRUE(at::equal(batch.targets.values, expected.targets.values));
      }
      EXPECT_THROW(fed.Next(), std::out_of_range);
    }
  }
}

// Fails at one picture.
class Broken final : public Noise {
 public:
  using Noise::Noise;
  void Read(int64_t index, Sample& sample) const override {
    if (index == 17) throw DataError("train/cat/17.jpg: broken");
    Noise::Read(index, sample);
  }
};

TEST(DeviceFeed, AResidentSetThatCannotBeReadNamesTheFile) {
  const Broken broken(40, {3, 4, 4});
  try {
    Batches batches(broken, Fed(OptionsFor(4), config::Use::kAlways));
    FAIL() << "no error";
  } catch (const DataError& error) {
    EXPECT_STREQ(error.what(), "train/cat/17.jpg: broken");
  }
}

TEST(DeviceFeed, ATravellingBatchThatCannotBeReadFailsAtItsStepAndAgain) {
  const Broken broken(40, {3, 4, 4});
  Batches host(broken, OptionsFor(4));
  Batches fed(broken, Fed(OptionsFor(4), config::Use::kNever));
  int64_t steps = 0;
  try {
    for (; steps < 10; ++steps) host.Next();
    FAIL() << "no error in an epoch";
  } catch (const DataError&) {
  }
  for (int64_t step = 0; step < steps; ++step) ASSERT_EQ(fed.Next().step, step);
  for (int again = 0; again < 2; ++again) EXPECT_THROW(fed.Next(), DataError);
}

TEST(DeviceFeed, ResidentPicturesComeInChunksAndInOrder) {
  // Chunks of five pictures: 16 MiB hold no more of this size.
  const Noise noise(12, {3, 1000, 1100});
  const ResidentSet set(noise, at::kCPU, 3);
  ASSERT_EQ(set.pixels().sizes(), (std::vector<int64_t>{1 + 12 * 1000 * 1100, 3}));
  EXPECT_EQ(set.pixels().narrow(0, 0, 1).sum().item<int64_t>(), 0);
  Sample sample;
  const auto* bytes = set.pixels().const_data_ptr<uint8_t>() + 3;
  for (int64_t i = 0; i < 12; ++i, bytes += 3 * 1000 * 1100) {
    noise.Read(i, sample);
    Sample answer;
    set.Answer(i, answer);
    EXPECT_EQ(answer.label, sample.label);
    EXPECT_TRUE(std::equal(sample.picture.pixels.begin(), sample.picture.pixels.end(), bytes));
  }
}

}  // namespace
}  // namespace lockstep::trainer
