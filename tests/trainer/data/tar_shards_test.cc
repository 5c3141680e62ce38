#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <set>
#include <string>
#include <vector>

#include "tests/trainer/data/open_pictures.h"
#include "tests/trainer/data/tar_files.h"
#include "tests/trainer/pictures/pictures.h"
#include "tests/trainer/pictures/temp_folder.h"

namespace lockstep::trainer {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

std::string Png(int red) {
  const Encoded bytes = FlatPng(4, 4, {static_cast<uint8_t>(red), 0, 0});
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

std::string SampleOf(const std::string& key, int red, const std::string& label) {
  return TarMemberOf(key + ".png", Png(red)) + TarMemberOf(key + ".cls", label);
}

class TarShardsTest : public ::testing::Test {
 protected:
  TarShardsTest() {
    Put("train-000.tar", SampleOf("a", 1, "0") + SampleOf("b", 2, "1\n"));
    Put("train-001.tar", SampleOf("c", 3, "1") + TarMemberOf("c.json", "{}") +
                             TarMemberOf("c.seg.png", Png(9)) + TarMemberOf("._c.png", "?"));
    Put("val-000.tar", SampleOf("d", 4, "0") + SampleOf("e", 5, "1"));
    run_ = RunOf(config::DatasetKind::kTarShards, temp_.path());
  }
  void Put(const std::string& name, const std::string& members) {
    WriteBytes(temp_.path() / name, ToBytes(members + TarEnd()));
  }
  void PutText(const std::string& name, const std::string& text) {
    WriteBytes(temp_.path() / name, ToBytes(text));
  }
  TempFolder temp_;
  config::RunConfig run_;
};

TEST_F(TarShardsTest, SamplesComeInTheOrderOfTheArchives) {
  const auto train = Open(run_);
  ASSERT_EQ(train->size(), 3);
  EXPECT_THAT(train->classes(), ElementsAre("0", "1"));
  std::vector<std::pair<int64_t, int>> seen;
  Sample sample;
  for (int64_t i = 0; i < 3; ++i) {
    train->Read(i, sample);
    seen.emplace_back(sample.label, sample.picture.pixels[0]);
  }
  EXPECT_THAT(seen, ElementsAre(std::pair(0, 1), std::pair(1, 2), std::pair(1, 3)));
  EXPECT_THAT(train->NameOf(2), HasSubstr("train-001.tar:c.png"));
  EXPECT_THAT(train->Describe(), HasSubstr("3 other members left out"));
  EXPECT_THAT(train->ClassCounts(), ElementsAre(1, 2));
  EXPECT_THAT(train->StoredRuns(), ElementsAre(2, 3));
  EXPECT_EQ(Open(run_, Split::kEval)->size(), 2);
  EXPECT_THAT(Open(run_, Split::kTest)->Describe(), HasSubstr("there is no test split"));
}

TEST_F(TarShardsTest, SplitsMayBeFolders) {
  const TempFolder other;
  for (const char* name : {"train", "test"}) fs::create_directories(other.path() / name);
  fs::copy(temp_.path() / "train-000.tar", other.path() / "train/0.tar");
  fs::copy(temp_.path() / "val-000.tar", other.path() / "test/0.tar");
  run_.data.path = other.path();
  EXPECT_EQ(Open(run_)->size(), 2);
  EXPECT_EQ(Open(run_, Split::kEval)->size(), 2);
}

TEST_F(TarShardsTest, DataSplitSharesOutArchivesWithoutSplits) {
  const TempFolder other;
  std::string members;
  for (int i = 0; i < 20; ++i)
    members += SampleOf("k" + std::to_string(i), i, i % 2 ? "dog" : "cat");
  WriteBytes(other.path() / "all.tar", ToBytes(members + TarEnd()));
  run_.data.path = other.path();
  EXPECT_THAT(OpenError(run_), HasSubstr("data.split: [80, 20]"));
  run_.data.split = {80, 20};
  const auto train = Open(run_);
  const auto eval = Open(run_, Split::kEval);
  EXPECT_THAT(train->classes(), ElementsAre("cat", "dog"));
  EXPECT_THAT(train->ClassCounts(), ElementsAre(8, 8));
  EXPECT_THAT(eval->ClassCounts(), ElementsAre(2, 2));
  std::set<std::string> names;
  for (int64_t i = 0; i < 16; ++i) names.insert(train->NameOf(i));
  for (int64_t i = 0; i < 4; ++i) names.insert(eval->NameOf(i));
  EXPECT_EQ(names.size(), 20u);
}

TEST_F(TarShardsTest, ClassesTxtGivesNamesAndTheRange) {
  PutText("classes.txt", "cat\ndog\nemu\n");
  const auto train = Open(run_);
  EXPECT_THAT(train->classes(), ElementsAre("cat", "dog", "emu"));
  EXPECT_THAT(train->Describe(), HasSubstr("empty: emu"));
  PutText("classes.txt", "cat\n");
  EXPECT_THAT(OpenError(run_),
              AllOf(HasSubstr("train-000.tar:b.cls: class 1 is out of range"),
                    HasSubstr("expected 0 to 0"), HasSubstr("train-001.tar:c.cls")));
  PutText("classes.txt", "cat\ncat\n");
  EXPECT_THAT(OpenError(run_), HasSubstr("classes.txt:2: the class 'cat' comes twice"));
  PutText("classes.txt", "cat\n\ndog\n");
  EXPECT_THAT(OpenError(run_), HasSubstr("classes.txt:2: an empty line"));
}

TEST_F(TarShardsTest, AClassOutOfRangeIsNamed) {
  Put("train-002.tar", SampleOf("x", 1, "-1") + SampleOf("y", 1, "7"));
  EXPECT_THAT(OpenError(run_), AllOf(HasSubstr("train-002.tar:x.cls: class -1 is out of range"),
                                     Not(HasSubstr("y.cls"))));
  run_.model.num_classes = 5;
  EXPECT_THAT(OpenError(run_), AllOf(HasSubstr("train-002.tar:x.cls: class -1 is out of range"),
                                     HasSubstr("y.cls: class 7 is out of range; expected 0 to 4"),
                                     HasSubstr("model.num_classes")));
}

TEST_F(TarShardsTest, NumbersBesideNamesAreRefused) {
  Put("train-002.tar", SampleOf("x", 1, "cat"));
  EXPECT_THAT(OpenError(run_),
              AllOf(HasSubstr("some .cls hold numbers and some names"), HasSubstr("'cat'")));
}

TEST_F(TarShardsTest, EveryFaultySampleIsNamed) {
  Put("train-002.tar", TarMemberOf("p.png", Png(1)) + TarMemberOf("q.cls", "1") +
                           SampleOf("r", 1, "") + SampleOf("s", 1, "0") + SampleOf("t", 1, "0") +
                           SampleOf("s", 2, "0") + TarMemberOf("u.png", "no picture") +
                           TarMemberOf("u.cls", "1") + TarMemberOf("v.png", Png(1)) +
                           SampleOf("v", 1, "1"));
  EXPECT_THAT(OpenError(run_),
              AllOf(HasSubstr("6 of "), HasSubstr("train-002.tar:p: a picture without KEY.cls"),
                    HasSubstr("train-002.tar:q: a .cls without a picture"),
                    HasSubstr("train-002.tar:r: its .cls is empty"),
                    HasSubstr("train-002.tar:s: the key comes twice"),
                    HasSubstr("train-002.tar:u.png: neither"),
                    HasSubstr("train-002.tar:v: two pictures of one key")));
  run_.data.on_bad_sample = config::OnBadSample::kSkip;
  const auto train = Open(run_);
  EXPECT_EQ(train->size(), 5);
  EXPECT_EQ(train->Skipped().size(), 6u);
  EXPECT_THAT(Open(run_, Split::kEval)->Skipped(), IsEmpty());
}

TEST_F(TarShardsTest, ATruncatedArchiveIsNamedWithThePlace) {
  fs::resize_file(temp_.path() / "train-001.tar", 540);
  EXPECT_THAT(OpenError(run_), AllOf(HasSubstr("train-001.tar: at byte 0"), HasSubstr("cut off")));
}

TEST_F(TarShardsTest, WrongFoldersAreNamed) {
  const TempFolder other;
  run_.data.path = other.path();
  EXPECT_THAT(OpenError(run_), HasSubstr("has no *.tar files"));
  run_.data.path = other.path() / "absent";
  EXPECT_THAT(OpenError(run_), HasSubstr("no such folder"));
  run_.data.path = temp_.path();
  run_.data.split = {80, 20};
  EXPECT_THAT(OpenError(run_), HasSubstr("data.split is given too"));
  run_.data.split = {};
  Put("more.tar", SampleOf("x", 1, "1"));
  EXPECT_THAT(OpenError(run_), AllOf(HasSubstr("more.tar"), HasSubstr("neither train-*.tar")));
  fs::remove(temp_.path() / "more.tar");
  fs::remove(temp_.path() / "val-000.tar");
  EXPECT_THAT(OpenError(run_), HasSubstr("has no val-*.tar or test-*.tar"));
}

TEST_F(TarShardsTest, KeysOfTrainingSamplesAmongTheHeldOutAreTold) {
  Put("val-001.tar", SampleOf("a", 9, "0"));
  EXPECT_THAT(Open(run_, Split::kEval)->Describe(),
              HasSubstr("warning: 1 of them have the key of a training sample"));
}

TEST_F(TarShardsTest, ForJudgingLabelsArePlacesAmongTheModelsClasses) {
  const TempFolder other;
  WriteBytes(other.path() / "all.tar", ToBytes(SampleOf("x", 1, "dog") + TarEnd()));
  run_.data.path = other.path();
  const std::vector<std::string> classes = {"ant", "bee", "dog"};
  const auto all = OpenDataset({.config = run_, .split = Split::kEval, .classes = &classes});
  EXPECT_EQ(all->LabelOf(0), 2);
}

}  // namespace
}  // namespace lockstep::trainer
