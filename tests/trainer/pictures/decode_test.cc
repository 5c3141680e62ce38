#include "trainer/pictures/decode.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "tests/trainer/pictures/pictures.h"
#include "tests/trainer/pictures/web_pictures.h"

namespace lockstep::trainer {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;

// The error of decoding, "" when there is none.
std::string DecodeError(std::span<const std::byte> bytes, const std::string& name = "a.jpg") {
  try {
    Decode(bytes, name);
  } catch (const DataError& error) {
    return error.what();
  }
  return "";
}

void ExpectFlat(const Picture& picture, int width, int height, const std::vector<int>& rgb,
                int tolerance) {
  ASSERT_EQ(picture.width, width);
  ASSERT_EQ(picture.height, height);
  ASSERT_EQ(picture.channels, 3);
  ASSERT_EQ(picture.pixels.size(), static_cast<size_t>(width * height * 3));
  for (size_t i = 0; i < picture.pixels.size(); ++i) {
    ASSERT_NEAR(picture.pixels[i], rgb[i % 3], tolerance) << "byte " << i;
  }
}

std::vector<uint8_t> Ramp(int width, int height) {
  std::vector<uint8_t> pixels;
  for (int y = 0; y < height; ++y) {
    for (int x = 0; x < width; ++x) {
      pixels.push_back(static_cast<uint8_t>(255 * x / width));
      pixels.push_back(static_cast<uint8_t>(255 * y / height));
      pixels.push_back(static_cast<uint8_t>((x * 7 + y * 13) % 256));
    }
  }
  return pixels;
}

TEST(DecodeJpeg, ColourPictures) {
  ExpectFlat(Decode(FlatJpeg({.width = 17, .height = 9}, {200, 100, 50}), "a.jpg"), 17, 9,
             {200, 100, 50}, 2);
}

TEST(DecodeJpeg, ProgressivePictures) {
  ExpectFlat(Decode(FlatJpeg({.progressive = true}, {20, 100, 250}), "a.jpg"), 16, 16,
             {20, 100, 250}, 2);
}

TEST(DecodeJpeg, GreyBecomesThreeEqualChannels) {
  ExpectFlat(Decode(FlatJpeg({.space = JCS_GRAYSCALE}, {77}), "a.jpg"), 16, 16, {77, 77, 77}, 1);
}

TEST(DecodeJpeg, CmykBecomesRgbByAdobesConventionAndWithout) {
  // With Adobe's marker 255 is no ink: red ink value x black ink value / 255.
  const std::vector<uint8_t> inks = {255, 128, 0, 200};
  ExpectFlat(Decode(FlatJpeg({.space = JCS_CMYK}, inks), "a.jpg"), 16, 16, {200, 100, 0}, 2);
  ExpectFlat(
      Decode(FlatJpeg({.space = JCS_CMYK, .adobe_marker = false}, {0, 127, 255, 55}), "a.jpg"), 16,
      16, {200, 100, 0}, 2);
}

TEST(DecodeJpeg, EveryTruncationIsAnErrorThatNamesTheFile) {
  for (const bool progressive : {false, true}) {
    const Encoded whole =
        EncodeJpeg({.width = 40, .height = 40, .progressive = progressive}, Ramp(40, 40));
    ASSERT_EQ(DecodeError(whole), "");
    for (size_t length = 0; length + 2 < whole.size(); length += 1 + length / 50) {
      ASSERT_THAT(DecodeError(std::span(whole).first(length), "cats/tom.jpg"),
                  StartsWith("cats/tom.jpg: "))
          << "cut at " << length << " of " << whole.size();
    }
  }
}

TEST(DecodeJpeg, ScalesDownNoFurtherThanAsked) {
  const Encoded bytes = EncodeJpeg({.width = 400, .height = 200}, Ramp(400, 200));
  const auto width = [&](int shorter_side) {
    Picture picture;
    Decode(bytes, "a.jpg", {.least_width = shorter_side, .least_height = shorter_side}, picture);
    return picture.width;
  };
  EXPECT_EQ(width(0), 400);
  EXPECT_EQ(width(101), 400);
  EXPECT_EQ(width(100), 200);
  EXPECT_EQ(width(50), 100);
  EXPECT_EQ(width(25), 50);
  EXPECT_EQ(width(1), 50);
}

TEST(DecodeJpeg, ScalesDownOnlyWhileBothSidesStayLargeEnough) {
  const Encoded bytes = EncodeJpeg({.width = 400, .height = 200}, Ramp(400, 200));
  Picture picture;
  Decode(bytes, "a.jpg", {.least_width = 200, .least_height = 50}, picture);
  EXPECT_EQ(picture.width, 200);
  Decode(bytes, "a.jpg", {.least_width = 201, .least_height = 50}, picture);
  EXPECT_EQ(picture.width, 400);
}

// Every kind of subsampling has its own smoothing over the borders of blocks.
TEST(DecodeJpeg, APartHasTheBitsItHasInTheWhole) {
  const int width = 331, height = 215;
  const std::vector<uint8_t> pixels = Ramp(width, height);
  for (const auto& [across, down] : {std::pair{1, 1}, {2, 1}, {2, 2}, {1, 2}, {4, 1}, {4, 2}}) {
    for (const bool progressive : {false, true}) {
      const Encoded bytes = EncodeJpeg({.width = width,
                                        .height = height,
                                        .progressive = progressive,
                                        .sampling_across = across,
                                        .sampling_down = down},
                                       pixels);
      for (const int least : {0, 107, 53}) {
        DecodeOptions options{.least_width = least, .least_height = least};
        Picture whole;
        Decode(bytes, "a", options, whole);
        for (const Box& share : {Box{0, 0, 100, 100}, Box{37, 41, 30, 20}, Box{90, 0, 10, 100},
                                 Box{50, 93, 1, 1}, Box{0, 55, 100, 45}, Box{49, 3, 25, 60}}) {
          const Box part{whole.width * share.x / 100, whole.height * share.y / 100,
                         std::max(1, whole.width * share.width / 100),
                         std::max(1, whole.height * share.height / 100)};
          options.part = [&](int w, int h) {
            EXPECT_EQ(w, whole.width);
            EXPECT_EQ(h, whole.height);
            return part;
          };
          Picture out;
          Decode(bytes, "a", options, out);
          ASSERT_EQ(out.pixels.size(), whole.pixels.size());
          for (int y = part.y; y < part.y + part.height; ++y) {
            const auto begin = (y * whole.width + part.x) * 3;
            ASSERT_TRUE(std::equal(out.pixels.begin() + begin,
                                   out.pixels.begin() + begin + part.width * 3,
                                   whole.pixels.begin() + begin))
                << across << "x" << down << (progressive ? " progressive" : "") << " at " << least
                << ": row " << y << " of " << part.x << "," << part.y << " " << part.width << "x"
                << part.height;
          }
        }
      }
    }
  }
}

// The same header with another size: bytes 5 to 8 of the frame marker's segment.
Encoded WithSize(Encoded jpeg, int width, int height) {
  for (size_t i = 0; i + 8 < jpeg.size(); ++i) {
    if (jpeg[i] == std::byte{0xFF} && jpeg[i + 1] == std::byte{0xC0}) {
      jpeg[i + 5] = static_cast<std::byte>(height >> 8);
      jpeg[i + 6] = static_cast<std::byte>(height & 255);
      jpeg[i + 7] = static_cast<std::byte>(width >> 8);
      jpeg[i + 8] = static_cast<std::byte>(width & 255);
      return jpeg;
    }
  }
  return {};
}

TEST(DecodeJpeg, HugeSizesAreRefusedFromTheHeader) {
  const Encoded bomb = WithSize(FlatJpeg({}, {1, 2, 3}), 65000, 65000);
  const auto expected =
      AllOf(StartsWith("b.jpg: "), HasSubstr("65000x65000"), HasSubstr("100 megapixels"));
  EXPECT_THAT(DecodeError(bomb, "b.jpg"), expected);
  try {
    DecodeSize(bomb, "b.jpg");
    FAIL() << "accepted";
  } catch (const DataError& error) {
    EXPECT_THAT(error.what(), expected);
  }
  // Within the limit, but far more than so short a file can hold.
  EXPECT_THAT(DecodeError(WithSize(FlatJpeg({}, {1, 2, 3}), 9000, 9000)),
              HasSubstr("too short for 9000x9000"));
}

TEST(DecodePng, ColourPictures) {
  ExpectFlat(Decode(FlatPng(3, 5, {1, 2, 3}), "a.png"), 3, 5, {1, 2, 3}, 0);
}

TEST(DecodePng, InterlacedPicturesAreWhole) {
  const auto pixels = Ramp(19, 11);
  const Picture picture =
      Decode(EncodePng({.width = 19, .height = 11, .interlaced = true}, pixels), "a.png");
  EXPECT_EQ(picture.pixels, pixels);
}

TEST(DecodePng, GreyOfAnyDepthBecomesRgb) {
  EXPECT_EQ(Decode(EncodePng({.color_type = PNG_COLOR_TYPE_GRAY}, {0, 10, 20, 255}), "a").pixels,
            (std::vector<uint8_t>{0, 0, 0, 10, 10, 10, 20, 20, 20, 255, 255, 255}));
  // One bit a pixel, a row a byte: white black / black white.
  EXPECT_EQ(
      Decode(EncodePng({.color_type = PNG_COLOR_TYPE_GRAY, .bit_depth = 1}, {0x80, 0x40}), "a")
          .pixels,
      (std::vector<uint8_t>{255, 255, 255, 0, 0, 0, 0, 0, 0, 255, 255, 255}));
}

TEST(DecodePng, SixteenBitsAreRoundedToEight) {
  const std::vector<uint8_t> rows = {0xFF, 0xFF, 0x80, 0x80, 0x01, 0x00};  // One pixel.
  EXPECT_EQ(Decode(EncodePng({.width = 1, .height = 1, .bit_depth = 16}, rows), "a").pixels,
            (std::vector<uint8_t>{255, 128, 1}));
  EXPECT_EQ(
      Decode(
          EncodePng(
              {.width = 1, .height = 1, .color_type = PNG_COLOR_TYPE_GRAY_ALPHA, .bit_depth = 16},
              {0x40, 0x40, 0x12, 0x34}),
          "a")
          .pixels,
      (std::vector<uint8_t>{64, 64, 64}));
}

TEST(DecodePng, PalettesWithTransparencyLoseOnlyTheTransparency) {
  const PngSpec spec{.color_type = PNG_COLOR_TYPE_PALETTE,
                     .palette = {{255, 0, 0}, {0, 255, 0}, {0, 0, 255}},
                     .palette_alpha = {0, 128}};
  EXPECT_EQ(Decode(EncodePng(spec, {0, 1, 2, 0}), "a").pixels,
            (std::vector<uint8_t>{255, 0, 0, 0, 255, 0, 0, 0, 255, 255, 0, 0}));
}

TEST(DecodePng, AlphaIsDropped) {
  EXPECT_EQ(Decode(EncodePng({.width = 1, .height = 1, .color_type = PNG_COLOR_TYPE_RGB_ALPHA},
                             {9, 8, 7, 0}),
                   "a")
                .pixels,
            (std::vector<uint8_t>{9, 8, 7}));
}

TEST(DecodePng, EveryTruncationAndFlippedPixelByteIsAnError) {
  const Encoded whole = EncodePng({.width = 30, .height = 30}, Ramp(30, 30));
  for (size_t length = 0; length < whole.size(); length += 1 + length / 50) {
    ASSERT_THAT(DecodeError(std::span(whole).first(length), "a.png"), StartsWith("a.png: "))
        << "cut at " << length << " of " << whole.size();
  }
  // PNG's checksums find any flip from the header (offset 12) to the end.
  for (size_t i = 12; i < whole.size(); i += 7) {
    Encoded flipped = whole;
    flipped[i] ^= std::byte{4};
    EXPECT_NE(DecodeError(flipped, "a.png"), "") << "byte " << i;
  }
}

TEST(DecodePng, HugeSizesAreRefusedFromTheHeader) {
  // Only the header is needed, with a right checksum: libpng writes it before it sees a pixel.
  png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, nullptr, nullptr, nullptr);
  png_infop info = png_create_info_struct(png);
  Encoded bytes;
  png_set_write_fn(
      png, &bytes,
      [](png_structp writer, png_bytep data, size_t count) {
        auto* out = static_cast<Encoded*>(png_get_io_ptr(writer));
        const auto* begin = reinterpret_cast<const std::byte*>(data);
        out->insert(out->end(), begin, begin + count);
      },
      [](png_structp) {});
  png_set_IHDR(png, info, 65000, 65000, 8, PNG_COLOR_TYPE_RGB, PNG_INTERLACE_NONE,
               PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
  png_write_info(png, info);
  const std::vector<uint8_t> nothing(16);
  png_write_chunk(png, reinterpret_cast<png_const_bytep>("IDAT"), nothing.data(), nothing.size());
  png_destroy_write_struct(&png, &info);
  EXPECT_THAT(DecodeError(bytes, "b.png"),
              AllOf(StartsWith("b.png: "), HasSubstr("65000x65000"), HasSubstr("100 megapixels")));
}

TEST(DecodeWebp, LossyAndLosslessPictures) {
  const auto pixels = Ramp(19, 11);
  EXPECT_EQ(Decode(EncodeWebp(19, 11, pixels), "a.webp").pixels, pixels);
  std::vector<uint8_t> flat;
  for (int i = 0; i < 17 * 9; ++i) flat.insert(flat.end(), {200, 100, 50});
  ExpectFlat(Decode(EncodeWebp(17, 9, flat, {.quality = 90}), "a.webp"), 17, 9, {200, 100, 50}, 4);
}

TEST(DecodeWebp, AlphaIsDropped) {
  EXPECT_EQ(Decode(EncodeWebp(1, 1, {9, 8, 7, 0}, {.channels = 4}), "a.webp").pixels,
            (std::vector<uint8_t>{9, 8, 7}));
}

TEST(DecodeWebp, EveryTruncationIsAnErrorThatNamesTheFile) {
  for (const float quality : {0.0F, 80.0F}) {
    const Encoded whole = EncodeWebp(40, 40, Ramp(40, 40), {.quality = quality});
    ASSERT_EQ(DecodeError(whole), "");
    for (size_t length = 0; length + 2 < whole.size(); length += 1 + length / 50) {
      ASSERT_THAT(DecodeError(std::span(whole).first(length), "cats/tom.webp"),
                  StartsWith("cats/tom.webp: "))
          << "cut at " << length << " of " << whole.size();
    }
  }
}

TEST(DecodeWebp, HugeSizesAreRefusedFromTheHeader) {
  // The head of a file with features (VP8X): canvas sides minus one, 24 bits each.
  const auto head = [](int width, int height, char flags) {
    std::string text("RIFF\x1e\0\0\0WEBPVP8X\x0a\0\0\0", 20);
    text += std::string({flags, 0, 0, 0});
    for (const int side : {width - 1, height - 1}) {
      text += std::string({static_cast<char>(side & 255), static_cast<char>(side >> 8 & 255),
                           static_cast<char>(side >> 16)});
    }
    return ToBytes(text + std::string("ANIM\6\0\0\0\0\0\0\0\0\0", 14));
  };
  EXPECT_THAT(DecodeError(head(65000, 65000, 2), "b.webp"),
              AllOf(StartsWith("b.webp: "), HasSubstr("65000x65000"), HasSubstr("100 megapixels")));
  EXPECT_THAT(DecodeError(head(20, 20, 2), "b.webp"),
              AllOf(StartsWith("b.webp: "), HasSubstr("animated")));
}

TEST(Decode, WhatIsNoPictureIsNamedWithItsFirstBytes) {
  EXPECT_THAT(DecodeError({}, "zero.jpg"), AllOf(StartsWith("zero.jpg: "), HasSubstr("empty")));
  EXPECT_THAT(DecodeError(ToBytes("hello, world"), "text.jpg"),
              AllOf(StartsWith("text.jpg: "), HasSubstr("'hello, w'")));
  EXPECT_THAT(DecodeError(ToBytes(std::string("GIF89a\0\1", 8)), "b.png"), HasSubstr("'GIF89a..'"));
}

TEST(Decode, BytesAfterTheEndAreHarmless) {
  for (Encoded bytes :
       {FlatJpeg({}, {10, 20, 30}), FlatPng(4, 4, {1, 2, 3}), EncodeWebp(9, 9, Ramp(9, 9)),
        EncodeWebp(9, 9, Ramp(9, 9), {.quality = 80})}) {
    const Picture expected = Decode(bytes, "a");
    for (int i = 0; i < 1000; ++i) bytes.push_back(static_cast<std::byte>(i * 37));
    EXPECT_EQ(Decode(bytes, "a").pixels, expected.pixels);
  }
}

TEST(Decode, TheBytesAndNotTheNameTellTheFormat) {
  EXPECT_EQ(DecodeError(FlatPng(2, 2, {1, 2, 3}), "really-a-png.jpg"), "");
}

TEST(DecodeSize, ReadsHeadersOfAllFormats) {
  EXPECT_EQ(DecodeSize(FlatJpeg({.width = 33, .height = 7}, {1, 2, 3}), "a"), (PictureSize{33, 7}));
  EXPECT_EQ(DecodeSize(FlatPng(4, 9, {1, 2, 3}), "a"), (PictureSize{4, 9}));
  EXPECT_EQ(DecodeSize(EncodeWebp(19, 11, Ramp(19, 11)), "a"), (PictureSize{19, 11}));
}

// Flipped and random bytes: whatever comes out, it is a picture or a DataError.
TEST(Decode, DamageOfAnyKindIsSurvived) {
  uint32_t state = 1;
  const auto random = [&] { return state = state * 1664525 + 1013904223; };
  const std::vector<Encoded> seeds = {
      EncodeJpeg({.width = 24, .height = 24}, Ramp(24, 24)),
      EncodeJpeg({.width = 24, .height = 24, .progressive = true}, Ramp(24, 24)),
      EncodePng({.width = 24, .height = 24, .interlaced = true}, Ramp(24, 24)),
      EncodeWebp(24, 24, Ramp(24, 24)),
      EncodeWebp(24, 24, Ramp(24, 24), {.quality = 75}),
      WithExif(EncodeJpeg({.width = 24, .height = 24}, Ramp(24, 24)), Exif(6))};
  int survived = 0;
  for (int round = 0; round < 6000; ++round) {
    Encoded bytes = seeds[static_cast<size_t>(round) % seeds.size()];
    for (uint32_t flips = 1 + (random() >> 16) % 4; flips > 0; --flips) {
      bytes[(random() >> 8) % bytes.size()] = static_cast<std::byte>(random() >> 24);
    }
    if (round % 5 == 0) bytes.resize((random() >> 8) % bytes.size());
    const std::string error = DecodeError(bytes, "fuzz");
    EXPECT_TRUE(error.empty() || error.starts_with("fuzz: ")) << error;
    ++survived;
  }
  EXPECT_EQ(survived, 6000);
}

}  // namespace
}  // namespace lockstep::trainer
