#include "trainer/data/picture_set.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <filesystem>
#include <set>
#include <string>
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

// Two classes of four pictures whose red is 10 x class + number.
class PictureSetTest : public ::testing::Test {
 protected:
  PictureSetTest() {
    for (const char* split : {"train", "val"}) {
      for (int i = 0; i < 4; ++i) {
        const std::string name = std::to_string(i) + ".png";
        Put(std::string(split) + "/cat/" + name, i);
        Put(std::string(split) + "/dog/" + name, 10 + i);
      }
    }
    run_ = RunOf(config::DatasetKind::kImageFolder, temp_.path());
    run_.data.cache = config::PictureCacheKind::kNever;
    run_.data.on_bad_sample = config::OnBadSample::kSkip;
  }
  fs::path Path(const std::string& name) const { return temp_.path() / name; }
  void Put(const std::string& name, int red) {
    WriteBytes(Path(name), FlatPng(4, 4, {static_cast<uint8_t>(red), 0, 0}));
  }
  void Spoil(const std::string& name) { WriteBytes(Path(name), ToBytes("no picture")); }
  static std::pair<int64_t, int> At(const Dataset& dataset, int64_t index) {
    Sample sample;
    dataset.Read(index, sample);
    return {sample.label, sample.picture.pixels[0]};
  }
  TempFolder temp_;
  config::RunConfig run_;
};

TEST_F(PictureSetTest, BadPicturesAreLeftOutToldAndCounted) {
  Spoil("train/cat/1.png");
  Spoil("train/dog/3.png");
  const auto train = Open(run_);
  EXPECT_EQ(train->size(), 6);
  EXPECT_THAT(train->ClassCounts(), ElementsAre(3, 3));
  ASSERT_EQ(train->Skipped().size(), 2u);
  EXPECT_THAT(train->Skipped()[0], HasSubstr(Path("train/cat/1.png").string() + ": neither"));
  EXPECT_THAT(train->Describe(), HasSubstr("2 bad samples left out"));
  EXPECT_EQ(At(*train, 1), std::pair(int64_t{0}, 2));
  EXPECT_EQ(train->replaced(), 0);
  EXPECT_TRUE(Open(run_, Split::kEval)->Skipped().empty());
}

TEST_F(PictureSetTest, AClassThatLosesAllItsPicturesIsAnErrorEvenSo) {
  for (int i = 0; i < 4; ++i) Spoil("train/cat/" + std::to_string(i) + ".png");
  EXPECT_THAT(OpenError(run_), AllOf(HasSubstr("no usable picture left"), HasSubstr("cat")));
  for (int i = 0; i < 4; ++i) Spoil("train/dog/" + std::to_string(i) + ".png");
  EXPECT_THAT(OpenError(run_), HasSubstr("8 of 8 samples cannot be used"));
}

TEST_F(PictureSetTest, APictureThatGoesBadIsReplacedByTheNextOfItsClass) {
  const auto train = Open(run_);
  fs::remove(Path("train/cat/1.png"));
  Spoil("train/dog/3.png");
  EXPECT_EQ(At(*train, 1), std::pair(int64_t{0}, 2));
  EXPECT_EQ(At(*train, 1), std::pair(int64_t{0}, 2));
  EXPECT_EQ(At(*train, 7), std::pair(int64_t{1}, 10)) << "the class begins anew";
  EXPECT_EQ(train->replaced(), 3);
  Sample sample;
  train->ReadWhole(1, {}, sample);
  EXPECT_EQ(sample.picture.pixels[0], 2);
  EXPECT_EQ(train->replaced(), 4);
  fs::remove_all(Path("train/dog"));
  try {
    train->Read(7, sample);
    FAIL() << "no error where nothing is left";
  } catch (const DataError& error) {
    EXPECT_THAT(error.what(),
                AllOf(HasSubstr(Path("train/dog/3.png").string()), HasSubstr("no sample is left")));
  }
}

TEST_F(PictureSetTest, WithFailAPictureThatGoesBadIsNamed) {
  run_.data.on_bad_sample = config::OnBadSample::kFail;
  const auto train = Open(run_);
  fs::remove(Path("train/cat/1.png"));
  Sample sample;
  try {
    train->Read(1, sample);
    FAIL() << "no error";
  } catch (const DataError& error) {
    EXPECT_THAT(error.what(), AllOf(HasSubstr(Path("train/cat/1.png").string()),
                                    HasSubstr("changed or removed since")));
  }
  EXPECT_EQ(train->replaced(), 0);
}

TEST_F(PictureSetTest, DamageInTheMiddleOfAFileIsFoundBeforeTheFirstStep) {
  std::vector<uint8_t> noise;
  for (unsigned i = 0; i < 64 * 64 * 3; ++i)
    noise.push_back(static_cast<uint8_t>(i * 2654435761u >> 13));
  Encoded jpeg = EncodeJpeg({.width = 64, .height = 64}, noise);
  WriteBytes(Path("train/cat/good.jpg"), jpeg);
  for (size_t i = jpeg.size() / 2; i < jpeg.size() / 2 + 40; ++i) jpeg[i] = std::byte{0xFF};
  WriteBytes(Path("train/cat/middle.jpg"), jpeg);
  run_.data.image_size = 4;
  const auto train = Open(run_);
  ASSERT_EQ(train->Skipped().size(), 1u);
  EXPECT_THAT(train->Skipped()[0], HasSubstr("middle.jpg: damaged or truncated"));
}

TEST_F(PictureSetTest, AHeaderThatClaimsTooManyPixelsIsNamed) {
  Encoded png = FlatPng(4, 4, {1, 2, 3});
  png[16] = png[17] = std::byte{0};
  png[18] = std::byte{0xFD};  // 64,768 pixels wide and high.
  png[22] = std::byte{0xFD};
  WriteBytes(Path("train/cat/bomb.png"), png);
  Encoded jpeg = FlatJpeg({.width = 16, .height = 16}, {1, 2, 3});
  for (size_t i = 0; i + 8 < jpeg.size(); ++i) {
    if (jpeg[i] == std::byte{0xFF} && jpeg[i + 1] == std::byte{0xC0}) {
      jpeg[i + 5] = jpeg[i + 7] = std::byte{0xFD};
    }
  }
  WriteBytes(Path("train/cat/bomb.jpg"), jpeg);
  const auto train = Open(run_);
  ASSERT_EQ(train->Skipped().size(), 2u);
  EXPECT_THAT(train->Skipped()[0], HasSubstr("bomb.jpg"));
  EXPECT_THAT(train->Skipped()[1], HasSubstr("bomb.png"));
}

TEST_F(PictureSetTest, TheFingerprintFollowsContentsNamesAndPreprocessing) {
  std::set<std::string> seen = {Open(run_)->Fingerprint()};
  EXPECT_EQ(Open(run_)->Fingerprint(), *seen.begin());
  EXPECT_TRUE(seen.insert(Open(run_, Split::kEval)->Fingerprint()).second);
  config::RunConfig changed = run_;
  changed.data.channel_order = config::ChannelOrder::kBgr;
  EXPECT_TRUE(seen.insert(Open(changed)->Fingerprint()).second);
  fs::last_write_time(Path("train/cat/1.png"),
                      fs::file_time_type::clock::now() - std::chrono::hours(2));
  EXPECT_TRUE(seen.insert(Open(run_)->Fingerprint()).second);
  fs::rename(Path("train/cat/1.png"), Path("train/cat/11.png"));
  EXPECT_TRUE(seen.insert(Open(run_)->Fingerprint()).second);
  Spoil("train/dog/1.png");
  EXPECT_TRUE(seen.insert(Open(run_)->Fingerprint()).second);
}

TEST_F(PictureSetTest, AMovedDataSetIsTheSame) {
  const std::string here = Open(run_)->Fingerprint();
  const TempFolder other;
  fs::rename(temp_.path() / "train", other.path() / "train");
  fs::rename(temp_.path() / "val", other.path() / "val");
  run_.data.path = other.path();
  EXPECT_EQ(Open(run_)->Fingerprint(), here);
}

}  // namespace
}  // namespace lockstep::trainer
