#include "trainer/data/cifar.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "tests/trainer/pictures/temp_folder.h"

namespace lockstep::trainer {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr int64_t kRecord10 = 3073;
constexpr int64_t kRecord100 = 3074;

// All zeros (label 0, black), taking no space on the disk.
void WriteZeros(const fs::path& path, int64_t bytes) {
  fs::create_directories(path.parent_path());
  std::ofstream(path).close();
  fs::resize_file(path, static_cast<uintmax_t>(bytes));
}

void Poke(const fs::path& path, int64_t offset, const std::vector<uint8_t>& bytes) {
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(offset);
  file.write(reinterpret_cast<const char*>(bytes.data()),
             static_cast<std::streamsize>(bytes.size()));
}

void WriteCifar10(const fs::path& folder) {
  for (int i = 1; i <= 5; ++i) {
    WriteZeros(folder / ("data_batch_" + std::to_string(i) + ".bin"), 10000 * kRecord10);
  }
  WriteZeros(folder / "test_batch.bin", 10000 * kRecord10);
}

std::string OpenError(const CifarOptions& options) {
  try {
    OpenCifar(options);
  } catch (const DataError& error) {
    return error.what();
  }
  return "";
}

TEST(Cifar10, ReadsRecordsOfEveryFileAndTurnsPlanesIntoPixels) {
  const TempFolder temp;
  WriteCifar10(temp.path());
  // Record 2 of the third file: label 7, first red 10, second green 20, last blue 30.
  const fs::path third = temp.path() / "data_batch_3.bin";
  Poke(third, 2 * kRecord10, {7, 10});
  Poke(third, 2 * kRecord10 + 1 + 1024 + 1, {20});
  Poke(third, 2 * kRecord10 + kRecord10 - 1, {30});
  const auto train = OpenCifar({.path = temp.path()});
  ASSERT_EQ(train->size(), 50000);
  Sample sample;
  train->Read(20002, sample);
  EXPECT_EQ(sample.label, 7);
  ASSERT_EQ(sample.picture.pixels.size(), 3072u);
  EXPECT_EQ(sample.picture.pixels[0], 10);
  EXPECT_EQ(sample.picture.pixels[4], 20);
  EXPECT_EQ(sample.picture.pixels[3071], 30);
  train->Read(49999, sample);
  EXPECT_EQ(sample.label, 0);
  EXPECT_THROW(train->Read(50000, sample), DataError);
  EXPECT_EQ(OpenCifar({.path = temp.path(), .split = Split::kEval})->size(), 10000);
}

TEST(Cifar10, NamesComeFromTheMetaFileOrAreNumbers) {
  const TempFolder temp;
  WriteCifar10(temp.path());
  EXPECT_EQ(OpenCifar({.path = temp.path()})->classes().at(9), "9");
  std::ofstream(temp.path() / "batches.meta.txt")
      << "airplane\nautomobile\nbird\ncat\ndeer\ndog\nfrog\nhorse\nship\ntruck\n\n";
  const auto named = OpenCifar({.path = temp.path()});
  ASSERT_EQ(named->classes().size(), 10u);
  EXPECT_EQ(named->classes()[9], "truck");
}

TEST(Cifar10, TheFolderAboveDoesToo) {
  const TempFolder temp;
  WriteCifar10(temp.path() / "cifar-10-batches-bin");
  EXPECT_EQ(OpenCifar({.path = temp.path(), .split = Split::kEval})->size(), 10000);
}

TEST(Cifar10, AWrongLengthNamesTheFileAndTheRightLength) {
  const TempFolder temp;
  WriteCifar10(temp.path());
  const fs::path fourth = temp.path() / "data_batch_4.bin";
  for (const int64_t length : {int64_t{0}, 10000 * kRecord10 - 1, 10000 * kRecord10 + 1}) {
    WriteZeros(fourth, length);
    EXPECT_THAT(OpenError({.path = temp.path()}),
                AllOf(HasSubstr(fourth.string()), HasSubstr(std::to_string(length)),
                      HasSubstr("30730000")));
  }
  // The held-out file is whole.
  EXPECT_EQ(OpenError({.path = temp.path(), .split = Split::kEval}), "");
}

TEST(Cifar10, ALabelOutOfRangeNamesFileAndRecord) {
  const TempFolder temp;
  WriteCifar10(temp.path());
  Poke(temp.path() / "data_batch_2.bin", 123 * kRecord10, {10});
  EXPECT_THAT(OpenError({.path = temp.path()}),
              AllOf(HasSubstr("data_batch_2.bin"), HasSubstr("record 123"), HasSubstr("label 10"),
                    HasSubstr("0 to 9")));
}

TEST(Cifar10, WhatIsMissingIsNamed) {
  const TempFolder temp;
  EXPECT_THAT(OpenError({.path = temp.path() / "no"}),
              AllOf(HasSubstr((temp.path() / "no").string()), HasSubstr("no such folder")));
  EXPECT_THAT(OpenError({.path = temp.path()}), HasSubstr("data_batch_1.bin"));
  std::ofstream(temp.path() / "data_batch_1") << "python";
  EXPECT_THAT(OpenError({.path = temp.path()}), HasSubstr("Python version"));
  WriteCifar10(temp.path());
  fs::remove(temp.path() / "data_batch_5.bin");
  EXPECT_THAT(OpenError({.path = temp.path()}),
              AllOf(HasSubstr("data_batch_5.bin"), HasSubstr("No such file")));
  ASSERT_EQ(::mkfifo((temp.path() / "data_batch_5.bin").c_str(), 0600), 0);
  EXPECT_THAT(OpenError({.path = temp.path()}),
              AllOf(HasSubstr("data_batch_5.bin"), HasSubstr("not a regular file")));
}

TEST(Cifar100, TakesTheFineLabel) {
  const TempFolder temp;
  WriteZeros(temp.path() / "train.bin", 50000 * kRecord100);
  WriteZeros(temp.path() / "test.bin", 10000 * kRecord100);
  Poke(temp.path() / "test.bin", 5 * kRecord100, {19, 99, 200});
  const auto test = OpenCifar({.path = temp.path(), .hundred = true, .split = Split::kEval});
  Sample sample;
  test->Read(5, sample);
  EXPECT_EQ(sample.label, 99);
  EXPECT_EQ(sample.picture.pixels[0], 200);
  EXPECT_EQ(test->classes().size(), 100u);
  EXPECT_EQ(OpenCifar({.path = temp.path(), .hundred = true})->size(), 50000);
  Poke(temp.path() / "train.bin", 49999 * kRecord100, {0, 100});
  EXPECT_THAT(OpenError({.path = temp.path(), .hundred = true}),
              AllOf(HasSubstr("train.bin"), HasSubstr("record 49999"), HasSubstr("label 100")));
}

}  // namespace
}  // namespace lockstep::trainer
