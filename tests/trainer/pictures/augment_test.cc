#include "trainer/pictures/augment.h"

#include <gtest/gtest.h>

#include <array>
#include <set>
#include <utility>

#include "trainer/pictures/picture_changes.h"

namespace lockstep::trainer {
namespace {

Picture Numbered(int width, int height, int channels) {
  Picture picture{width, height, channels, {}};
  for (int i = 0; i < width * height * channels; ++i) {
    picture.pixels.push_back(static_cast<uint8_t>(i + 1));
  }
  return picture;
}

TEST(Augment, IsAFunctionOfSeedEpochAndSample) {
  const config::AugmentConfig config{.horizontal_flip = true, .crop_padding = 4};
  const auto draw = [&](uint64_t seed, int64_t epoch, int64_t sample) {
    const Augmentation a = DrawAugmentation(config, {seed, epoch, sample});
    return std::array<int, 3>{a.flip, a.shift_x, a.shift_y};
  };
  std::set<std::array<int, 3>> by_seed, by_epoch, by_sample;
  for (int i = 0; i < 50; ++i) {
    EXPECT_EQ(draw(1, 2, i), draw(1, 2, i));
    by_seed.insert(draw(static_cast<uint64_t>(i), 2, 3));
    by_epoch.insert(draw(1, i, 3));
    by_sample.insert(draw(1, 2, i));
  }
  // 50 draws of 162: far more than one differ.
  EXPECT_GT(by_seed.size(), 30u);
  EXPECT_GT(by_epoch.size(), 30u);
  EXPECT_GT(by_sample.size(), 30u);
}

TEST(Augment, FlipsHalfAndShiftsAllOverTheRange) {
  const config::AugmentConfig config{.horizontal_flip = true, .crop_padding = 2};
  int flips = 0;
  std::set<std::pair<int, int>> shifts;
  for (int sample = 0; sample < 4000; ++sample) {
    const Augmentation a = DrawAugmentation(config, {1, 0, sample});
    flips += a.flip ? 1 : 0;
    EXPECT_LE(std::abs(a.shift_x), 2);
    EXPECT_LE(std::abs(a.shift_y), 2);
    shifts.emplace(a.shift_x, a.shift_y);
  }
  EXPECT_NEAR(flips, 2000, 160);  // Five standard deviations.
  EXPECT_EQ(shifts.size(), 25u);
}

TEST(Augment, OffMeansUntouched) {
  for (int sample = 0; sample < 100; ++sample) {
    const Augmentation a = DrawAugmentation({}, {1, 0, sample});
    EXPECT_FALSE(a.flip);
    EXPECT_EQ(a.shift_x, 0);
    EXPECT_EQ(a.shift_y, 0);
  }
}

TEST(Augment, OneSettingDoesNotChangeWhatTheOtherDoes) {
  for (int sample = 0; sample < 100; ++sample) {
    const auto both =
        DrawAugmentation({.horizontal_flip = true, .crop_padding = 4}, {1, 0, sample});
    const auto crop =
        DrawAugmentation({.horizontal_flip = false, .crop_padding = 4}, {1, 0, sample});
    const auto flip =
        DrawAugmentation({.horizontal_flip = true, .crop_padding = 0}, {1, 0, sample});
    EXPECT_EQ(both.flip, flip.flip);
    EXPECT_EQ(both.shift_x, crop.shift_x);
    EXPECT_EQ(both.shift_y, crop.shift_y);
  }
}

TEST(Augment, FlipMirrorsEachRowPixelByPixel) {
  const Picture in = Numbered(3, 2, 3);
  Picture out;
  Apply({.flip = true}, in, out);
  EXPECT_EQ(out.width, 3);
  EXPECT_EQ(out.height, 2);
  EXPECT_EQ(out.pixels, (std::vector<uint8_t>{7, 8, 9, 4, 5, 6, 1, 2, 3,  //
                                              16, 17, 18, 13, 14, 15, 10, 11, 12}));
}

TEST(Augment, ShiftFillsWithBlack) {
  const Picture in = Numbered(3, 2, 1);
  Picture out;
  Apply({.shift_x = 1, .shift_y = 0}, in, out);
  EXPECT_EQ(out.pixels, (std::vector<uint8_t>{0, 1, 2, 0, 4, 5}));
  Apply({.shift_x = -2, .shift_y = 1}, in, out);
  EXPECT_EQ(out.pixels, (std::vector<uint8_t>{0, 0, 0, 3, 0, 0}));
  Apply({.shift_x = 0, .shift_y = -1}, in, out);
  EXPECT_EQ(out.pixels, (std::vector<uint8_t>{4, 5, 6, 0, 0, 0}));
  Apply({.flip = true, .shift_x = 1, .shift_y = 0}, in, out);
  EXPECT_EQ(out.pixels, (std::vector<uint8_t>{2, 1, 0, 5, 4, 0}));
  Apply({.shift_x = 5, .shift_y = 0}, in, out);
  EXPECT_EQ(out.pixels, std::vector<uint8_t>(6, 0));
}

}  // namespace
}  // namespace lockstep::trainer
