#include "trainer/pictures/picture_changes.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <ostream>
#include <set>
#include <vector>

#include "trainer/pictures/counter_rng.h"

namespace lockstep::trainer {

void PrintTo(const Box& box, std::ostream* out) {
  *out << "{" << box.x << ", " << box.y << ", " << box.width << ", " << box.height << "}";
}

namespace {

using ::testing::ElementsAre;

Picture NoisePicture(int width, int height, int channels, uint32_t seed = 1) {
  Picture picture{width, height, channels, {}};
  CounterRng random(seed, RandomPurpose::kShapesTrain);
  for (int i = 0; i < width * height * channels; ++i) {
    picture.pixels.push_back(static_cast<uint8_t>(random.Next()));
  }
  return picture;
}

Picture OnePixel(uint8_t red, uint8_t green, uint8_t blue) {
  return {1, 1, 3, {red, green, blue}};
}

TEST(Rotate, ByNothingAndByATurnChangesNothing) {
  const Picture in = NoisePicture(7, 5, 3);
  Picture out;
  Rotate(in, 0, out);
  EXPECT_EQ(out.pixels, in.pixels);
  Rotate(in, 360, out);
  EXPECT_EQ(out.pixels, in.pixels);
}

TEST(Rotate, ByRightAnglesMovesPixelsExactly) {
  const Picture in{3, 3, 1, {1, 2, 3, 4, 5, 6, 7, 8, 9}};
  Picture out;
  Rotate(in, 90, out);  // Counterclockwise.
  EXPECT_THAT(out.pixels, ElementsAre(3, 6, 9, 2, 5, 8, 1, 4, 7));
  Rotate(in, -90, out);
  EXPECT_THAT(out.pixels, ElementsAre(7, 4, 1, 8, 5, 2, 9, 6, 3));
  Rotate(in, 180, out);
  EXPECT_THAT(out.pixels, ElementsAre(9, 8, 7, 6, 5, 4, 3, 2, 1));
}

TEST(Rotate, CornersComeFromOutsideAndAreBlackTheMiddleStays) {
  const Picture in{21, 21, 1, std::vector<uint8_t>(441, 200)};
  Picture out;
  Rotate(in, 45, out);
  EXPECT_EQ(out.pixels[0], 0);
  EXPECT_EQ(out.pixels[20], 0);
  EXPECT_EQ(out.pixels[440], 0);
  EXPECT_EQ(out.pixels[220], 200);
}

TEST(Colors, UnchangedIsUntouched) {
  Picture picture = NoisePicture(9, 9, 3);
  const Picture before = picture;
  ChangeColors({}, picture);
  EXPECT_EQ(picture.pixels, before.pixels);
}

TEST(Colors, BrightnessMultipliesAndStopsAtWhite) {
  Picture picture = OnePixel(10, 101, 200);
  ChangeColors({.brightness = 65536 * 3 / 2}, picture);
  EXPECT_THAT(picture.pixels, ElementsAre(15, 152, 255));
}

TEST(Colors, ContrastOfNothingIsTheMeanLightness) {
  Picture picture{2, 1, 3, {0, 0, 0, 100, 100, 100}};
  ChangeColors({.contrast = 0}, picture);
  EXPECT_EQ(picture.pixels, std::vector<uint8_t>(6, 50));
  picture = {2, 1, 3, {40, 40, 40, 60, 60, 60}};
  ChangeColors({.contrast = 2 * 65536}, picture);
  EXPECT_EQ(picture.pixels, (std::vector<uint8_t>{30, 30, 30, 70, 70, 70}));
}

TEST(Colors, SaturationOfNothingIsGreyByBt601) {
  Picture picture = OnePixel(255, 0, 0);
  ChangeColors({.saturation = 0}, picture);
  EXPECT_THAT(picture.pixels, ElementsAre(76, 76, 76));
}

TEST(Colors, AThirdOfTheCircleTurnsRedToGreenToBlue) {
  Picture picture = OnePixel(200, 50, 50);
  ChangeColors({.hue = 8192}, picture);
  EXPECT_THAT(picture.pixels, ElementsAre(50, 200, 50));
  ChangeColors({.hue = 8192}, picture);
  EXPECT_THAT(picture.pixels, ElementsAre(50, 50, 200));
  ChangeColors({.hue = -16384}, picture);
  EXPECT_THAT(picture.pixels, ElementsAre(200, 50, 50));
}

TEST(Colors, AWholeTurnOfHueGivesEveryColourBack) {
  for (int red = 0; red < 256; red += 15) {
    for (int green = 0; green < 256; green += 15) {
      for (int blue = 0; blue < 256; blue += 15) {
        Picture picture = OnePixel(static_cast<uint8_t>(red), static_cast<uint8_t>(green),
                                   static_cast<uint8_t>(blue));
        const Picture before = picture;
        ChangeColors({.hue = 24576}, picture);
        ASSERT_EQ(picture.pixels, before.pixels);
      }
    }
  }
}

TEST(Colors, TheOrderIsFollowed) {
  using Kind = ColorChange::Kind;
  const auto changed = [](const std::array<Kind, 4>& order) {
    Picture picture{2, 1, 3, {200, 200, 200, 240, 240, 240}};
    ChangeColors({.order = order, .brightness = 2 * 65536, .contrast = 0}, picture);
    return picture.pixels[0];
  };
  // Both become white first; or both 220 first, then white.
  EXPECT_EQ(changed({Kind::kBrightness, Kind::kContrast, Kind::kSaturation, Kind::kHue}), 255);
  EXPECT_EQ(changed({Kind::kContrast, Kind::kBrightness, Kind::kSaturation, Kind::kHue}), 255);
  const auto darkened = [](const std::array<Kind, 4>& order) {
    Picture picture{2, 1, 3, {0, 0, 0, 200, 200, 200}};
    ChangeColors({.order = order, .brightness = 2 * 65536, .contrast = 0}, picture);
    return picture.pixels[0];
  };
  EXPECT_EQ(darkened({Kind::kBrightness, Kind::kContrast, Kind::kSaturation, Kind::kHue}), 128);
  EXPECT_EQ(darkened({Kind::kContrast, Kind::kBrightness, Kind::kSaturation, Kind::kHue}), 200);
}

TEST(Colors, GreyPicturesKnowNoHueAndNoSaturation) {
  Picture picture = NoisePicture(5, 5, 1);
  const Picture before = picture;
  ChangeColors({.saturation = 0, .hue = 3000}, picture);
  EXPECT_EQ(picture.pixels, before.pixels);
}

TEST(Erase, FillsTheBoxAndNothingElse) {
  Picture picture{3, 2, 3, std::vector<uint8_t>(18, 9)};
  Erase({1, 0, 2, 1}, {1, 2, 3}, picture);
  EXPECT_EQ(picture.pixels,
            (std::vector<uint8_t>{9, 9, 9, 1, 2, 3, 1, 2, 3, 9, 9, 9, 9, 9, 9, 9, 9, 9}));
  Erase({}, {7, 7, 7}, picture);
  EXPECT_EQ(std::count(picture.pixels.begin(), picture.pixels.end(), 7), 0);
}

TEST(Mix, BlendsWithRounding) {
  Picture picture{2, 1, 1, {100, 255}};
  const Picture other{2, 1, 1, {0, 255}};
  Mix({.weight = 65536 / 4}, other, picture);
  EXPECT_THAT(picture.pixels, ElementsAre(25, 255));
  Mix({.weight = 65536}, other, picture);
  EXPECT_THAT(picture.pixels, ElementsAre(25, 255));
  Mix({.weight = 0}, other, picture);
  EXPECT_THAT(picture.pixels, ElementsAre(0, 255));
}

TEST(Mix, CutTakesTheBoxOfTheOther) {
  Picture picture{3, 2, 1, {1, 2, 3, 4, 5, 6}};
  Mix({.cut = true, .box = {1, 0, 2, 2}}, {3, 2, 1, {11, 12, 13, 14, 15, 16}}, picture);
  EXPECT_THAT(picture.pixels, ElementsAre(1, 12, 13, 4, 15, 16));
}

TEST(Draw, CropsKeepAreaAndRatioWithinTheirRanges) {
  config::AugmentConfig config;
  config.resized_crop = 0.2;
  double sum = 0;
  for (int i = 0; i < 2000; ++i) {
    const Box box = DrawCrop(config, {1, 2, i}, 500, 375);
    ASSERT_GE(box.x, 0);
    ASSERT_GE(box.y, 0);
    ASSERT_LE(box.x + box.width, 500);
    ASSERT_LE(box.y + box.height, 375);
    const double area = box.width * box.height / (500.0 * 375);
    const double ratio = static_cast<double>(box.width) / box.height;
    EXPECT_GT(area, 0.195);
    EXPECT_LE(area, 1.0);
    EXPECT_GT(ratio, 0.74);
    EXPECT_LT(ratio, 1.35);
    sum += area;
  }
  // Less than the middle of the range: a crop of ratio r fits only up to an area of 0.75 r.
  EXPECT_NEAR(sum / 2000, 0.49, 0.02);
}

TEST(Draw, ACropThatNeverFitsIsTheCentre) {
  config::AugmentConfig config;
  config.resized_crop = 1;
  EXPECT_EQ(DrawCrop(config, {1, 0, 0}, 1000, 10), (Box{493, 0, 13, 10}));
  EXPECT_EQ(DrawCrop(config, {1, 0, 0}, 10, 1000), (Box{0, 493, 10, 13}));
  EXPECT_EQ(DrawCrop(config, {1, 0, 0}, 1, 1), (Box{0, 0, 1, 1}));
}

TEST(Draw, AnglesCoverTheRangeBothWays) {
  config::AugmentConfig config;
  config.rotation_degrees = 30;
  double least = 0, most = 0;
  for (int i = 0; i < 1000; ++i) {
    const double degrees = DrawDegrees(config, {1, 0, i});
    least = std::min(least, degrees);
    most = std::max(most, degrees);
  }
  EXPECT_NEAR(least, -30, 0.5);
  EXPECT_NEAR(most, 30, 0.5);
}

TEST(Draw, ColourFactorsStayInRangeAndEveryOrderComes) {
  const config::ColorJitterConfig config{
      .brightness = 0.5, .contrast = 0.25, .saturation = 1, .hue = 0.1};
  std::set<std::array<ColorChange::Kind, 4>> orders;
  for (int i = 0; i < 1000; ++i) {
    const ColorChange change = DrawColorChange(config, {3, 1, i});
    EXPECT_NEAR(change.brightness, 65536, 32768);
    EXPECT_NEAR(change.contrast, 65536, 16384);
    EXPECT_NEAR(change.saturation, 65536, 65536);
    EXPECT_LE(std::abs(change.hue), 2458);
    orders.insert(change.order);
  }
  EXPECT_EQ(orders.size(), 24u);
}

TEST(Draw, ColourSettingsDoNotChangeOneAnother) {
  const ColorChange all =
      DrawColorChange({.brightness = 0.4, .contrast = 0.4, .hue = 0.2}, {1, 2, 3});
  const ColorChange one = DrawColorChange({.contrast = 0.4}, {1, 2, 3});
  EXPECT_EQ(one.contrast, all.contrast);
  EXPECT_EQ(one.brightness, 65536);
  EXPECT_EQ(one.saturation, 65536);
  EXPECT_EQ(one.hue, 0);
  EXPECT_EQ(one.order, all.order);
}

TEST(Draw, ErasesAsOftenAsAskedWithinItsRanges) {
  config::AugmentConfig config;
  config.random_erasing = 0.25;
  int erased = 0;
  for (int i = 0; i < 4000; ++i) {
    const Box box = DrawErasing(config, {1, 0, i}, 224, 224);
    if (box.width == 0) continue;
    ++erased;
    const double area = box.width * box.height / (224.0 * 224);
    EXPECT_GT(area, 0.018);
    EXPECT_LT(area, 0.34);
    ASSERT_LE(box.x + box.width, 224);
    ASSERT_LE(box.y + box.height, 224);
  }
  EXPECT_NEAR(erased, 1000, 140);  // Five standard deviations.
}

// Beta(alpha, alpha) has mean 1/2 and variance 1 / (4 (2 alpha + 1)).
TEST(Draw, MixupSharesHaveTheBetaDistributionsMoments) {
  for (const double alpha : {0.05, 0.2, 1.0, 4.0, 100.0}) {
    config::AugmentConfig config;
    config.mixup = alpha;
    double sum = 0, squares = 0;
    constexpr int kDraws = 20000;
    for (int i = 0; i < kDraws; ++i) {
      const Mixing mixing = DrawMixing(config, {5, 0, i}, 8, 8);
      ASSERT_FALSE(mixing.cut);
      ASSERT_GE(mixing.weight, 0);
      ASSERT_LE(mixing.weight, 65536);
      EXPECT_EQ(mixing.share, static_cast<float>(mixing.weight) / 65536);
      sum += mixing.share;
      squares += (mixing.share - 0.5) * (mixing.share - 0.5);
    }
    const double variance = 1 / (4 * (2 * alpha + 1));
    EXPECT_NEAR(sum / kDraws, 0.5, 5 * std::sqrt(variance / kDraws)) << alpha;
    EXPECT_NEAR(squares / kDraws, variance, 0.05 * variance) << alpha;
  }
}

TEST(Draw, CutmixSharesArePixelsLeft) {
  config::AugmentConfig config;
  config.cutmix = 1;
  double sum = 0;
  for (int i = 0; i < 2000; ++i) {
    const Mixing mixing = DrawMixing(config, {5, 0, i}, 20, 10);
    ASSERT_TRUE(mixing.cut);
    ASSERT_GE(mixing.box.x, 0);
    ASSERT_GE(mixing.box.y, 0);
    ASSERT_LE(mixing.box.x + mixing.box.width, 20);
    ASSERT_LE(mixing.box.y + mixing.box.height, 10);
    EXPECT_FLOAT_EQ(mixing.share,
                    static_cast<float>(200 - mixing.box.width * mixing.box.height) / 200);
    sum += mixing.share;
  }
  EXPECT_GT(sum / 2000, 0.5);
  EXPECT_LT(sum / 2000, 0.75);
}

TEST(Draw, WithBothACoinDecides) {
  config::AugmentConfig config;
  config.mixup = 0.4;
  config.cutmix = 1;
  int cuts = 0;
  for (int i = 0; i < 2000; ++i) cuts += DrawMixing(config, {5, 3, i}, 8, 8).cut ? 1 : 0;
  EXPECT_NEAR(cuts, 1000, 112);  // Five standard deviations.
}

// Changing these changes every run that uses them.
TEST(Draw, NumbersAreFixedForEver) {
  config::AugmentConfig config;
  config.resized_crop = 0.08;
  config.rotation_degrees = 15;
  config.random_erasing = 1;
  config.mixup = 0.2;
  const DrawKey key{42, 3, 1234};
  EXPECT_EQ(DrawCrop(config, key, 500, 375), (Box{91, 2, 350, 370}));
  EXPECT_NEAR(DrawDegrees(config, key), 13.0149, 1e-4);
  EXPECT_EQ(DrawErasing(config, key, 224, 224), (Box{101, 145, 48, 52}));
  EXPECT_EQ(DrawMixing(config, key, 224, 224).weight, 49101);
  config.cutmix = 1;
  config.mixup = 0;
  EXPECT_EQ(DrawMixing(config, key, 224, 224).box, (Box{0, 0, 159, 108}));
}

}  // namespace
}  // namespace lockstep::trainer
