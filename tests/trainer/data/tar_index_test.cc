#include "trainer/data/tar_index.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <string>
#include <vector>

#include "tests/trainer/data/tar_files.h"
#include "tests/trainer/pictures/temp_folder.h"
#include "trainer/data/dataset.h"

namespace lockstep::trainer {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

class TarIndexTest : public ::testing::Test {
 protected:
  std::string Path() const { return (temp_.path() / "a.tar").string(); }
  void Write(const std::string& bytes) {
    std::ofstream file(Path(), std::ios::binary);
    file << bytes;
  }
  std::vector<TarMember> Index(const std::string& bytes) {
    Write(bytes);
    return ReadTarIndex(Path());
  }
  std::string ErrorOf(const std::string& bytes) {
    try {
      Index(bytes);
    } catch (const DataError& error) {
      return error.what();
    }
    return "";
  }
  TempFolder temp_;
};

TEST_F(TarIndexTest, TellsNamesAndPlacesOfRegularFiles) {
  const auto members =
      Index(TarBlock({.name = "./a/", .type = '5'}) + TarMemberOf("./a/x.jpg", "hello") +
            TarMemberOf("y.cls", std::string(513, 'y')) + TarMemberOf("empty", "") + TarEnd());
  ASSERT_EQ(members.size(), 3u);
  EXPECT_EQ(members[0].name, "a/x.jpg");
  EXPECT_EQ(members[0].offset, 1024);
  EXPECT_EQ(members[0].bytes, 5);
  EXPECT_EQ(members[1].offset, 2048);
  EXPECT_EQ(members[1].bytes, 513);
  EXPECT_EQ(members[2].offset, 3584);
}

TEST_F(TarIndexTest, KnowsLongNamesOfEveryKind) {
  const std::string name = std::string(150, 'n') + "/" + std::string(60, 'm') + ".jpg";
  const std::string pax = PaxRecord("mtime", "1.5") + PaxRecord("path", name);
  const auto members = Index(
      TarBlock({.name = "x.jpg", .bytes = 0, .prefix = "some/folder"}) +
      TarBlock({.name = "././@LongLink", .bytes = std::ssize(name) + 1, .type = 'L'}) +
      TarPadded(name + '\0') + TarMemberOf("short", "1") +
      TarBlock({.name = "pax", .bytes = std::ssize(pax), .type = 'x'}) + TarPadded(pax) +
      TarMemberOf("short", "2") +
      TarBlock({.name = "gnu", .prefix = "not a prefix", .magic = std::string("ustar  \0", 8)}) +
      TarBlock({.name = "v7", .prefix = "", .magic = std::string(8, '\0')}) + TarEnd());
  ASSERT_EQ(members.size(), 5u);
  EXPECT_EQ(members[0].name, "some/folder/x.jpg");
  EXPECT_EQ(members[1].name, name);
  EXPECT_EQ(members[2].name, name);
  EXPECT_EQ(members[3].name, "gnu");
  EXPECT_EQ(members[4].name, "v7");
}

TEST_F(TarIndexTest, KnowsSizesInBase256AndInPaxHeaders) {
  const std::string pax = PaxRecord("size", "700");
  const auto members =
      Index(TarBlock({.name = "a", .bytes = 3, .binary_size = true}) + TarPadded("abc") +
            TarBlock({.name = "pax", .bytes = std::ssize(pax), .type = 'x'}) + TarPadded(pax) +
            TarBlock({.name = "b", .bytes = 0}) + TarPadded(std::string(700, 'b')) +
            TarMemberOf("c", "c") + TarEnd());
  ASSERT_EQ(members.size(), 3u);
  EXPECT_EQ(members[0].bytes, 3);
  EXPECT_EQ(members[1].bytes, 700);
  EXPECT_EQ(members[2].name, "c");
}

TEST_F(TarIndexTest, AnArchiveCutAnywhereIsRefusedWithThePlace) {
  const std::string whole =
      TarMemberOf("a.jpg", std::string(600, 'a')) + TarMemberOf("b.jpg", "b") + TarEnd();
  for (size_t cut = 0; cut + 1024 <= whole.size(); cut += 37) {
    ASSERT_THAT(ErrorOf(whole.substr(0, cut)), AllOf(HasSubstr(Path()), HasSubstr("at byte ")))
        << cut;
  }
  EXPECT_THAT(ErrorOf(whole.substr(0, 700)),
              AllOf(HasSubstr("at byte 0"), HasSubstr("600 bytes should follow, 188 do")));
  EXPECT_THAT(ErrorOf(whole.substr(0, 1536)),
              AllOf(HasSubstr("at byte 1536"), HasSubstr("cut off")));
  EXPECT_EQ(ErrorOf(whole), "");
}

TEST_F(TarIndexTest, ADamagedHeaderIsRefused) {
  std::string bytes = TarMemberOf("a.jpg", "a") + TarMemberOf("b.jpg", "b") + TarEnd();
  bytes[1024 + 5] ^= 1;
  EXPECT_THAT(ErrorOf(bytes), AllOf(HasSubstr("at byte 1024"), HasSubstr("checksum")));
  EXPECT_THAT(ErrorOf(std::string(2048, 'x')), HasSubstr("not a tar archive"));
  EXPECT_THAT(ErrorOf("\x1F\x8B" + std::string(2048, 'x')), HasSubstr("compressed"));
  EXPECT_THAT(
      ErrorOf(TarBlock({.name = "a", .bytes = int64_t{1} << 62, .binary_size = true}) + TarEnd()),
      HasSubstr("cut off"));
  EXPECT_THAT(ErrorOf(TarBlock({.name = "a", .bytes = -1, .binary_size = true}) + TarEnd()),
              HasSubstr("size is no number"));
}

TEST_F(TarIndexTest, WhatHasNoContentsIsRefusedByName) {
  EXPECT_THAT(ErrorOf(TarBlock({.name = "l.jpg", .type = '1'}) + TarEnd()),
              AllOf(HasSubstr("'l.jpg' is a link"), HasSubstr("--hard-dereference")));
  EXPECT_THAT(ErrorOf(TarBlock({.name = "l.jpg", .type = '2'}) + TarEnd()), HasSubstr("is a link"));
  EXPECT_THAT(ErrorOf(TarBlock({.name = "s", .type = 'S'}) + TarEnd()), HasSubstr("sparse"));
  EXPECT_THAT(ErrorOf(TarBlock({.name = "d", .type = '3'}) + TarEnd()),
              HasSubstr("no regular file"));
}

TEST_F(TarIndexTest, JoinedArchivesAreRefused) {
  const std::string one = TarMemberOf("a", "a") + TarEnd();
  EXPECT_THAT(ErrorOf(one + one), HasSubstr("follows the end mark"));
  EXPECT_EQ(ErrorOf(one + std::string(8192, '\0')), "");
}

TEST_F(TarIndexTest, DamagedPaxHeadersAreRefused) {
  for (const std::string pax :
       {"", "5", "99 path=x\n", "8 path=x", "9 pathxx\n", "11 size=-5\n", "12 size=1x2\n",
        "18446744073709551615 a=b\n", "3 =\n", "0 a=b\n"}) {
    const std::string bytes = TarBlock({.name = "pax", .bytes = std::ssize(pax), .type = 'x'}) +
                              TarPadded(pax) + TarMemberOf("a", "a") + TarEnd();
    if (pax.empty()) {
      EXPECT_EQ(ErrorOf(bytes), "");
    } else {
      EXPECT_THAT(ErrorOf(bytes), HasSubstr("pax header")) << pax;
    }
  }
}

// What the system's tar makes of long names and its own formats is read the same.
TEST_F(TarIndexTest, ReadsWhatTarWrites) {
  if (std::system("tar --version > /dev/null 2>&1") != 0) GTEST_SKIP() << "there is no tar";
  const std::string long_name = std::string(120, 'n') + ".jpg";
  const std::string folder = (temp_.path() / "in").string();
  std::filesystem::create_directories(folder + "/" + std::string(90, 'd'));
  std::ofstream(folder + "/short.jpg") << "short";
  std::ofstream(folder + "/" + std::string(90, 'd') + "/" + long_name) << "long one";
  for (const char* format : {"gnu", "pax", "posix", "oldgnu"}) {
    const std::string command = std::string("tar --format=") + format + " --sort=name -C " +
                                folder + " -cf " + Path() + " .";
    ASSERT_EQ(std::system(command.c_str()), 0);
    const auto members = ReadTarIndex(Path());
    ASSERT_EQ(members.size(), 2u) << format;
    EXPECT_EQ(members[0].name, std::string(90, 'd') + "/" + long_name) << format;
    EXPECT_EQ(members[0].bytes, 8) << format;
    EXPECT_EQ(members[1].name, "short.jpg") << format;
  }
}

// Bytes all over the headers changed to others: read or refused.
TEST_F(TarIndexTest, AnyDamageIsReadOrRefused) {
  const std::string pax = PaxRecord("path", "long.jpg") + PaxRecord("size", "2");
  const std::string whole = TarBlock({.name = "pax", .bytes = std::ssize(pax), .type = 'x'}) +
                            TarPadded(pax) + TarMemberOf("b.jpg", "bb") + TarEnd();
  int refused = 0;
  for (size_t i = 0; i < 1536; i += 3) {
    for (const int byte : {0x80, 0x37}) {
      std::string damaged = whole;
      damaged[i] = static_cast<char>(byte);
      refused += ErrorOf(damaged).empty() ? 0 : 1;
    }
  }
  EXPECT_GT(refused, 300);
}

}  // namespace
}  // namespace lockstep::trainer
