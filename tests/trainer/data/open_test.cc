#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <set>
#include <string>
#include <vector>

#include "tests/trainer/data/open_pictures.h"
#include "tests/trainer/pictures/temp_folder.h"
#include "trainer/pictures/preprocessing.h"

namespace lockstep::trainer {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;

// A whole CIFAR-10 training set on a sparse disk; picture i of the first file begins with i.
void WriteCifar10(const fs::path& folder) {
  for (int i = 1; i <= 5; ++i) {
    const fs::path path = folder / ("data_batch_" + std::to_string(i) + ".bin");
    std::ofstream file(path, std::ios::binary);
    for (int record = 0; i == 1 && record < 256; ++record) {
      file.seekp(record * 3073 + 1);
      file.put(static_cast<char>(record));
    }
    file.close();
    fs::resize_file(path, 30'730'000);
  }
}

TEST(OpenDataset, ShapesHaveDefaultsAndTakeWhatIsAsked) {
  config::RunConfig config = RunOf(config::DatasetKind::kShapes);
  EXPECT_EQ(Open(config)->size(), 8000);
  EXPECT_EQ(Open(config, Split::kEval)->size(), 2000);
  EXPECT_EQ(Open(config, Split::kEval)->width(), 32);
  config.data.train_samples = 123;
  config.data.eval_samples = 45;
  config.data.image_size = 16;
  EXPECT_EQ(Open(config)->size(), 123);
  EXPECT_EQ(Open(config, Split::kEval)->size(), 45);
  EXPECT_EQ(Open(config, Split::kEval)->height(), 16);
}

TEST(OpenDataset, ASubsetIsSeededAndGrowsWithItsSize) {
  const TempFolder temp;
  WriteCifar10(temp.path());
  config::RunConfig config = RunOf(config::DatasetKind::kCifar10, temp.path());
  // Which of the first 256 pictures are in: they carry their number.
  const auto members = [&](uint64_t seed, int count) {
    config.data.train_samples = count;
    config.seed = seed;
    const auto subset = Open(config);
    EXPECT_EQ(subset->size(), count);
    std::multiset<int> numbers;
    Sample sample;
    for (int64_t i = 0; i < 256; ++i) {  // Sorted: none of the 256 comes later.
      subset->Read(i, sample);
      if (sample.picture.pixels[0] != 0) numbers.insert(sample.picture.pixels[0]);
    }
    return numbers;
  };
  const auto some = members(1, 20000);
  EXPECT_EQ(members(1, 20000), some);
  EXPECT_NE(members(2, 20000), some);
  EXPECT_NEAR(static_cast<double>(some.size()), 255 * 0.4, 40);  // Five standard deviations.
  EXPECT_EQ(std::set<int>(some.begin(), some.end()).size(), some.size()) << "a sample came twice";
  const auto more = members(1, 30000);
  EXPECT_TRUE(std::includes(more.begin(), more.end(), some.begin(), some.end()));
}

TEST(OpenDataset, CifarComesAtTheSizeAskedFor) {
  const TempFolder temp;
  WriteCifar10(temp.path());
  config::RunConfig config = RunOf(config::DatasetKind::kCifar10, temp.path());
  config.data.image_size = 48;
  config.data.train_samples = 10;
  const auto dataset = Open(config);
  EXPECT_EQ(dataset->width(), 48);
  Sample sample;
  dataset->Read(9, sample);
  EXPECT_EQ(sample.picture.pixels.size(), 48u * 48 * 3);
}

TEST(OpenDataset, WrongNumbersAndPathsAreNamed) {
  const TempFolder temp;
  WriteCifar10(temp.path());
  config::RunConfig config = RunOf(config::DatasetKind::kCifar10, temp.path());
  config.data.train_samples = 50001;
  EXPECT_THAT(OpenError(config),
              AllOf(HasSubstr("data.train_samples"), HasSubstr("50001"), HasSubstr("50000")));
  EXPECT_THAT(OpenError(RunOf(config::DatasetKind::kImageFolder)), HasSubstr("data.path"));
  config = RunOf(config::DatasetKind::kShapes);
  config.data.image_size = 2;
  EXPECT_THAT(OpenError(config), HasSubstr("data.image_size"));
  config = RunOf(config::DatasetKind::kShapes);
  config.data.train_samples = -1;
  EXPECT_THAT(OpenError(config), HasSubstr("data.train_samples"));
}

TEST(OpenDataset, ATestSplitThatIsNotThereIsTheHeldOutOne) {
  const config::RunConfig run = RunOf(config::DatasetKind::kShapes);
  const auto eval = Open(run, Split::kEval);
  const auto test = Open(run, Split::kTest);
  EXPECT_EQ(test->Fingerprint(), eval->Fingerprint());
  EXPECT_THAT(test->Describe(), HasSubstr("there is no test split"));
  Sample a, b;
  eval->Read(7, a);
  test->Read(7, b);
  EXPECT_EQ(a.picture.pixels, b.picture.pixels);
}

TEST(OpenDataset, ACheckpointsPreprocessingWins) {
  const TempFolder temp;
  WriteCifar10(temp.path());
  config::RunConfig run = RunOf(config::DatasetKind::kCifar10, temp.path());
  const Preprocessing given{.channels = 3,
                            .height = 24,
                            .width = 20,
                            .resize = config::ResizeRule::kStretch,
                            .shorter_side = 0,
                            .bgr = true,
                            .mean = {0.1, 0.2, 0.3},
                            .std = {1, 1, 1}};
  for (const config::DatasetKind kind :
       {config::DatasetKind::kCifar10, config::DatasetKind::kShapes}) {
    run.data.kind = kind;
    const auto dataset = OpenDataset({.config = run, .preprocessing = &given});
    EXPECT_EQ(dataset->preprocessing(), given);
    Sample sample;
    dataset->Read(3, sample);
    EXPECT_EQ(sample.picture.width, 20);
    EXPECT_EQ(sample.picture.height, 24);
  }
}

TEST(OpenDataset, TheFingerprintTellsPicturesPreprocessingAndPartsApart) {
  const TempFolder temp;
  WriteCifar10(temp.path());
  const config::RunConfig run = RunOf(config::DatasetKind::kCifar10, temp.path());
  std::set<std::string> seen = {Open(run)->Fingerprint()};
  EXPECT_EQ(Open(run)->Fingerprint(), *seen.begin());
  const auto differs = [&](const config::RunConfig& changed) {
    return seen.insert(Open(changed)->Fingerprint()).second;
  };
  config::RunConfig changed = run;
  changed.data.image_size = 48;
  EXPECT_TRUE(differs(changed));
  changed = run;
  changed.data.mean = changed.data.std = {0.5, 0.5, 0.5};
  EXPECT_TRUE(differs(changed));
  changed = run;
  changed.data.train_samples = 100;
  EXPECT_TRUE(differs(changed));
  changed.seed = 9;
  EXPECT_TRUE(differs(changed));
  fs::last_write_time(temp.path() / "data_batch_3.bin",
                      fs::file_time_type::clock::now() - std::chrono::hours(1));
  EXPECT_TRUE(differs(run));
}

TEST(OpenDataset, ClassCountsOfASubsetAreItsOwn) {
  config::RunConfig run = RunOf(config::DatasetKind::kShapes);
  run.data.train_samples = 50;
  const auto shapes = Open(run);
  std::vector<int64_t> counts(shapes->classes().size());
  Sample sample;
  for (int64_t i = 0; i < 50; ++i) {
    shapes->Read(i, sample);
    EXPECT_EQ(shapes->LabelOf(i), sample.label);
    ++counts[static_cast<size_t>(sample.label)];
  }
  EXPECT_EQ(shapes->ClassCounts(), counts);
  const TempFolder temp;
  WriteCifar10(temp.path());
  run = RunOf(config::DatasetKind::kCifar10, temp.path());
  run.data.train_samples = 60;
  EXPECT_EQ(Open(run)->ClassCounts()[0], 60);
  EXPECT_THAT(Open(run)->NameOf(0), HasSubstr("data_batch_1.bin record"));
}

TEST(DescribeCounts, NamesTheRareAndTheEmpty) {
  EXPECT_EQ(DescribeCounts({"a", "b"}, {7, 7}), "2 classes of 7");
  EXPECT_EQ(DescribeCounts({"ant", "bee", "cat", "dog"}, {0, 100, 9, 400}),
            "4 classes of 0 to 400 (median 100); empty: ant; rare: cat (9)");
}

}  // namespace
}  // namespace lockstep::trainer
