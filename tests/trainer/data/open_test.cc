#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <set>
#include <string>
#include <vector>

#include "tests/trainer/data/temp_folder.h"
#include "trainer/data/dataset.h"

namespace lockstep::trainer {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

config::DataConfig Config(config::DatasetKind kind, const std::string& path = "") {
  config::DataConfig config;
  config.kind = kind;
  config.path = path;
  return config;
}

std::string OpenError(const config::DataConfig& config) {
  try {
    OpenDataset(config, Split::kTrain, 1);
  } catch (const DataError& error) {
    return error.what();
  }
  return "";
}

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
  config::DataConfig config;
  EXPECT_EQ(OpenDataset(config, Split::kTrain, 1)->size(), 8000);
  EXPECT_EQ(OpenDataset(config, Split::kEval, 1)->size(), 2000);
  EXPECT_EQ(OpenDataset(config, Split::kEval, 1)->width(), 32);
  config.train_samples = 123;
  config.eval_samples = 45;
  config.image_size = 16;
  EXPECT_EQ(OpenDataset(config, Split::kTrain, 1)->size(), 123);
  EXPECT_EQ(OpenDataset(config, Split::kEval, 1)->size(), 45);
  EXPECT_EQ(OpenDataset(config, Split::kEval, 1)->height(), 16);
}

TEST(OpenDataset, ASubsetIsSeededAndGrowsWithItsSize) {
  const TempFolder temp;
  WriteCifar10(temp.path());
  config::DataConfig config = Config(config::DatasetKind::kCifar10, temp.path());
  // Which of the first 256 pictures are in: they carry their number.
  const auto members = [&](uint64_t seed, int count) {
    config.train_samples = count;
    const auto subset = OpenDataset(config, Split::kTrain, seed);
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
  config::DataConfig config = Config(config::DatasetKind::kCifar10, temp.path());
  config.image_size = 48;
  config.train_samples = 10;
  const auto dataset = OpenDataset(config, Split::kTrain, 1);
  EXPECT_EQ(dataset->width(), 48);
  Sample sample;
  dataset->Read(9, sample);
  EXPECT_EQ(sample.picture.pixels.size(), 48u * 48 * 3);
}

TEST(OpenDataset, WrongNumbersAndPathsAreNamed) {
  const TempFolder temp;
  WriteCifar10(temp.path());
  config::DataConfig config = Config(config::DatasetKind::kCifar10, temp.path());
  config.train_samples = 50001;
  EXPECT_THAT(OpenError(config),
              AllOf(HasSubstr("data.train_samples"), HasSubstr("50001"), HasSubstr("50000")));
  EXPECT_THAT(OpenError(Config(config::DatasetKind::kImageFolder)), HasSubstr("data.path"));
  config = Config(config::DatasetKind::kShapes);
  config.image_size = 2;
  EXPECT_THAT(OpenError(config), HasSubstr("data.image_size"));
  config = Config(config::DatasetKind::kShapes);
  config.train_samples = -1;
  EXPECT_THAT(OpenError(config), HasSubstr("data.train_samples"));
}

TEST(NormalizationOf, PresetsAreTheDataSets) {
  const auto mean = [](config::DatasetKind kind) { return NormalizationOf(Config(kind), 3).mean; };
  EXPECT_THAT(mean(config::DatasetKind::kShapes), ElementsAre(0.5, 0.5, 0.5));
  EXPECT_THAT(mean(config::DatasetKind::kCifar10), ElementsAre(0.4914, 0.4822, 0.4465));
  EXPECT_THAT(mean(config::DatasetKind::kCifar100), ElementsAre(0.5071, 0.4865, 0.4409));
  EXPECT_THAT(mean(config::DatasetKind::kImageFolder), ElementsAre(0.485, 0.456, 0.406));
  EXPECT_THAT(NormalizationOf({}, 3).std, ElementsAre(0.25, 0.25, 0.25));
}

TEST(NormalizationOf, GivenNumbersWinAndAreChecked) {
  const auto with = [](const std::vector<double>& mean, const std::vector<double>& std) {
    config::DataConfig config;
    config.mean = mean;
    config.std = std;
    return NormalizationOf(config, 3);
  };
  EXPECT_THAT(with({0.1, 0.2, 0.3}, {}).mean, ElementsAre(0.1, 0.2, 0.3));
  EXPECT_THAT(with({0.1, 0.2, 0.3}, {}).std, ElementsAre(0.25, 0.25, 0.25));
  EXPECT_THAT(with({}, {1, 2, 3}).std, ElementsAre(1, 2, 3));
  EXPECT_THROW(with({0.1}, {}), DataError);
  EXPECT_THROW(with({}, {0.1, 0.2}), DataError);
  EXPECT_THROW(with({}, {0.1, 0.0, 0.2}), DataError);
}

}  // namespace
}  // namespace lockstep::trainer
