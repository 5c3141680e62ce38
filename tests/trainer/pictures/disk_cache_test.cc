#include "trainer/pictures/disk_cache.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <limits>
#include <string>
#include <thread>
#include <vector>

#include "tests/trainer/pictures/temp_folder.h"

namespace lockstep::trainer {
namespace {

using ::testing::HasSubstr;

Picture Numbered(int number) {
  Picture picture{40 + number % 3, 30, 3, {}};
  for (int i = 0; i < picture.width * picture.height * 3; ++i) {
    picture.pixels.push_back(static_cast<uint8_t>(i * 7 + number * 13));
  }
  return picture;
}

DiskCache::Key Content(int number) {
  return DiskCache::KeyOf("content " + std::to_string(number));
}
DiskCache::Key Stamp(int number) {
  return DiskCache::KeyOf("stamp " + std::to_string(number));
}

void AddAll(DiskCache& cache, int from, int to) {
  for (int i = from; i < to; ++i) cache.Add(Content(i), Stamp(i), Numbered(i));
}

// How many of [0, count) are there; those that are have the right pixels.
int CountSound(DiskCache& cache, int count) {
  int found = 0;
  for (int i = 0; i < count; ++i) {
    Picture picture;
    if (!cache.FindStamp(Stamp(i), picture)) continue;
    ++found;
    EXPECT_EQ(picture.width, Numbered(i).width);
    EXPECT_EQ(picture.pixels, Numbered(i).pixels) << i;
  }
  return found;
}

void Overwrite(const std::string& path, int64_t offset, char byte) {
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(offset);
  file.put(byte);
}

TEST(DiskCache, GivesBackWhatWasAddedAlsoToTheNextProcess) {
  const TempFolder temp;
  {
    DiskCache cache(temp.path(), "small");
    EXPECT_EQ(CountSound(cache, 5), 0);
    AddAll(cache, 0, 5);
    EXPECT_EQ(CountSound(cache, 5), 5);
    EXPECT_EQ(cache.Problem(), "");
  }
  DiskCache cache(temp.path(), "small");
  EXPECT_EQ(CountSound(cache, 5), 5);
  DiskCache other(temp.path(), "large");
  EXPECT_EQ(CountSound(other, 5), 0);
}

TEST(DiskCache, AnotherFileOfTheSameContentCostsNoPixels) {
  const TempFolder temp;
  {
    DiskCache cache(temp.path(), "small");
    AddAll(cache, 0, 1);
    const auto size = std::filesystem::file_size(cache.path());
    Picture picture;
    EXPECT_FALSE(cache.FindStamp(Stamp(7), picture));
    EXPECT_TRUE(cache.FindContent(Content(0), Stamp(7), picture));
    EXPECT_EQ(picture.pixels, Numbered(0).pixels);
    EXPECT_EQ(std::filesystem::file_size(cache.path()), size + 64);
    cache.Add(Content(0), Stamp(8), Numbered(0));
    cache.Add(Content(0), Stamp(8), Numbered(0));
    EXPECT_EQ(std::filesystem::file_size(cache.path()), size + 128);
  }
  DiskCache cache(temp.path(), "small");
  Picture picture;
  EXPECT_TRUE(cache.FindStamp(Stamp(7), picture));
  EXPECT_TRUE(cache.FindStamp(Stamp(8), picture));
}

TEST(DiskCache, AFileThatWasReplacedIsFoundByItsNewContent) {
  const TempFolder temp;
  DiskCache cache(temp.path(), "small");
  cache.Add(Content(0), Stamp(0), Numbered(0));
  cache.Add(Content(1), Stamp(0), Numbered(1));
  Picture picture;
  ASSERT_TRUE(cache.FindStamp(Stamp(0), picture));
  EXPECT_EQ(picture.pixels, Numbered(1).pixels);
}

TEST(DiskCache, WhatOneProcessAddsTheOthersFind) {
  const TempFolder temp;
  DiskCache one(temp.path(), "small");
  DiskCache other(temp.path(), "small");
  AddAll(one, 0, 3);
  EXPECT_EQ(CountSound(other, 3), 3);
  AddAll(other, 3, 6);
  EXPECT_EQ(CountSound(one, 6), 6);
  AddAll(one, 0, 6);  // Known: nothing is written twice.
  EXPECT_EQ(std::filesystem::file_size(one.path()), 32 + 6 * 64 + 2 * (40 + 41 + 42) * 30 * 3);
}

TEST(DiskCache, EveryTruncationLosesOnlyWhatWasCutAndIsMadeGood) {
  const TempFolder temp;
  std::string path;
  {
    DiskCache cache(temp.path(), "small");
    AddAll(cache, 0, 3);
    path = cache.path();
  }
  const auto size = std::filesystem::file_size(path);
  ASSERT_EQ(size, 11294u);  // The others end at 3696 and 7450.
  for (uintmax_t length = size; length > 300; length -= 97) {
    std::filesystem::resize_file(path, length);
    {
      DiskCache cache(temp.path(), "small");
      EXPECT_EQ(CountSound(cache, 3), length >= 11294  ? 3
                                      : length >= 7450 ? 2
                                                       : length >= 3696)
          << length;
      AddAll(cache, 0, 3);
      EXPECT_EQ(CountSound(cache, 3), 3);
    }
    DiskCache again(temp.path(), "small");
    EXPECT_EQ(CountSound(again, 3), 3) << length;
    EXPECT_EQ(std::filesystem::file_size(path), size);
  }
}

TEST(DiskCache, AFileThatIsCutWhileItIsOpenIsAMiss) {
  const TempFolder temp;
  DiskCache cache(temp.path(), "small");
  AddAll(cache, 0, 3);
  for (const uintmax_t length : {7000, 32, 5, 0}) {
    std::filesystem::resize_file(cache.path(), length);
    EXPECT_LE(CountSound(cache, 3), 1);
    AddAll(cache, 0, 3);
    EXPECT_EQ(CountSound(cache, 3), 3);
    DiskCache other(temp.path(), "small");
    EXPECT_EQ(CountSound(other, 3), 3);
  }
}

TEST(DiskCache, DamagedPixelsAreNoticedAndMadeAnew) {
  const TempFolder temp;
  std::string path;
  {
    DiskCache cache(temp.path(), "small");
    AddAll(cache, 0, 3);
    path = cache.path();
  }
  Overwrite(path, 32 + 64 + 1000, '\x55');  // In the first picture.
  {
    DiskCache cache(temp.path(), "small");
    Picture picture;
    EXPECT_FALSE(cache.FindStamp(Stamp(0), picture));
    EXPECT_FALSE(cache.FindContent(Content(0), Stamp(0), picture));
    EXPECT_EQ(CountSound(cache, 3), 2);
    cache.Add(Content(0), Stamp(0), Numbered(0));
    EXPECT_EQ(CountSound(cache, 3), 3);
  }
  DiskCache cache(temp.path(), "small");
  EXPECT_EQ(CountSound(cache, 3), 3);
}

TEST(DiskCache, ADamagedHeaderEndsTheFileThereAndTheRestIsMadeAnew) {
  const TempFolder temp;
  std::string path;
  {
    DiskCache cache(temp.path(), "small");
    AddAll(cache, 0, 3);
    path = cache.path();
  }
  Overwrite(path, 32 + 64 + 40 * 30 * 3 + 8, '\x55');  // The second one's width.
  DiskCache cache(temp.path(), "small");
  EXPECT_EQ(CountSound(cache, 3), 1);
  AddAll(cache, 0, 3);
  EXPECT_EQ(CountSound(cache, 3), 3);
}

TEST(DiskCache, AForeignFileIsMadeAnew) {
  const TempFolder temp;
  std::string path = DiskCache(temp.path(), "small").path();
  for (const std::string& content : {std::string(), std::string("hello"), std::string(5000, 'x')}) {
    std::ofstream(path, std::ios::binary | std::ios::trunc) << content;
    DiskCache cache(temp.path(), "small");
    EXPECT_EQ(CountSound(cache, 3), 0);
    AddAll(cache, 0, 3);
    EXPECT_EQ(CountSound(cache, 3), 3);
  }
}

TEST(DiskCache, WhereThereCanBeNoFolderItSaysWhyAndFindsNothing) {
  const TempFolder temp;
  std::ofstream(temp.path() / "file") << "x";
  DiskCache cache((temp.path() / "file").string(), "small");
  EXPECT_THAT(cache.Problem(), HasSubstr("directory"));
  AddAll(cache, 0, 2);
  EXPECT_EQ(CountSound(cache, 2), 0);
  DiskCache nowhere("", "small");
  EXPECT_THAT(nowhere.Problem(), HasSubstr("data.cache_folder"));
  EXPECT_EQ(CountSound(nowhere, 2), 0);
}

// A limit on the size of files stands in for a full disk: write() fails in the middle of a record.
TEST(DiskCache, AFullDiskEndsTheAddingAndLosesNothing) {
  const TempFolder temp;
  std::signal(SIGXFSZ, SIG_IGN);
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  rlimit limit = before;
  limit.rlim_cur = 10000;  // Two pictures and a half.
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &limit), 0);
  std::string problem;
  int found = 0;
  uintmax_t size = 0;
  {
    DiskCache cache(temp.path(), "small");
    AddAll(cache, 0, 5);
    problem = cache.Problem();
    found = CountSound(cache, 5);
    size = std::filesystem::file_size(cache.path());
  }
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &before), 0);
  EXPECT_THAT(problem, HasSubstr("File too large"));
  EXPECT_EQ(found, 2);
  EXPECT_EQ(size, 32u + 2 * 64 + (40 + 41) * 90);
  DiskCache cache(temp.path(), "small");
  EXPECT_EQ(CountSound(cache, 5), 2);
  AddAll(cache, 0, 5);
  EXPECT_EQ(CountSound(cache, 5), 5);
}

// Nothing leaves that much free.
TEST(DiskCache, ANearlyFullDiskEndsTheAddingButOfASmallFile) {
  const TempFolder temp;
  const Picture large{4096, 2048, 3, std::vector<uint8_t>(size_t{4096} * 2048 * 3, 7)};  // 24 MiB.
  DiskCache cache(temp.path(), "small", std::numeric_limits<int64_t>::max());
  for (int i = 0; i < 3; ++i) {
    cache.Add(Content(i), Stamp(i), large);
    EXPECT_EQ(cache.Problem(), "") << i;
  }
  cache.Add(Content(3), Stamp(3), large);
  EXPECT_EQ(cache.Problem(), "the disk is nearly full");
  Picture picture;
  EXPECT_TRUE(cache.FindStamp(Stamp(2), picture));
  EXPECT_FALSE(cache.FindStamp(Stamp(3), picture));
  DiskCache room(temp.path(), "small", 0);
  room.Add(Content(3), Stamp(3), large);
  EXPECT_EQ(room.Problem(), "");
  EXPECT_TRUE(room.FindStamp(Stamp(3), picture));
}

TEST(DiskCache, ManyThreadsAndProcessesAtOnce) {
  const TempFolder temp;
  constexpr int kPictures = 200;
  std::vector<pid_t> children;
  for (int child = 0; child < 3; ++child) {
    const pid_t pid = ::fork();
    if (pid == 0) {
      DiskCache cache(temp.path(), "small");
      {
        std::vector<std::jthread> threads;
        for (int thread = 0; thread < 2; ++thread) {
          threads.emplace_back([&, thread] {
            for (int i = 0; i < kPictures; ++i) {
              const int number = (i * 37 + 61 * child + 97 * thread) % kPictures;
              Picture picture;
              if (!cache.FindStamp(Stamp(number), picture)) {
                cache.Add(Content(number), Stamp(number), Numbered(number));
              }
            }
          });
        }
      }
      ::_exit(CountSound(cache, kPictures) == kPictures && cache.Problem().empty() ? 0 : 1);
    }
    children.push_back(pid);
  }
  for (const pid_t pid : children) {
    int status = 0;
    ASSERT_EQ(::waitpid(pid, &status, 0), pid);
    EXPECT_EQ(status, 0);
  }
  DiskCache cache(temp.path(), "small");
  EXPECT_EQ(CountSound(cache, kPictures), kPictures);
  uintmax_t expected = 32;  // Each once.
  for (int i = 0; i < kPictures; ++i) expected += 64 + Numbered(i).pixels.size();
  EXPECT_EQ(std::filesystem::file_size(cache.path()), expected);
}

TEST(DiskCache, AWriterThatIsKilledLeavesASoundCache) {
  const TempFolder temp;
  for (int round = 0; round < 10; ++round) {
    int ready[2];
    ASSERT_EQ(::pipe(ready), 0);
    const pid_t pid = ::fork();
    if (pid == 0) {
      DiskCache cache(temp.path(), "small");
      AddAll(cache, 100 * round, 100 * round + 1);
      static_cast<void>(::write(ready[1], "x", 1));
      for (int i = 100 * round + 1;; ++i) cache.Add(Content(i), Stamp(i), Numbered(i));
    }
    char byte = 0;
    ASSERT_EQ(::read(ready[0], &byte, 1), 1);
    for (int spin = 0; spin < 20 * round; ++spin) std::this_thread::yield();
    ASSERT_EQ(::kill(pid, SIGKILL), 0);
    ASSERT_EQ(::waitpid(pid, nullptr, 0), pid);
    ::close(ready[0]);
    ::close(ready[1]);
    DiskCache cache(temp.path(), "small");
    Picture picture;
    EXPECT_TRUE(cache.FindStamp(Stamp(100 * round), picture)) << round;
    CountSound(cache, 100 * round + 50);
    const int mine = 1'000'000 + round;  // It goes on after the torn end.
    cache.Add(Content(mine), Stamp(mine), Numbered(mine));
    DiskCache next(temp.path(), "small");
    EXPECT_TRUE(next.FindStamp(Stamp(mine), picture)) << round;
  }
}

}  // namespace
}  // namespace lockstep::trainer
