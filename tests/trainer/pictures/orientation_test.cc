#include "trainer/pictures/orientation.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/trainer/pictures/pictures.h"
#include "tests/trainer/pictures/web_pictures.h"
#include "trainer/pictures/decode.h"

namespace lockstep::trainer {
namespace {

// Upright: 1 2 3
//          4 5 6
struct Stored {
  int orientation;
  int width, height;
  std::vector<uint8_t> pixels;
};

std::vector<Stored> AllStored() {
  return {{1, 3, 2, {1, 2, 3, 4, 5, 6}}, {2, 3, 2, {3, 2, 1, 6, 5, 4}},
          {3, 3, 2, {6, 5, 4, 3, 2, 1}}, {4, 3, 2, {4, 5, 6, 1, 2, 3}},
          {5, 2, 3, {1, 4, 2, 5, 3, 6}}, {6, 2, 3, {3, 6, 2, 5, 1, 4}},
          {7, 2, 3, {6, 3, 5, 2, 4, 1}}, {8, 2, 3, {4, 1, 5, 2, 6, 3}}};
}

TEST(Orientation, AllEightComeOutUpright) {
  for (const Stored& stored : AllStored()) {
    Picture picture{stored.width, stored.height, 1, stored.pixels};
    TurnUpright(stored.orientation, picture);
    EXPECT_EQ(picture.width, 3) << stored.orientation;
    EXPECT_EQ(picture.height, 2) << stored.orientation;
    EXPECT_EQ(picture.pixels, (std::vector<uint8_t>{1, 2, 3, 4, 5, 6})) << stored.orientation;
  }
}

TEST(Orientation, IsReadInEitherByteOrderWithAndWithoutPrefix) {
  for (int orientation = 1; orientation <= 8; ++orientation) {
    for (const bool little : {true, false}) {
      const std::string exif = Exif(orientation, little);
      EXPECT_EQ(OrientationOfExif(ToBytes(exif)), orientation);
      EXPECT_EQ(OrientationOfExif(ToBytes(std::string("Exif\0\0", 6) + exif)), orientation);
    }
  }
}

TEST(Orientation, WhatIsDamagedOrOutOfRangeIsUpright) {
  EXPECT_EQ(OrientationOfExif(ToBytes(Exif(0))), kUpright);
  EXPECT_EQ(OrientationOfExif(ToBytes(Exif(9))), kUpright);
  EXPECT_EQ(OrientationOfExif({}), kUpright);
  const std::string whole = Exif(6);
  for (size_t length = 0; length < whole.size() - 6; ++length) {
    EXPECT_EQ(OrientationOfExif(ToBytes(whole.substr(0, length))), kUpright) << length;
  }
  for (size_t i = 0; i < whole.size(); ++i) {
    std::string changed = whole;
    changed[i] = '\xFF';
    const int orientation = OrientationOfExif(ToBytes(changed));
    EXPECT_TRUE(orientation == kUpright || orientation == 6) << i;
  }
}

// Blocks of 16 pixels, each of one colour, so that JPEG keeps them apart.
Encoded Blocks(const Stored& stored) {
  std::vector<uint8_t> pixels;
  for (int y = 0; y < stored.height * 16; ++y) {
    for (int x = 0; x < stored.width * 16; ++x) {
      pixels.push_back(static_cast<uint8_t>(
          40 * stored.pixels[static_cast<size_t>(y / 16 * stored.width + x / 16)]));
    }
  }
  return EncodeJpeg(
      {.width = stored.width * 16, .height = stored.height * 16, .space = JCS_GRAYSCALE}, pixels);
}

TEST(Orientation, OfAJpegIsFollowedInSizeAndPixelsAtEveryScale) {
  for (const Stored& stored : AllStored()) {
    const Encoded bytes = WithExif(Blocks(stored), Exif(stored.orientation));
    EXPECT_EQ(DecodeSize(bytes, "a"), (PictureSize{48, 32}));
    for (const int scale : {1, 2, 4}) {
      Picture picture;
      Decode(bytes, "a", {.least_width = 48 / scale, .least_height = 32 / scale}, picture);
      ASSERT_EQ(picture.width, 48 / scale);
      ASSERT_EQ(picture.height, 32 / scale);
      for (int row = 0; row < 2; ++row) {
        for (int column = 0; column < 3; ++column) {
          const int middle = 8 / scale;
          const int at =
              ((row * 16 / scale + middle) * picture.width + column * 16 / scale + middle);
          EXPECT_NEAR(picture.pixels[static_cast<size_t>(3 * at)], 40 * (1 + row * 3 + column), 3)
              << stored.orientation << " at 1/" << scale;
        }
      }
    }
  }
}

TEST(Orientation, OfAPictureThatIsNotUprightAPartIsInTheUprightsPlaces) {
  const Stored stored = AllStored()[5];
  const Encoded bytes = WithExif(Blocks(stored), Exif(stored.orientation));
  const Picture whole = Decode(bytes, "a");
  Picture picture;
  Decode(bytes, "a", {.part = [](int, int) { return Box{40, 3, 8, 5}; }}, picture);
  for (int y = 3; y < 8; ++y) {
    for (int x = 40; x < 48; ++x) {
      const auto at = static_cast<size_t>((y * 48 + x) * 3);
      ASSERT_EQ(picture.pixels[at], whole.pixels[at]);
    }
  }
}

std::string Chunk(const std::string& name, const std::string& content, bool little_endian) {
  std::string length;
  for (int i = 0; i < 4; ++i) {
    const int shift = 8 * (little_endian ? i : 3 - i);
    length += static_cast<char>(content.size() >> shift & 255);
  }
  return little_endian ? name + length + content + std::string(content.size() % 2, '\0')
                       : length + name + content;
}

TEST(Orientation, OfAPngComesFromItsChunk) {
  const Encoded plain = FlatPng(4, 2, {1, 2, 3});
  // Behind the header (8 + 25 bytes). The checksum is libpng's to look at, which skips this chunk.
  Encoded bytes(plain.begin(), plain.begin() + 33);
  const Encoded chunk = ToBytes(Chunk("eXIf", Exif(6, false), false));
  bytes.insert(bytes.end(), chunk.begin(), chunk.end());
  png_uint_32 checksum = 0xFFFFFFFF;
  for (size_t i = 4; i < chunk.size(); ++i) {
    checksum ^= std::to_integer<png_uint_32>(chunk[i]);
    for (int bit = 0; bit < 8; ++bit) {
      checksum = (checksum & 1) != 0 ? checksum >> 1 ^ 0xEDB88320 : checksum >> 1;
    }
  }
  for (int i = 3; i >= 0; --i) bytes.push_back(static_cast<std::byte>(~checksum >> 8 * i & 255));
  bytes.insert(bytes.end(), plain.begin() + 33, plain.end());
  EXPECT_EQ(OrientationOfPng(plain), kUpright);
  EXPECT_EQ(OrientationOfPng(bytes), 6);
  EXPECT_EQ(DecodeSize(bytes, "a"), (PictureSize{2, 4}));
  const Picture picture = Decode(bytes, "a");
  EXPECT_EQ(picture.width, 2);
  EXPECT_EQ(picture.height, 4);
}

TEST(Orientation, OfAWebpComesFromItsChunk) {
  std::vector<uint8_t> pixels(4 * 2 * 3, 100);
  const Encoded plain = EncodeWebp(4, 2, pixels);
  const std::string image(reinterpret_cast<const char*>(plain.data()) + 12, plain.size() - 12);
  const std::string features({8, 0, 0, 0, 3, 0, 0, 1, 0, 0});  // EXIF; sides minus one.
  const std::string content =
      "WEBP" + Chunk("VP8X", features, true) + image + Chunk("EXIF", Exif(8), true);
  const Encoded bytes = ToBytes(Chunk("RIFF", content, true));
  EXPECT_EQ(OrientationOfWebp(plain), kUpright);
  EXPECT_EQ(OrientationOfWebp(bytes), 8);
  EXPECT_EQ(DecodeSize(bytes, "a"), (PictureSize{2, 4}));
  EXPECT_EQ(Decode(bytes, "a").height, 4);
}

}  // namespace
}  // namespace lockstep::trainer
