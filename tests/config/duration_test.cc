#include "config/duration.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <string>

namespace lockstep::config {
namespace {

Duration Parsed(const std::string& text) {
  const absl::StatusOr<Duration> duration = Duration::Parse(text);
  EXPECT_TRUE(duration.ok()) << text << ": " << duration.status();
  return duration.value_or(Duration());
}

TEST(Duration, ReadsEveryUnit) {
  EXPECT_EQ(Parsed("30ep"), Duration::Epochs(30));
  EXPECT_EQ(Parsed("0.5ep"), Duration::Epochs(0.5));
  EXPECT_EQ(Parsed("5000st"), Duration::Steps(5000));
  EXPECT_EQ(Parsed("90s"), Duration::Seconds(90));
  EXPECT_EQ(Parsed("15m"), Duration::Seconds(900));
  EXPECT_EQ(Parsed("2h"), Duration::Seconds(7200));
  EXPECT_EQ(Parsed("1.5d"), Duration::Seconds(129600));
}

TEST(Duration, EveryZeroIsTheEmptyOne) {
  for (const char* text : {"0ep", "0st", "0s", "0m", "0.0h", "0d"}) {
    EXPECT_EQ(Parsed(text), Duration()) << text;
    EXPECT_TRUE(Parsed(text).is_zero()) << text;
  }
  EXPECT_EQ(Duration().ToString(), "0s");
}

TEST(Duration, WritesTheLargestUnitThatFits) {
  EXPECT_EQ(Duration::Seconds(7200).ToString(), "2h");
  EXPECT_EQ(Duration::Seconds(5400).ToString(), "90m");
  EXPECT_EQ(Duration::Seconds(86400).ToString(), "1d");
  EXPECT_EQ(Duration::Seconds(61).ToString(), "61s");
  EXPECT_EQ(Duration::Seconds(0.25).ToString(), "0.25s");
  EXPECT_EQ(Duration::Epochs(1e6).ToString(), "1000000ep");
  EXPECT_EQ(Duration::Steps(123456789).ToString(), "123456789st");
}

TEST(Duration, IsTheSameAfterBeingWrittenAndRead) {
  std::mt19937_64 random(7);
  std::uniform_real_distribution<double> exponent(-6, 14);
  for (int i = 0; i < 20000; ++i) {
    const double count = std::pow(10.0, exponent(random));
    for (const Duration& duration :
         {Duration::Epochs(count), Duration::Seconds(count), Duration::Seconds(std::floor(count)),
          Duration::Steps(std::floor(count))}) {
      if (duration.is_zero()) continue;
      ASSERT_EQ(Parsed(duration.ToString()), duration) << duration.ToString();
    }
  }
}

TEST(Duration, RefusesWhatIsNoDurationAndSaysWhatIsOne) {
  for (const char* text : {"",      "3",
                           "ep",    "-1ep",
                           "+1ep",  "1 ep",
                           " 1ep",  "1ep ",
                           "1e3st", "010ep",
                           "1.ep",  ".5ep",
                           "1.5st", "1w",
                           "1EP",   "nans",
                           "infs",  "1ep2",
                           "0x1s",  "1e999d",
                           "1,5ep", "10000000000000000st",
                           "٣ep"}) {
    const absl::StatusOr<Duration> duration = Duration::Parse(text);
    ASSERT_FALSE(duration.ok()) << text;
    EXPECT_EQ(duration.status().code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_THAT(std::string(duration.status().message()), testing::HasSubstr("30ep")) << text;
  }
}

TEST(Duration, SurvivesALongText) {
  EXPECT_FALSE(Duration::Parse(std::string(1000000, '9') + "ep").ok());
  EXPECT_EQ(Parsed("1." + std::string(100000, '0') + "ep"), Duration::Epochs(1));
}

}  // namespace
}  // namespace lockstep::config
