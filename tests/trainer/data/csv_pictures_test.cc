#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <limits>
#include <string>
#include <vector>

#include "tests/trainer/data/open_pictures.h"
#include "tests/trainer/pictures/pictures.h"
#include "tests/trainer/pictures/temp_folder.h"

namespace lockstep::trainer {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

// Ten pictures 0.png … 9.png whose red is their number, and tables of them.
class CsvPicturesTest : public ::testing::Test {
 protected:
  CsvPicturesTest() {
    for (int i = 0; i < 10; ++i) {
      WriteBytes(temp_.path() / "pictures" / (std::to_string(i) + ".png"),
                 FlatPng(4, 4, {static_cast<uint8_t>(i), 0, 0}));
    }
    run_ = RunOf(config::DatasetKind::kCsvRegression, Table().string());
  }
  fs::path Table() const { return temp_.path() / "table.csv"; }
  void Write(const std::string& text) { WriteBytes(Table(), ToBytes(text)); }
  // Lines "pictures/i.png,<value>,<split>"; no split column where `splits` is empty.
  void WriteLines(const std::vector<std::string>& values, const std::vector<std::string>& splits) {
    std::string text = splits.empty() ? "path,age\n" : "path,age,split\n";
    for (size_t i = 0; i < values.size(); ++i) {
      text += "pictures/" + std::to_string(i) + ".png," + values[i];
      text += splits.empty() ? "\n" : "," + splits[i] + "\n";
    }
    Write(text);
  }
  TempFolder temp_;
  config::RunConfig run_;
};

TEST_F(CsvPicturesTest, TargetsAreNormalizedByTheTrainingLinesAlone) {
  WriteLines({"1", "2", "3", "10", "-7.5e1"}, {"train", "train", "train", "val", "test"});
  const auto train = Open(run_);
  ASSERT_EQ(train->targets().size(), 1u);
  EXPECT_EQ(train->targets()[0].name, "age");
  EXPECT_DOUBLE_EQ(train->targets()[0].mean, 2);
  EXPECT_DOUBLE_EQ(train->targets()[0].std, std::sqrt(2.0 / 3));
  EXPECT_THAT(train->classes(), IsEmpty());
  EXPECT_THAT(train->ClassCounts(), IsEmpty());
  Sample sample;
  train->Read(2, sample);
  ASSERT_EQ(sample.targets.size(), 1u);
  EXPECT_FLOAT_EQ(sample.targets[0], static_cast<float>(1 / std::sqrt(2.0 / 3)));
  EXPECT_EQ(sample.picture.pixels[0], 2);
  const auto eval = Open(run_, Split::kEval);
  EXPECT_EQ(eval->targets()[0].mean, train->targets()[0].mean);
  eval->Read(0, sample);
  EXPECT_FLOAT_EQ(sample.targets[0], static_cast<float>(8 / std::sqrt(2.0 / 3)));
  const auto test = Open(run_, Split::kTest);
  ASSERT_EQ(test->size(), 1);
  EXPECT_THAT(test->NameOf(0), HasSubstr("pictures/4.png"));
}

TEST_F(CsvPicturesTest, DataSplitSharesLinesOut) {
  WriteLines({"1", "2", "3", "4", "5", "6", "7", "8", "9", "0"}, {});
  EXPECT_THAT(OpenError(run_), AllOf(HasSubstr(Table().string()), HasSubstr("data.split: [80, 20]"),
                                     HasSubstr("column 'split'")));
  run_.data.split = {70, 30};
  const auto train = Open(run_);
  const auto eval = Open(run_, Split::kEval);
  EXPECT_EQ(train->size(), 7);
  EXPECT_EQ(eval->size(), 3);
  EXPECT_THAT(Open(run_, Split::kTest)->Describe(), HasSubstr("there is no test split"));
  std::vector<std::string> names;
  for (int64_t i = 0; i < 7; ++i) names.push_back(train->NameOf(i));
  for (int64_t i = 0; i < 3; ++i) {
    EXPECT_EQ(std::count(names.begin(), names.end(), eval->NameOf(i)), 0);
  }
}

TEST_F(CsvPicturesTest, ASplitColumnAndDataSplitContradict) {
  WriteLines({"1", "2"}, {"train", "val"});
  run_.data.split = {80, 20};
  EXPECT_THAT(OpenError(run_), HasSubstr("data.split is given too"));
}

TEST_F(CsvPicturesTest, EveryFaultyLineIsNamedWithItsColumn) {
  Write(
      "path,age,height,split\n"
      "pictures/0.png,1,2,train\n"
      "pictures/1.png,,2,train\n"
      "pictures/2.png,nan,inf,train\n"
      "pictures/3.png,\"1,5\",2,train\n"
      "pictures/4.png,12abc,2,train\n"
      "pictures/5.png,1e999,2,dev\n"
      ",1,2,val\n"
      "pictures/7.png,3,5,val\n");
  const std::string file = Table().string();
  EXPECT_THAT(OpenError(run_),
              AllOf(HasSubstr("6 of 8 lines"), HasSubstr(file + ":3: age is empty"),
                    HasSubstr(file + ":4: age 'nan' is not a finite number; height 'inf'"),
                    HasSubstr(file + ":5: age '1,5' is not a number"),
                    HasSubstr(file + ":6: age '12abc' is not a number"),
                    HasSubstr(file + ":7: age '1e999' is too large"),
                    HasSubstr("split 'dev' is none of train, val and test"),
                    HasSubstr(file + ":8: path is empty"), Not(HasSubstr(file + ":9:"))));
}

TEST_F(CsvPicturesTest, FaultyLinesCanBeLeftOut) {
  WriteLines({"1", "x", "3", "4"}, {"train", "train", "train", "val"});
  run_.data.on_bad_sample = config::OnBadSample::kSkip;
  const auto train = Open(run_);
  EXPECT_EQ(train->size(), 2);
  ASSERT_EQ(train->Skipped().size(), 1u);
  EXPECT_THAT(train->Skipped()[0], HasSubstr(":3: age 'x'"));
  EXPECT_THAT(train->Describe(), HasSubstr("1 bad samples left out"));
  EXPECT_DOUBLE_EQ(train->targets()[0].mean, 2);
  EXPECT_THAT(Open(run_, Split::kEval)->Skipped(), IsEmpty());
}

TEST_F(CsvPicturesTest, ABadPictureIsNamedWithItsLine) {
  WriteLines({"1", "2", "3"}, {"train", "train", "val"});
  fs::remove(temp_.path() / "pictures/1.png");
  EXPECT_THAT(OpenError(run_), AllOf(HasSubstr(Table().string() + ":3: "),
                                     HasSubstr("pictures/1.png: cannot open")));
}

TEST_F(CsvPicturesTest, WrongColumnsAreNamed) {
  WriteLines({"1", "2"}, {"train", "val"});
  run_.data.targets = {"weight"};
  EXPECT_THAT(OpenError(run_),
              AllOf(HasSubstr("no column 'weight'"), HasSubstr("path, age, split")));
  run_.data.targets = {"age", "age"};
  EXPECT_THAT(OpenError(run_), HasSubstr("twice"));
  run_.data.targets = {"split"};
  EXPECT_THAT(OpenError(run_), HasSubstr("no number to learn"));
  run_.data.targets = {};
  run_.data.path_column = "file";
  EXPECT_THAT(OpenError(run_), AllOf(HasSubstr("no column 'file'"), HasSubstr("data.path_column")));
  Write("path;age\n");
  EXPECT_THAT(OpenError(run_), HasSubstr("no line besides the first"));
  Write("path;age\na;1\n");
  EXPECT_THAT(OpenError(run_), HasSubstr("separated by commas"));
  Write("file,split\npictures/0.png,train\n");
  EXPECT_THAT(OpenError(run_), HasSubstr("no column to learn"));
}

TEST_F(CsvPicturesTest, ATargetThatNeverChangesIsAnError) {
  WriteLines({"0.1", "0.1", "0.1", "5"}, {"train", "train", "train", "val"});
  EXPECT_THAT(OpenError(run_), AllOf(HasSubstr("'age'"), HasSubstr("same number")));
}

TEST_F(CsvPicturesTest, AnEmptySplitIsNamed) {
  WriteLines({"1", "2"}, {"train", "train"});
  EXPECT_EQ(Open(run_)->size(), 2);
  EXPECT_THAT(OpenError(run_, Split::kEval),
              AllOf(HasSubstr("no held-out line"), HasSubstr("2 train")));
  WriteLines({"1", "2", "4"}, {"train", "train", "test"});
  EXPECT_EQ(Open(run_, Split::kEval)->size(), 1) << "the test lines are the held-out ones";
}

TEST_F(CsvPicturesTest, MultilabelTakesZeroAndOneAsTheyAre) {
  run_.data.kind = config::DatasetKind::kCsvMultilabel;
  Write(
      "path,cat,dog,split\n"
      "pictures/0.png,1,0,train\n"
      "pictures/1.png,1,1,train\n"
      "pictures/2.png,1,0,val\n");
  const auto train = Open(run_);
  ASSERT_EQ(train->targets().size(), 2u);
  EXPECT_EQ(train->targets()[0].mean, 0);
  EXPECT_EQ(train->targets()[0].std, 1);
  Sample sample;
  train->Read(0, sample);
  EXPECT_EQ(sample.targets, (std::vector<float>{1, 0}));
  Write("path,cat,split\npictures/0.png,2,train\npictures/1.png,0,val\n");
  EXPECT_THAT(OpenError(run_), HasSubstr(":2: cat '2' is neither 0 nor 1"));
}

TEST_F(CsvPicturesTest, RepeatedPicturesAreTold) {
  Write(
      "path,age,split\n"
      "pictures/0.png,1,train\n"
      "pictures/0.png,2,train\n"
      "pictures/1.png,2,val\n"
      "pictures/0.png,2,val\n");
  EXPECT_THAT(Open(run_)->Describe(), HasSubstr("1 lines repeat the picture of another"));
  EXPECT_THAT(Open(run_, Split::kEval)->Describe(),
              HasSubstr("warning: 1 of them have the picture of a training line"));
}

TEST_F(CsvPicturesTest, ForJudgingAllLinesAreTakenAndNormalizedAsLearnt) {
  WriteLines({"1", "2", "3"}, {});
  const std::vector<Target> learnt = {{"age", 10, 2}};
  const auto all = OpenDataset({.config = run_, .split = Split::kTest, .targets = &learnt});
  EXPECT_EQ(all->size(), 3);
  Sample sample;
  all->Read(0, sample);
  EXPECT_FLOAT_EQ(sample.targets[0], -4.5f);
}

TEST_F(CsvPicturesTest, AbsolutePathsAreTakenAsTheyAre) {
  const TempFolder elsewhere;
  WriteBytes(elsewhere.path() / "table.csv",
             ToBytes("path,age,split\n" + (temp_.path() / "pictures/3.png").string() +
                     ",1,train\n" + (temp_.path() / "pictures/4.png").string() + ",2,train\n"));
  run_.data.path = elsewhere.path() / "table.csv";
  Sample sample;
  Open(run_)->Read(0, sample);
  EXPECT_EQ(sample.picture.pixels[0], 3);
}

TEST_F(CsvPicturesTest, AFolderInPlaceOfTheTableIsNamed) {
  run_.data.path = temp_.path();
  EXPECT_THAT(OpenError(run_), HasSubstr("is a folder; data.path must name the CSV file"));
  run_.data.path = temp_.path() / "absent.csv";
  EXPECT_THAT(OpenError(run_), AllOf(HasSubstr("absent.csv"), HasSubstr("No such file")));
}

}  // namespace
}  // namespace lockstep::trainer
