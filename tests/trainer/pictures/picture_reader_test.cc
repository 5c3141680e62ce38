#include "trainer/pictures/picture_reader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include "tests/trainer/pictures/pictures.h"
#include "tests/trainer/pictures/temp_folder.h"
#include "trainer/pictures/decode.h"

namespace lockstep::trainer {
namespace {

using config::PictureCacheKind;
using ::testing::HasSubstr;

constexpr int kPictures = 6;

// JPEG files in memory, that count how often they are read.
struct Files {
  Files() {
    for (int n = 0; n < kPictures; ++n) {
      std::vector<uint8_t> pixels;
      for (int i = 0; i < 60 * 40 * 3; ++i) pixels.push_back(static_cast<uint8_t>(i / 7 + 40 * n));
      bytes.push_back(EncodeJpeg({.width = 60, .height = 40}, pixels));
      stamps.push_back("stamp " + std::to_string(n));
    }
  }
  PictureSource Source() {
    return {.count = kPictures,
            .read =
                [this](int64_t index, std::vector<std::byte>& to) {
                  ++reads;
                  to = bytes[static_cast<size_t>(index)];
                },
            .name = [](int64_t index) { return "picture " + std::to_string(index); },
            .stamp = [this](int64_t index) { return stamps[static_cast<size_t>(index)]; }};
  }
  std::vector<Encoded> bytes;
  std::vector<std::string> stamps;
  std::atomic<int> reads{0};
};

Preprocessing Small() {
  Preprocessing p;
  p.height = p.width = 16;
  p.shorter_side = 20;
  p.mean = p.std = {0.5, 0.5, 0.5};
  return p;
}

std::vector<Picture> ReadAll(const PictureReader& reader) {
  std::vector<Picture> pictures(kPictures);
  for (int i = 0; i < kPictures; ++i) reader.Read(i, pictures[static_cast<size_t>(i)]);
  return pictures;
}

void ExpectSame(const std::vector<Picture>& some, const std::vector<Picture>& others) {
  ASSERT_EQ(some.size(), others.size());
  for (size_t i = 0; i < some.size(); ++i) {
    EXPECT_EQ(some[i].width, others[i].width);
    EXPECT_EQ(some[i].height, others[i].height);
    EXPECT_EQ(some[i].pixels, others[i].pixels);
  }
}

TEST(PictureReader, EveryCacheGivesTheSameBits) {
  const TempFolder temp;
  Files files;
  const PictureReader plain(files.Source(), Small(), PictureCacheKind::kNever, temp.path());
  const std::vector<Picture> expected = ReadAll(plain);
  EXPECT_EQ(expected[0].width, 16);
  std::vector<Picture> whole(kPictures);
  for (int i = 0; i < kPictures; ++i) plain.ReadWhole(i, {}, whole[static_cast<size_t>(i)]);
  for (const PictureCacheKind kind : {PictureCacheKind::kAuto, PictureCacheKind::kMemory,
                                      PictureCacheKind::kDisk, PictureCacheKind::kDisk}) {
    const PictureReader reader(files.Source(), Small(), kind, temp.path());
    for (int epoch = 0; epoch < 2; ++epoch) {
      ExpectSame(ReadAll(reader), expected);
      for (int i = 0; i < kPictures; ++i) {
        Picture picture;
        reader.ReadWhole(i, {}, picture);
        EXPECT_EQ(picture.pixels, whole[static_cast<size_t>(i)].pixels);
      }
    }
  }
}

TEST(PictureReader, MemoryIsReadOnceAndNeverEachTime) {
  const TempFolder temp;
  for (const auto& [kind, reads] :
       std::map<PictureCacheKind, int>{{PictureCacheKind::kAuto, kPictures},
                                       {PictureCacheKind::kMemory, kPictures},
                                       {PictureCacheKind::kNever, 3 * kPictures}}) {
    Files files;
    const PictureReader reader(files.Source(), Small(), kind, temp.path());
    for (int epoch = 0; epoch < 3; ++epoch) ReadAll(reader);
    EXPECT_EQ(files.reads, reads);
  }
  EXPECT_TRUE(std::filesystem::is_empty(temp.path()));
}

TEST(PictureReader, ASecondRunFindsItsPicturesOnDiskWithoutReadingAFile) {
  const TempFolder temp;
  Files files;
  ReadAll(PictureReader(files.Source(), Small(), PictureCacheKind::kDisk, temp.path()));
  EXPECT_EQ(files.reads, kPictures);
  Preprocessing other_numbers = Small();  // Pixels are the same.
  other_numbers.mean = {0.1, 0.2, 0.3};
  other_numbers.bgr = true;
  const PictureReader second(files.Source(), other_numbers, PictureCacheKind::kDisk, temp.path());
  ReadAll(second);
  EXPECT_EQ(files.reads, kPictures);
  EXPECT_THAT(second.Describe(), HasSubstr(temp.path().string()));
  Preprocessing larger = Small();
  larger.shorter_side = 30;
  ReadAll(PictureReader(files.Source(), larger, PictureCacheKind::kDisk, temp.path()));
  EXPECT_EQ(files.reads, 2 * kPictures);
}

TEST(PictureReader, AChangedFileIsReadAgainAndATouchedOneNotDecodedAgain) {
  const TempFolder temp;
  Files files;
  const auto before =
      ReadAll(PictureReader(files.Source(), Small(), PictureCacheKind::kDisk, temp.path()));
  files.stamps[2] = "touched";
  files.stamps[4] = "changed";
  files.bytes[4] = files.bytes[0];
  const PictureReader second(files.Source(), Small(), PictureCacheKind::kDisk, temp.path());
  auto expected = before;
  expected[4] = before[0];
  ExpectSame(ReadAll(second), expected);
  EXPECT_EQ(files.reads, kPictures + 2);
  ReadAll(PictureReader(files.Source(), Small(), PictureCacheKind::kDisk, temp.path()));
  EXPECT_EQ(files.reads, kPictures + 2);
}

TEST(PictureReader, WhatIsKeptOfAPartIsAll) {
  const TempFolder temp;
  Files files;
  const PictureReader plain(files.Source(), Small(), PictureCacheKind::kNever, temp.path());
  Picture expected;
  plain.ReadWhole(1, {}, expected);
  for (const PictureCacheKind kind : {PictureCacheKind::kMemory, PictureCacheKind::kDisk}) {
    const PictureReader reader(files.Source(), Small(), kind, temp.path());
    Picture picture;
    reader.ReadWhole(
        1,
        [](int, int) {
          return Box{0, 0, 1, 1};
        },
        picture);
    picture.pixels.clear();
    reader.ReadWhole(1, {}, picture);
    EXPECT_EQ(picture.pixels, expected.pixels);
  }
}

TEST(PictureReader, ACacheThatCannotBeKeptOnDiskSaysSoAndReadsOn) {
  const TempFolder temp;
  Files files;
  WriteBytes(temp.path() / "file", ToBytes("x"));
  const PictureReader reader(files.Source(), Small(), PictureCacheKind::kDisk,
                             (temp.path() / "file").string());
  ReadAll(reader);
  ReadAll(reader);
  EXPECT_EQ(files.reads, 2 * kPictures);
  EXPECT_THAT(reader.Describe(), HasSubstr("no more decoded pictures are kept"));
}

TEST(PictureReader, ABadPictureIsNamedAndNothingIsKeptOfIt) {
  const TempFolder temp;
  for (const PictureCacheKind kind :
       {PictureCacheKind::kNever, PictureCacheKind::kMemory, PictureCacheKind::kDisk}) {
    Files files;
    const Encoded good = files.bytes[3];
    files.bytes[3].resize(300);
    const PictureReader reader(files.Source(), Small(), kind, temp.path());
    Picture picture;
    for (int again = 0; again < 2; ++again) {
      try {
        reader.Read(3, picture);
        FAIL() << "read";
      } catch (const DataError& error) {
        EXPECT_THAT(error.what(), HasSubstr("picture 3: "));
      }
    }
    files.bytes[3] = good;
    reader.Read(3, picture);
    EXPECT_EQ(picture.width, 16);
  }
}

TEST(PictureReader, ManyThreadsReadTheSamePictures) {
  const TempFolder temp;
  Files files;
  const auto expected =
      ReadAll(PictureReader(files.Source(), Small(), PictureCacheKind::kNever, temp.path()));
  for (const PictureCacheKind kind : {PictureCacheKind::kMemory, PictureCacheKind::kDisk}) {
    const PictureReader reader(files.Source(), Small(), kind, temp.path());
    std::vector<std::vector<Picture>> read(4);
    {
      std::vector<std::jthread> threads;
      for (auto& pictures : read) threads.emplace_back([&] { pictures = ReadAll(reader); });
    }
    for (const auto& pictures : read) ExpectSame(pictures, expected);
  }
}

}  // namespace
}  // namespace lockstep::trainer
