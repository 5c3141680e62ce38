#include "trainer/data/csv_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "trainer/data/dataset.h"

namespace lockstep::trainer {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

std::string ErrorOf(std::string_view text) {
  try {
    ParseCsv(text, "t.csv");
  } catch (const DataError& error) {
    return error.what();
  }
  return "";
}

TEST(ParseCsv, ReadsPlainAndQuotedFields) {
  const CsvTable table = ParseCsv(
      "path, age ,note\n"
      "a.jpg,1.5,plain\n"
      "\"b,c.jpg\",2,\"she said \"\"hi\"\"\"\n"
      "d.jpg,,\"two\nlines\"\n"
      "e.jpg,4,",
      "t.csv");
  EXPECT_THAT(table.columns, ElementsAre("path", "age", "note"));
  ASSERT_EQ(table.records.size(), 4u);
  EXPECT_THAT(table.records[1].fields, ElementsAre("b,c.jpg", "2", "she said \"hi\""));
  EXPECT_THAT(table.records[2].fields, ElementsAre("d.jpg", "", "two\nlines"));
  EXPECT_THAT(table.records[3].fields, ElementsAre("e.jpg", "4", ""));
  EXPECT_EQ(table.records[2].line, 4);
  EXPECT_EQ(table.records[3].line, 6);  // The record before it takes two.
}

TEST(ParseCsv, LineEndsByteOrderMarkAndEmptyLinesDoNotMatter) {
  const CsvTable table =
      ParseCsv("\xEF\xBB\xBFpath,y\r\n\r\na,1\r\n\n\"b\",2\r\n\r\n\r\n", "t.csv");
  EXPECT_THAT(table.columns, ElementsAre("path", "y"));
  ASSERT_EQ(table.records.size(), 2u);
  EXPECT_THAT(table.records[0].fields, ElementsAre("a", "1"));
  EXPECT_THAT(table.records[1].fields, ElementsAre("b", "2"));
  EXPECT_EQ(table.records[1].line, 5);
}

TEST(ParseCsv, EveryFaultIsNamedWithItsLine) {
  const std::string error = ErrorOf(
      "path,y\n"
      "a,1\n"
      "b\n"
      "c,\"1\"2\n"
      "d,1,2\n"
      "e,1\"2\n"
      "f,3\n"
      "g,\"never\nclosed");
  EXPECT_THAT(error,
              AllOf(HasSubstr("5 lines"), HasSubstr("t.csv:3: 1 fields; expected 2"),
                    HasSubstr("t.csv:4: something follows a closing quote"),
                    HasSubstr("t.csv:5: 3 fields"), HasSubstr("t.csv:6: a quote within a field"),
                    HasSubstr("t.csv:8: a quote that is never closed"), Not(HasSubstr("t.csv:2:")),
                    Not(HasSubstr("t.csv:7:"))));
}

TEST(ParseCsv, NoMoreThanTwentyFaultsAreNamed) {
  std::string text = "path,y\n";
  for (int i = 0; i < 100; ++i) text += "x\n";
  EXPECT_THAT(ErrorOf(text),
              AllOf(HasSubstr("t.csv:21:"), Not(HasSubstr("t.csv:22:")), HasSubstr("and 80 more")));
}

TEST(ParseCsv, WhatIsNoTableIsRefused) {
  EXPECT_THAT(ErrorOf(""), HasSubstr("is empty"));
  EXPECT_THAT(ErrorOf("\n\r\n"), HasSubstr("is empty"));
  EXPECT_THAT(ErrorOf("\xFF\xFEp\0"), HasSubstr("UTF-16"));
  EXPECT_THAT(ErrorOf("path,y,y\na,1,2"), HasSubstr("two columns 'y'"));
  EXPECT_THAT(ErrorOf("path,\na,1"), HasSubstr("column 2 has no name"));
  EXPECT_THAT(ErrorOf(std::string_view("path,y\na\0b,1", 12)), HasSubstr("t.csv:2: a zero byte"));
  EXPECT_THAT(ErrorOf("path,y\ra,1"), HasSubstr("carriage return"));
}

// Every cut of a text and every byte put in its place is read or refused, never a crash.
TEST(ParseCsv, AnyDamageIsReadOrRefused) {
  const std::string text = "path,\"y\"\r\n\"a\"\"b\",1\n\"c\nd\",\"2\"\n\ne,3";
  int read = 0;
  for (size_t i = 0; i <= text.size(); ++i) {
    for (int byte = -1; byte < 256; ++byte) {
      std::string damaged = text;
      if (byte < 0) {
        damaged.resize(i);
      } else if (i < text.size()) {
        damaged[i] = static_cast<char>(byte);
      }
      if (ErrorOf(damaged).empty()) ++read;
    }
  }
  EXPECT_GT(read, 1000);
}

}  // namespace
}  // namespace lockstep::trainer
