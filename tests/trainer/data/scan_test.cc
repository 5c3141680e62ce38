#include "trainer/data/scan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "tests/trainer/pictures/pictures.h"
#include "tests/trainer/pictures/temp_folder.h"

namespace lockstep::trainer {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

class ScanTest : public ::testing::Test {
 protected:
  ScanTest() {
    listing_.what = "test";
    listing_.root = (temp_.path() / "data").string();
    listing_.places = {listing_.root};
    for (int i = 0; i < kPictures; ++i) {
      const std::string name = std::to_string(i) + ".png";
      WriteBytes(Path(i), FlatPng(4 + i % 3, 5, {1, 2, 3}));
      listing_.items.push_back({.name = name});
    }
  }
  static constexpr int kPictures = 200;
  fs::path Path(int i) const { return temp_.path() / "data" / (std::to_string(i) + ".png"); }
  std::string Memory() const { return (temp_.path() / "cache").string(); }
  ScanResult Scan(int threads = 3) const {
    return ScanPictures(listing_,
                        {.threads = threads, .memory_folder = Memory(), .memory_from_pictures = 1});
  }
  fs::path MemoryFile() const {
    for (const auto& entry : fs::directory_iterator(Memory() + "/scans")) {
      if (entry.path().extension() == ".scan") return entry.path();
    }
    return {};
  }
  TempFolder temp_;
  PictureListing listing_;
};

TEST_F(ScanTest, WhatWasFoundGoodIsRemembered) {
  const ScanResult first = Scan();
  EXPECT_EQ(first.remembered, 0);
  const ScanResult second = Scan();
  EXPECT_EQ(second.remembered, kPictures);
  EXPECT_EQ(second.sizes, first.sizes);
  EXPECT_EQ(second.stamps, first.stamps);
  EXPECT_EQ(second.sizes[1].width, 5);
}

TEST_F(ScanTest, WhatChangedIsLookedAtAgainAndWhatIsBadAlways) {
  WriteBytes(Path(7), ToBytes("no picture"));
  EXPECT_EQ(Scan().problems.size(), 1u);
  WriteBytes(Path(9), ToBytes("gone bad"));
  fs::remove(Path(11));
  const ScanResult again = Scan();
  EXPECT_EQ(again.remembered, kPictures - 3);
  ASSERT_EQ(again.problems.size(), 3u);
  EXPECT_THAT(again.problems.at(7), HasSubstr("7.png: neither"));
  EXPECT_THAT(again.problems.at(9), HasSubstr("9.png: neither"));
  EXPECT_THAT(again.problems.at(11), HasSubstr("11.png: cannot open"));
  WriteBytes(Path(7), FlatPng(4, 4, {1, 1, 1}));
  EXPECT_EQ(Scan().problems.count(7), 0u);
}

TEST_F(ScanTest, ContentsThatChangeUnderAnOldTimeAreLookedAt) {
  Scan();
  const auto time = fs::last_write_time(Path(5));
  const auto bytes = fs::file_size(Path(5));
  WriteBytes(Path(5), Encoded(bytes, std::byte{'x'}));
  fs::last_write_time(Path(5), time);
  EXPECT_EQ(Scan().problems.count(5), 1u);
}

TEST_F(ScanTest, ADamagedMemoryIsAsNone) {
  Scan();
  const fs::path file = MemoryFile();
  ASSERT_FALSE(file.empty());
  const auto bytes = fs::file_size(file);
  for (const uintmax_t at : {uintmax_t{3}, bytes / 2, bytes - 1}) {
    {
      std::fstream stream(file, std::ios::in | std::ios::out | std::ios::binary);
      stream.seekg(static_cast<std::streamoff>(at));
      const int old = stream.get();
      stream.seekp(static_cast<std::streamoff>(at));
      stream.put(static_cast<char>(old ^ 0x55));
    }
    EXPECT_EQ(Scan().remembered, 0) << at;
    EXPECT_EQ(Scan().remembered, kPictures) << at;
  }
  fs::resize_file(file, bytes - 5);
  EXPECT_EQ(Scan().remembered, 0);
  fs::resize_file(file, 0);
  EXPECT_EQ(Scan().remembered, 0);
}

TEST_F(ScanTest, WithoutAPlaceToRememberTheResultIsTheSame) {
  const ScanResult kept = Scan();
  WriteBytes(temp_.path() / "file", ToBytes("a file, no folder"));
  const ScanResult nowhere = ScanPictures(
      listing_, {.threads = 1, .memory_folder = temp_.path() / "file", .memory_from_pictures = 1});
  EXPECT_EQ(nowhere.sizes, kept.sizes);
  EXPECT_EQ(ScanPictures(listing_,
                         {.threads = 2, .memory_folder = Memory(), .memory_from_pictures = 1000})
                .remembered,
            0)
      << "few pictures are not worth remembering";
  const ScanOptions by_bytes{.threads = 2,
                             .memory_folder = Memory() + "2",
                             .memory_from_pictures = 1000,
                             .memory_from_bytes = 1000};
  ScanPictures(listing_, by_bytes);
  EXPECT_EQ(ScanPictures(listing_, by_bytes).remembered, kPictures) << "large ones are";
}

TEST_F(ScanTest, OfSeveralAtOnceOneLooksAndTheOthersRead) {
  std::atomic<int64_t> remembered{0};
  {
    std::vector<std::jthread> ranks;
    for (int i = 0; i < 4; ++i) {
      ranks.emplace_back([&] { remembered += Scan(1).remembered; });
    }
  }
  EXPECT_EQ(remembered.load(), 3 * kPictures);
}

}  // namespace
}  // namespace lockstep::trainer
