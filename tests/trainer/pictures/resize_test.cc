#include "trainer/pictures/resize.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "tests/trainer/pictures/resize_golden.h"
#include "trainer/pictures/preprocessing.h"

namespace lockstep::trainer {
namespace {

// The centre square.
void ResizeToSquare(const Picture& in, int size, Picture& out) {
  Preprocessing p;
  p.channels = in.channels;
  p.height = p.width = p.shorter_side = size;
  Resize(in, p, out);
}

// The same as picture() in resize_golden.py.
Picture TestPicture(int width, int height) {
  Picture picture{width, height, 3, {}};
  for (int y = 0; y < height; ++y) {
    for (int x = 0; x < width; ++x) {
      for (int c = 0; c < 3; ++c) {
        picture.pixels.push_back(
            static_cast<uint8_t>((x * x * 3 + y * (5 + x) + c * 85 + (x * y) / 7) % 256));
      }
    }
  }
  return picture;
}

TEST(Resize, IsWhatPillowAndTorchvisionMakeToALevel) {
  for (const ResizeGolden& golden : ResizeGoldens()) {
    Preprocessing p;
    p.width = golden.width;
    p.height = golden.height;
    p.shorter_side = golden.shorter_side;
    p.resize = golden.shorter_side > 0 ? config::ResizeRule::kCrop : config::ResizeRule::kStretch;
    Picture out;
    Resize(TestPicture(golden.old_width, golden.old_height), p, out);
    ASSERT_EQ(out.width, golden.width) << golden.what;
    ASSERT_EQ(out.height, golden.height) << golden.what;
    ASSERT_EQ(out.pixels.size(), golden.pixels.size()) << golden.what;
    int most = 0;
    for (size_t i = 0; i < out.pixels.size(); ++i) {
      most = std::max(most, std::abs(out.pixels[i] - golden.pixels[i]));
    }
    EXPECT_LE(most, 1) << golden.what;
  }
}

TEST(Resize, ABoxIsResizedAsIfNothingWereAroundIt) {
  const Picture in = TestPicture(40, 30);
  Picture cut{12, 9, 3, {}};
  for (int y = 0; y < 9; ++y) {
    const auto from = in.pixels.begin() + ((y + 8) * 40 + 5) * 3;
    cut.pixels.insert(cut.pixels.end(), from, from + 12 * 3);
  }
  for (const auto& [width, height] : {std::pair{7, 5}, {24, 31}, {12, 9}}) {
    Picture expected, out;
    ResizeBox(cut, {0, 0, 12, 9}, width, height, expected);
    ResizeBox(in, {5, 8, 12, 9}, width, height, out);
    EXPECT_EQ(out.pixels, expected.pixels);
  }
}

TEST(Resize, OneChannelIsTheLightnessOfThree) {
  Preprocessing p;
  p.channels = 1;
  p.height = p.width = p.shorter_side = 1;
  Picture out;
  Resize({1, 1, 3, {255, 0, 0}}, p, out);
  EXPECT_EQ(out.channels, 1);
  EXPECT_EQ(out.pixels, std::vector<uint8_t>{76});
}

Picture Grey(int width, int height, const std::vector<uint8_t>& pixels) {
  return {width, height, 1, pixels};
}

TEST(Resize, SameSizeChangesNothing) {
  Picture in{5, 5, 3, {}};
  for (int i = 0; i < 75; ++i) in.pixels.push_back(static_cast<uint8_t>(i * 37));
  Picture out;
  ResizeToSquare(in, 5, out);
  EXPECT_EQ(out.pixels, in.pixels);
}

TEST(Resize, AFlatPictureStaysExactlyFlatAtAnySize) {
  for (const auto& [width, height] : {std::pair{7, 7}, {100, 33}, {3, 64}, {1, 1}}) {
    for (const int size : {1, 2, 5, 32, 77}) {
      Picture in{width, height, 3,
                 std::vector<uint8_t>(static_cast<size_t>(width * height * 3), 201)};
      Picture out;
      ResizeToSquare(in, size, out);
      ASSERT_EQ(out.width, size);
      ASSERT_EQ(out.height, size);
      EXPECT_EQ(out.pixels, std::vector<uint8_t>(static_cast<size_t>(size * size * 3), 201));
    }
  }
}

TEST(Resize, ShrinkingAveragesInsteadOfSkipping) {
  // A board of single black and white pixels: skipping would give black or white, averaging grey.
  std::vector<uint8_t> board;
  for (int y = 0; y < 64; ++y) {
    for (int x = 0; x < 64; ++x) board.push_back((x + y) % 2 == 0 ? 0 : 255);
  }
  Picture out;
  ResizeToSquare(Grey(64, 64, board), 8, out);
  for (const uint8_t value : out.pixels) EXPECT_NEAR(value, 127.5, 2);
}

TEST(Resize, EnlargingInterpolatesBetweenPixels) {
  Picture out;
  ResizeToSquare(Grey(2, 2, {0, 100, 0, 100}), 4, out);
  // Middles of the new pixels lie at 0.25, 0.75, 1.25, 1.75 old pixels.
  for (size_t row = 0; row < 4; ++row) {
    EXPECT_EQ(out.pixels[4 * row], 0);
    EXPECT_EQ(out.pixels[4 * row + 1], 25);
    EXPECT_EQ(out.pixels[4 * row + 2], 75);
    EXPECT_EQ(out.pixels[4 * row + 3], 100);
  }
}

TEST(Resize, TakesTheCentreOfTheLongerSide) {
  // Six columns, the middle two (a 2 x 2 square) differ.
  Picture wide = Grey(6, 2, {9, 9, 50, 60, 9, 9, 9, 9, 70, 80, 9, 9});
  Picture out;
  ResizeToSquare(wide, 2, out);
  EXPECT_EQ(out.pixels, (std::vector<uint8_t>{50, 60, 70, 80}));
  Picture tall = Grey(2, 6, {9, 9, 9, 9, 50, 60, 70, 80, 9, 9, 9, 9});
  ResizeToSquare(tall, 2, out);
  EXPECT_EQ(out.pixels, (std::vector<uint8_t>{50, 60, 70, 80}));
}

TEST(Resize, ARampStaysARamp) {
  std::vector<uint8_t> ramp;
  for (int y = 0; y < 100; ++y) {
    for (int x = 0; x < 100; ++x) ramp.push_back(static_cast<uint8_t>(2 * x));
  }
  Picture out;
  ResizeToSquare(Grey(100, 100, ramp), 10, out);
  for (int x = 1; x < 9; ++x) {  // The outermost see the edge.
    EXPECT_NEAR(out.pixels[static_cast<size_t>(50 + x)], 2 * (10 * x + 4.5), 1) << x;
  }
}

}  // namespace
}  // namespace lockstep::trainer
