#include "launch/cli/format.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "launch/cli/table.h"

namespace lockstep::cli {
namespace {

TEST(FormatTest, SecondsUseTheTwoUnitsThatMatter) {
  EXPECT_EQ(FormatSeconds(0.42), "0.4s");
  EXPECT_EQ(FormatSeconds(9.96), "10s");
  EXPECT_EQ(FormatSeconds(59.4), "59s");
  EXPECT_EQ(FormatSeconds(59.9), "1m00s");
  EXPECT_EQ(FormatSeconds(192), "3m12s");
  EXPECT_EQ(FormatSeconds(7500), "2h05m");
  EXPECT_EQ(FormatSeconds(3 * 86400 + 4 * 3600), "3d04h");
}

TEST(FormatTest, AnUnknownTimeIsADash) {
  EXPECT_EQ(FormatSeconds(-1), "-");
  EXPECT_EQ(FormatSeconds(std::nan("")), "-");
  EXPECT_EQ(FormatSeconds(std::numeric_limits<double>::infinity()), "-");
  EXPECT_EQ(FormatUtc(0), "-");
}

TEST(FormatTest, BytesAreBinaryUnits) {
  EXPECT_EQ(FormatBytes(0), "0 B");
  EXPECT_EQ(FormatBytes(1023), "1023 B");
  EXPECT_EQ(FormatBytes(1258291), "1.2 MiB");
  EXPECT_EQ(FormatBytes((1 << 20) - 1), "1.0 MiB");  // Not "1024.0 KiB".
}

TEST(FormatTest, CountsHaveThousands) {
  EXPECT_EQ(FormatCount(0), "0");
  EXPECT_EQ(FormatCount(999), "999");
  EXPECT_EQ(FormatCount(1000), "1,000");
  EXPECT_EQ(FormatCount(1234567), "1,234,567");
  EXPECT_EQ(FormatCount(-123456), "-123,456");
}

TEST(FormatTest, RatesKeepThreeDigits) {
  EXPECT_EQ(FormatRate(0.854), "0.85");
  EXPECT_EQ(FormatRate(12.34), "12.3");
  EXPECT_EQ(FormatRate(1536.4), "1,536");
  EXPECT_EQ(FormatRate(0), "-");
}

TEST(FormatTest, SmallCostsDoNotBecomeZero) {
  EXPECT_EQ(FormatCost(0.0042, "EUR"), "0.0042 EUR");
  EXPECT_EQ(FormatCost(12.345, "USD"), "12.35 USD");
  EXPECT_EQ(FormatCost(0, "USD"), "0.00 USD");
}

TEST(FormatTest, RatiosArePercent) {
  EXPECT_EQ(FormatRatio(0.9312), "93.1%");
  EXPECT_EQ(FormatRatio(std::nan("")), "-");
}

TEST(FormatTest, TimesAreIso8601) {
  EXPECT_EQ(FormatUtc(1800000000), "2027-01-15T08:00:00Z");
}

TEST(FormatTest, ControlCharactersDoNotReachTheTerminal) {
  EXPECT_EQ(Printable("a\x1b[31mb\nc\x7f"), "a [31mb c ");
}

TEST(FormatTest, WidthCountsCharactersNotBytesNorColours) {
  EXPECT_EQ(DisplayWidth("abc"), 3);
  EXPECT_EQ(DisplayWidth("\x1b[32mab\x1b[0m"), 2);
  EXPECT_EQ(DisplayWidth("━━"), 2);
}

TEST(FormatTest, ClipShowsThatSomethingIsMissing) {
  EXPECT_EQ(Clip("abcdef", 6), "abcdef");
  EXPECT_EQ(Clip("abcdefg", 6), "abc...");
  EXPECT_EQ(Clip("━━━━━", 4), "━...");
  EXPECT_EQ(Clip("abcdef", 2), "ab");
}

TEST(TableTest, ColumnsAlignAlsoWithColours) {
  Table table({{"ID"}, {"STATE"}, {"STEP", Table::Align::kRight}});
  table.Add({"a1", "\x1b[32mRUNNING\x1b[0m", "5"});
  table.Add({"b", "QUEUED", "1,000"});
  EXPECT_EQ(table.Render(),
            "ID  STATE     STEP\n"
            "a1  \x1b[32mRUNNING\x1b[0m      5\n"
            "b   QUEUED   1,000\n");
}

TEST(TableTest, NoLineEndsInSpaces) {
  Table table({{"NAME"}, {"PATH"}});
  table.Add({"longer-than-title", ""});
  EXPECT_EQ(table.Render(), "NAME               PATH\nlonger-than-title\n");
}

TEST(TableTest, FieldsStandUnderEachOther) {
  EXPECT_EQ(RenderFields({{"run", "a"}, {"longer", "b"}}), "run:     a\nlonger:  b\n");
}

}  // namespace
}  // namespace lockstep::cli
