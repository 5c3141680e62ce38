#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "tests/trainer/data/open_pictures.h"
#include "tests/trainer/pictures/pictures.h"
#include "tests/trainer/pictures/temp_folder.h"
#include "trainer/pictures/preprocessing.h"

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

  config::RunConfig Run(int image_size = 0) const {
    config::RunConfig run = RunOf(config::DatasetKind::kImageFolder, temp_.path());
    run.data.image_size = image_size;
    return run;
  }
  std::unique_ptr<Dataset> Open(Split split = Split::kTrain, int image_size = 0) const {
    return trainer::Open(Run(image_size), split);
  }
  std::string OpenError(Split split = Split::kTrain, int image_size = 0) const {
    return trainer::OpenError(Run(image_size), split);
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

TEST_F(ImageFolderTest, WithValAndTestBothThereTestIsASplitOfItsOwn) {
  EXPECT_THAT(Open(Split::kTest)->Describe(), HasSubstr("there is no test split"));
  Put("test/cat/x.png", 60);
  Put("test/dog/y.png", 70);
  Put("test/dog/z.png", 80);
  EXPECT_EQ(Open(Split::kEval)->size(), 2);
  EXPECT_EQ(Open(Split::kTest)->size(), 3);
  EXPECT_THAT(Open(Split::kTest)->Describe(), Not(HasSubstr("there is no test split")));
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
  EXPECT_THAT(trainer::OpenError(RunOf(config::DatasetKind::kImageFolder, Path("absent"))),
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
  EXPECT_THAT(error, HasSubstr("6 of 9 samples"));
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
  EXPECT_THAT(error,
              AllOf(HasSubstr("200 of 203 samples"), HasSubstr("x1000.jpg"), HasSubstr("x1019.jpg"),
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

TEST_F(ImageFolderTest, TheHeldOutPicturesTakeTheTrainingSplitsSize) {
  Put("val/cat/d.png", 1, 9, 9);
  Put("val/dog/e.png", 1, 12, 12);
  const auto train = Open();
  const config::RunConfig run = Run();
  const auto eval =
      OpenDataset({.config = run, .split = Split::kEval, .preprocessing = &train->preprocessing()});
  EXPECT_EQ(eval->width(), 8);
  Sample sample;
  eval->Read(1, sample);
  EXPECT_EQ(sample.picture.width, 8);
  EXPECT_EQ(eval->preprocessing(), train->preprocessing());
}

TEST_F(ImageFolderTest, ManyThreadsReadTheSamePictures) {
  for (int i = 0; i < 60; ++i) {
    Put("train/dog/x" + std::to_string(i) + ".png", static_cast<uint8_t>(100 + i));
  }
  config::RunConfig uncached = Run();
  uncached.data.cache = config::PictureCacheKind::kNever;
  const auto alone = trainer::Open(uncached);
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

TEST_F(ImageFolderTest, ALinkThatLeadsNowhereInPlaceOfAClassIsNamed) {
  fs::create_symlink("nowhere", Path("train/emu"));
  EXPECT_THAT(OpenError(), AllOf(HasSubstr(Path("train/emu").string()), HasSubstr("nowhere")));
  fs::remove(Path("train/emu"));
  fs::create_symlink("emu", Path("train/emu"));  // To itself.
  EXPECT_THAT(OpenError(), HasSubstr(Path("train/emu").string()));
}

TEST_F(ImageFolderTest, LinksAreFollowedAndOneThatLeadsBackDoesNotHang) {
  fs::create_symlink(Path("train/dog/c.png"), Path("train/cat/link.png"));
  fs::create_directory_symlink(Path("train"), Path("train/cat/back"));
  EXPECT_EQ(Open()->size(), 4);
}

TEST_F(ImageFolderTest, AFileInPlaceOfAClassFolderIsNamed) {
  fs::remove_all(Path("train/dog"));
  PutText("train/dog", "this should be a folder");
  EXPECT_THAT(OpenError(), AllOf(HasSubstr(Path("train").string()), HasSubstr("'dog'")));
}

TEST_F(ImageFolderTest, PicturesThatTrainingHasTooAreCounted) {
  EXPECT_THAT(Open(Split::kEval)->Describe(), Not(HasSubstr("warning")));
  fs::create_hard_link(Path("train/cat/b.png"), Path("val/cat/link.png"));
  fs::copy_file(Path("train/dog/c.png"), Path("val/dog/copy.png"));
  EXPECT_THAT(Open(Split::kEval)->Describe(),
              HasSubstr("warning: 2 of them are training pictures too"));
}

TEST_F(ImageFolderTest, NamesThatDifferInTheEndingAloneAreTold) {
  EXPECT_THAT(Open()->Describe(), Not(HasSubstr("but for the ending")));
  Put("train/cat/a.jpeg", 5);
  EXPECT_THAT(Open()->Describe(), HasSubstr("1 pictures have the name of another"));
}

// Class folders without splits.
class SharedFolderTest : public ::testing::Test {
 protected:
  SharedFolderTest() {
    for (int i = 0; i < 40; ++i) {
      const std::string name = std::to_string(100 + i) + ".png";
      WriteBytes(temp_.path() / "cat" / name, FlatPng(4, 4, {static_cast<uint8_t>(i), 0, 0}));
      if (i < 10) {
        WriteBytes(temp_.path() / "dog" / name, FlatPng(4, 4, {0, static_cast<uint8_t>(i), 0}));
      }
    }
    run_ = RunOf(config::DatasetKind::kImageFolder, temp_.path());
    run_.data.split = {60, 20, 20};
  }
  std::vector<std::string> Names(Split split) const {
    const auto dataset = Open(run_, split);
    std::vector<std::string> names;
    for (int64_t i = 0; i < dataset->size(); ++i) names.push_back(dataset->NameOf(i));
    return names;
  }
  TempFolder temp_;
  config::RunConfig run_;
};

TEST_F(SharedFolderTest, EveryPictureIsInOnePartAndEachClassInAll) {
  std::set<std::string> all;
  size_t count = 0;
  for (const auto& [split, counts] : std::map<Split, std::vector<int64_t>>{
           {Split::kTrain, {24, 6}}, {Split::kEval, {8, 2}}, {Split::kTest, {8, 2}}}) {
    EXPECT_EQ(Open(run_, split)->ClassCounts(), counts);
    for (const std::string& name : Names(split)) {
      all.insert(name);
      ++count;
    }
  }
  EXPECT_EQ(count, 50u);
  EXPECT_EQ(all.size(), 50u);
}

TEST_F(SharedFolderTest, TheSeedDecides) {
  const auto first = Names(Split::kEval);
  EXPECT_EQ(Names(Split::kEval), first);
  run_.seed = 2;
  EXPECT_NE(Names(Split::kEval), first);
}

TEST_F(SharedFolderTest, AClassTooSmallForAllPartsIsNamed) {
  WriteBytes(temp_.path() / "emu" / "a.png", FlatPng(4, 4, {1, 1, 1}));
  WriteBytes(temp_.path() / "emu" / "b.png", FlatPng(4, 4, {1, 1, 1}));
  EXPECT_THAT(OpenError(run_), AllOf(HasSubstr(temp_.path().string()), HasSubstr("class 'emu'"),
                                     HasSubstr("data.split")));
}

TEST_F(SharedFolderTest, WithoutDataSplitTheErrorSaysWhatToAdd) {
  run_.data.split.clear();
  EXPECT_THAT(OpenError(run_), HasSubstr("data.split: [80, 20]"));
}

TEST_F(SharedFolderTest, GivenSplitsAndDataSplitContradict) {
  fs::create_directories(temp_.path() / "train");
  fs::create_directories(temp_.path() / "val");
  EXPECT_THAT(OpenError(run_), HasSubstr("data.split is given too"));
}

TEST_F(SharedFolderTest, ForJudgingAllOfAFolderIsTaken) {
  run_.data.split.clear();
  const std::vector<std::string> classes = {"ant", "dog", "cat"};
  const auto all = OpenDataset({.config = run_, .split = Split::kTest, .classes = &classes});
  EXPECT_EQ(all->size(), 50);
  EXPECT_EQ(all->classes(), classes);
  EXPECT_EQ(all->ClassCounts(), (std::vector<int64_t>{0, 10, 40}));
  const std::vector<std::string> others = {"ant", "dog"};
  try {
    OpenDataset({.config = run_, .split = Split::kTest, .classes = &others});
    FAIL() << "no error for a class that the model does not know";
  } catch (const DataError& error) {
    EXPECT_THAT(error.what(), HasSubstr("cat"));
  }
}

}  // namespace
}  // namespace lockstep::trainer
