// Charts: harmless texts, numbers that fit, and nothing drawn of nothing.
#include "trainer/inference/charts.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <regex>

namespace lockstep::trainer {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

// Every number behind x, y, cx, cy, x1, … and in points lies in the picture.
void ExpectInside(const std::string& svg, double width, double height) {
  EXPECT_THAT(svg, AllOf(Not(HasSubstr("nan")), Not(HasSubstr("inf"))));
  const std::regex attribute("(?:c?[xy][12]?)=\"(-?[0-9.]+)\"");
  for (std::sregex_iterator at(svg.begin(), svg.end(), attribute), end; at != end; ++at) {
    const double value = std::stod((*at)[1]);
    EXPECT_GE(value, 0);
    EXPECT_LE(value, std::max(width, height));
  }
}

TEST(ChartsTest, TextsHaveNoMeaningInHtml) {
  EXPECT_EQ(EscapeHtml("<b onload='x'>\"&\n"), "&lt;b onload=&#39;x&#39;&gt;&quot;&amp; ");
  const std::string svg = LineChart({{"<script>", {{0, 1}, {1, 2}}}}, "a<b");
  EXPECT_THAT(svg,
              AllOf(Not(HasSubstr("<script>")), HasSubstr("&lt;script&gt;"), HasSubstr("a&lt;b")));
}

TEST(ChartsTest, WhatIsNotFiniteIsLeftOut) {
  const std::string svg =
      LineChart({{"loss", {{0, 2}, {1, std::nan("")}, {2, HUGE_VAL}, {3, 1}}}}, "step");
  ExpectInside(svg, 560, 260);
  EXPECT_EQ(LineChart({{"loss", {{0, std::nan("")}}}}, "step"), "");
  EXPECT_EQ(LineChart({}, "step"), "");
  EXPECT_EQ(ScatterChart({}, "x", "y"), "");
}

TEST(ChartsTest, OneValueAndEqualValuesStillHaveAxes) {
  for (const double value : {0.0, -3.0, 1e-12, 1e12}) {
    const std::string svg = LineChart({{"loss", {{5, value}}}}, "step");
    EXPECT_THAT(svg, HasSubstr("<circle"));
    ExpectInside(svg, 560, 260);
    ExpectInside(ScatterChart({{value, value}}, "true", "predicted"), 420, 400);
  }
}

TEST(ChartsTest, AScatterHasOnePointForEachPair) {
  const std::string svg = ScatterChart({{1, 2}, {3, -4}, {5, 6}}, "true", "predicted");
  ExpectInside(svg, 420, 400);
  size_t circles = 0;
  for (size_t at = svg.find("<circle"); at != std::string::npos; at = svg.find("<circle", at + 1)) {
    ++circles;
  }
  EXPECT_EQ(circles, 3u);
}

}  // namespace
}  // namespace lockstep::trainer
