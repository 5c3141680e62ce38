#include "trainer/data/image_folder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "tests/trainer/data/pictures.h"
#include "tests/trainer/data/temp_folder.h"

namespace lockstep::trainer {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

// Two classes, both splits, 8x8 pictures whose red tells which one it is.
class ImageFolderTest : public ::testing::Test {
 protected:
  ImageFolderTest() {
    Put("train/cat/b.png", 20);
    Put("train/cat/a.PNG", 10);
    Put("train/dog/c.png", 30);
    Put("val/cat/d.png", 40);
    Put("val/dog/e.png", 50);
  }
  void Put(const std::string& name, uint8_t red, int width = 8, int height = 8) {
    WriteBytes(Path(name), FlatPng(width, height, {red, 0, 0}));
  }
  void PutText(const std::string& name, const std::string& text) {
    WriteBytes(Path(name), ToBytes(text));
  }
  fs::path Path(const std::string& name) const { return temp_.path() / name; }

  std::unique_ptr<Dataset> Open(Split split = Split::kTrain, int image_size = 0) const {
    return OpenImageFolder({.path = temp_.path(), .split = split, .image_size = image_size});
  }
  std::string OpenError(Split split = Split::kTrain, int image_size = 0) const {
    try {
      Open(split, image_size);
    } catch (const DataError& error) {
      return error.what();
    }
    return "";
  }

  TempFolder temp_;
};

TEST_F(ImageFolderTest, ClassesAndPicturesAreSortedByName) {
  const auto train = Open();
  EXPECT_THAT(train->classes(), ElementsAre("cat", "dog"));
  ASSERT_EQ(train->size(), 3);
  EXPECT_EQ(train->width(), 8);
  std::vector<std::pair<int64_t, int>> seen;
  Sample sample;
  for (int64_t i = 0; i < 3; ++i) {
    train->Read(i, sample);
    seen.emplace_back(sample.label, sample.picture.pixels[0]);
  }
  EXPECT_THAT(seen, ElementsAre(std::pair(0, 10), std::pair(0, 20), std::pair(1, 30)));
  EXPECT_THROW(train->Read(3, sample), DataError);
}

TEST_F(ImageFolderTest, TheHeldOutFolderMayBeValOrTest) {
  EXPECT_EQ(Open(Split::kEval)->size(), 2);
  fs::rename(Path("val"), Path("test"));
  EXPECT_EQ(Open(Split::kEval)->size(), 2);
  fs::remove_all(Path("test"));
  EXPECT_THAT(OpenError(), AllOf(HasSubstr(temp_.path().string()), HasSubstr("neither val/")));
}

TEST_F(ImageFolderTest, OtherAndHiddenFilesAreLeftOutAndCounted) {
  PutText("train/cat/notes.txt", "hi");
  PutText("train/cat/.hidden.jpg", "hi");
  PutText("train/README", "not a class");
  fs::create_directories(Path("train/.git"));
  const auto train = Open();
  EXPECT_EQ(train->size(), 3);
  EXPECT_THAT(train->Describe(), HasSubstr("2 other files left out"));
}

TEST_F(ImageFolderTest, WrongFoldersAreNamed) {
  EXPECT_THAT(
      [&] {
        try {
          OpenImageFolder({.path = Path("absent")});
        } catch (const DataError& error) {
          return std::string(error.what());
        }
        return std::string();
      }(),
      AllOf(HasSubstr(Path("absent").string()), HasSubstr("no such folder")));
  fs::rename(Path("train"), Path("other"));
  EXPECT_THAT(OpenError(), AllOf(HasSubstr(temp_.path().string()), HasSubstr("train/")));
  fs::create_directories(Path("train"));
  EXPECT_THAT(OpenError(), AllOf(HasSubstr(Path("train").string()), HasSubstr("no pictures")));
}

TEST_F(ImageFolderTest, AnEmptyClassIsNamed) {
  fs::create_directories(Path("train/emu"));
  PutText("train/emu/emu.gif", "GIF89a");
  Put("val/emu/e.png", 1);
  EXPECT_THAT(OpenError(), AllOf(HasSubstr(Path("train/emu").string()), HasSubstr("no pictures"),
                                 HasSubstr("1 other files")));
}

TEST_F(ImageFolderTest, AClassThatOnlyOneSplitHasIsNamed) {
  Put("train/emu/e.png", 1);
  for (const Split split : {Split::kTrain, Split::kEval}) {
    EXPECT_THAT(OpenError(split), AllOf(HasSubstr(Path("val").string()), HasSubstr("'emu'")));
  }
  fs::remove_all(Path("train/emu"));
  Put("val/yak/y.png", 1);
  EXPECT_THAT(OpenError(), AllOf(HasSubstr(Path("train").string()), HasSubstr("'yak'")));
}

TEST_F(ImageFolderTest, AFolderThatCannotBeListedIsNamed) {
  if (::geteuid() == 0) GTEST_SKIP() << "root may list every folder";
  fs::permissions(Path("train/dog"), fs::perms::none);
  EXPECT_THAT(OpenError(),
              AllOf(HasSubstr(Path("train/dog").string()), HasSubstr("Permission denied")));
  fs::permissions(Path("train/dog"), fs::perms::owner_all);
}

TEST_F(ImageFolderTest, EveryBadPictureIsNamedWithItsReason) {
  const Encoded jpeg = FlatJpeg({.width = 8, .height = 8}, {1, 2, 3});
  PutText("train/cat/empty.jpg", "");
  PutText("train/cat/text.jpg", "this is no picture");
  WriteBytes(Path("train/dog/cut.jpg"), std::span(jpeg).first(jpeg.size() - 20));
  const Encoded png = FlatPng(8, 8, {1, 2, 3});
  WriteBytes(Path("train/dog/cut.png"), std::span(png).first(png.size() - 12));
  ASSERT_EQ(::mkfifo(Path("train/dog/pipe.jpg").c_str(), 0600), 0);
  fs::create_symlink("nowhere", Path("train/dog/gone.jpg"));
  const std::string error = OpenError();
  EXPECT_THAT(error, HasSubstr("6 of 9 pictures"));
  EXPECT_THAT(error, HasSubstr(Path("train/cat/empty.jpg").string() + ": the file is empty"));
  EXPECT_THAT(error, HasSubstr(Path("train/cat/text.jpg").string() + ": neither a JPEG"));
  EXPECT_THAT(error, HasSubstr(Path("train/dog/cut.jpg").string() + ": damaged or truncated"));
  EXPECT_THAT(error, HasSubstr(Path("train/dog/cut.png").string() + ": damaged or truncated"));
  EXPECT_THAT(error, HasSubstr(Path("train/dog/pipe.jpg").string() + ": not a regular file"));
  EXPECT_THAT(error, HasSubstr(Path("train/dog/gone.jpg").string() + ": cannot open"));
  EXPECT_THAT(error, Not(HasSubstr("b.png")));
}

TEST_F(ImageFolderTest, NoMoreThanTwentyBadPicturesAreNamedAndTheFirstAreKept) {
  for (int i = 0; i < 200; ++i) PutText("train/cat/x" + std::to_string(1000 + i) + ".jpg", "");
  const std::string error = OpenError();
  EXPECT_THAT(error, AllOf(HasSubstr("200 of 203"), HasSubstr("x1000.jpg"), HasSubstr("x1019.jpg"),
                           Not(HasSubstr("x1020.jpg")), HasSubstr("and 180 more")));
}

TEST_F(ImageFolderTest, AHeaderBeyondTheFirstKilobytesIsFound) {
  // Comments of 60 kB before the frame header, as cameras write thumbnails.
  Encoded jpeg = FlatJpeg({.width = 8, .height = 8}, {70, 70, 70});
  Encoded comment(60002, std::byte{'x'});
  comment[0] = std::byte{0xFF};
  comment[1] = std::byte{0xFE};
  comment[2] = static_cast<std::byte>(60000 >> 8);
  comment[3] = static_cast<std::byte>(60000 & 255);
  jpeg.insert(jpeg.begin() + 2, comment.begin(), comment.end());
  jpeg.resize(jpeg.size() + 5);  // And something after its end.
  WriteBytes(Path("train/cat/late.jpg"), jpeg);
  EXPECT_EQ(Open()->size(), 4);
}

TEST_F(ImageFolderTest, DifferentSizesNeedAnImageSize) {
  Put("train/dog/wide.png", 99, 20, 10);
  EXPECT_THAT(OpenError(), AllOf(HasSubstr(Path("train/dog/wide.png").string()), HasSubstr("20x10"),
                                 HasSubstr("8x8"), HasSubstr("data.image_size")));
  const auto resized = Open(Split::kTrain, 16);
  EXPECT_EQ(resized->width(), 16);
  EXPECT_EQ(resized->height(), 16);
  Sample sample;
  for (int64_t i = 0; i < resized->size(); ++i) {
    resized->Read(i, sample);
    ASSERT_EQ(sample.picture.pixels.size(), 16u * 16 * 3);
  }
  EXPECT_EQ(sample.picture.pixels[0], 99);
}

TEST_F(ImageFolderTest, TheSplitsMustHaveOneSizeToo) {
  Put("val/cat/d.png", 1, 9, 9);
  Put("val/dog/e.png", 1, 9, 9);
  EXPECT_EQ(OpenError(), "");
  EXPECT_THAT(OpenError(Split::kEval),
              AllOf(HasSubstr("9x9"), HasSubstr("8x8"), HasSubstr(Path("val/cat/d.png").string())));
}

TEST_F(ImageFolderTest, DecodedPicturesAreKeptAndEqual) {
  const auto cached = Open();
  const auto uncached = OpenImageFolder({.path = temp_.path(), .cache_bytes = 0});
  Sample first, second, third;
  cached->Read(1, first);
  fs::remove(Path("train/cat/b.png"));
  cached->Read(1, second);  // The file is no longer needed.
  EXPECT_EQ(second.picture.pixels, first.picture.pixels);
  EXPECT_EQ(second.label, first.label);
  try {
    uncached->Read(1, third);
    FAIL() << "no error for a file that went away";
  } catch (const DataError& error) {
    EXPECT_THAT(error.what(), HasSubstr(Path("train/cat/b.png").string()));
  }
}

TEST_F(ImageFolderTest, AFileChangedToAnotherSizeIsNamed) {
  const auto train = OpenImageFolder({.path = temp_.path(), .cache_bytes = 0});
  Put("train/dog/c.png", 1, 5, 5);
  Sample sample;
  try {
    train->Read(2, sample);
    FAIL() << "no error";
  } catch (const DataError& error) {
    EXPECT_THAT(error.what(), AllOf(HasSubstr(Path("train/dog/c.png").string()), HasSubstr("5x5")));
  }
}

TEST_F(ImageFolderTest, ManyThreadsReadTheSamePictures) {
  for (int i = 0; i < 60; ++i) {
    Put("train/dog/x" + std::to_string(i) + ".png", static_cast<uint8_t>(100 + i));
  }
  const auto alone = OpenImageFolder({.path = temp_.path(), .cache_bytes = 0});
  std::vector<std::vector<uint8_t>> expected;
  Sample sample;
  for (int64_t i = 0; i < alone->size(); ++i) {
    alone->Read(i, sample);
    expected.push_back(sample.picture.pixels);
  }
  const auto shared = Open();
  std::atomic<int> wrong{0};
  {
    std::vector<std::jthread> threads;
    threads.reserve(4);
    for (int t = 0; t < 4; ++t) {
      threads.emplace_back([&] {
        Sample mine;
        for (int round = 0; round < 3; ++round) {
          for (int64_t i = 0; i < shared->size(); ++i) {
            shared->Read(i, mine);
            if (mine.picture.pixels != expected[static_cast<size_t>(i)]) wrong.fetch_add(1);
          }
        }
      });
    }
  }
  EXPECT_EQ(wrong.load(), 0);
}

}  // namespace
}  // namespace lockstep::trainer
