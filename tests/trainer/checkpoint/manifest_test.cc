#include "trainer/checkpoint/manifest.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

namespace lockstep::trainer {
namespace {

using ::testing::HasSubstr;

Manifest Sample() {
  const std::string digits = "0123456789abcdef0123456789abcdef";
  return {.step = 120,
          .created_unix_seconds = 1767225600.25,
          .metric = 0.1 + 0.2,
          .files = {{kWeightsFile, {100, digits}},
                    {kOptimizerFile, {200, digits}},
                    {kStateFile, {3, digits}}}};
}

std::string Replaced(std::string text, const std::string& from, const std::string& to) {
  const size_t at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  return text.replace(at, from.size(), to);
}

TEST(ManifestTest, ReadsWhatItWritesToTheLastDigit) {
  const auto read = ParseManifest(ToJson(Sample()));
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->step, 120);
  EXPECT_EQ(read->created_unix_seconds, 1767225600.25);
  EXPECT_EQ(read->metric, 0.1 + 0.2);
  EXPECT_EQ(read->files, Sample().files);
  EXPECT_EQ(read->TotalBytes(), 303);
}

TEST(ManifestTest, AMissingMetricStaysMissing) {
  Manifest manifest = Sample();
  manifest.metric.reset();
  const std::string text = ToJson(manifest);
  EXPECT_EQ(text.find("metric"), std::string::npos);
  EXPECT_EQ(ParseManifest(text)->metric, std::nullopt);
}

TEST(ManifestTest, EverySingleFlippedBitIsRefused) {
  const std::string text = ToJson(Sample());
  for (size_t bit = 0; bit < 8 * text.size(); ++bit) {
    std::string damaged = text;
    damaged[bit / 8] = static_cast<char>(damaged[bit / 8] ^ (1 << (bit % 8)));
    EXPECT_FALSE(ParseManifest(damaged).ok()) << "bit " << bit << ":\n" << damaged;
  }
}

TEST(ManifestTest, EveryTruncationIsRefused) {
  const std::string text = ToJson(Sample());
  for (size_t size = 0; size < text.size(); ++size) {
    EXPECT_FALSE(ParseManifest(text.substr(0, size)).ok()) << size;
  }
}

TEST(ManifestTest, ANewerVersionIsRefusedAsSuch) {
  const auto read =
      ParseManifest(Replaced(ToJson(Sample()), "\"format_version\": 1", "\"format_version\": 2"));
  EXPECT_TRUE(absl::IsFailedPrecondition(read.status())) << read.status();
  EXPECT_THAT(std::string(read.status().message()),
              AllOf(HasSubstr("version 2"), HasSubstr("reads version 1")));
}

TEST(ManifestTest, AForeignFormatIsRefusedAsSuch) {
  const auto read =
      ParseManifest(Replaced(ToJson(Sample()), "lockstep-checkpoint", "someone-elses"));
  EXPECT_TRUE(absl::IsFailedPrecondition(read.status())) << read.status();
  EXPECT_THAT(std::string(read.status().message()), HasSubstr("someone-elses"));
  EXPECT_TRUE(absl::IsDataLoss(ParseManifest("{}").status()));
  EXPECT_TRUE(absl::IsDataLoss(ParseManifest("[1]").status()));
}

TEST(ManifestTest, ListsExactlyTheFilesOfACheckpoint) {
  Manifest more = Sample();
  more.files["../../etc/passwd"] = {1, "00"};
  EXPECT_THAT(std::string(ParseManifest(ToJson(more)).status().message()),
              HasSubstr("do not belong"));
  Manifest less = Sample();
  less.files.erase(kStateFile);
  EXPECT_THAT(std::string(ParseManifest(ToJson(less)).status().message()),
              HasSubstr("does not list state.json"));
}

TEST(ManifestTest, TheHashIsXxh3Of128Bits) {
  // The published value of XXH3-128 for no input at all.
  EXPECT_EQ(Describe({}).xxh3_128, "99aa06d3014798d86001c324468d497f");
  const std::string text = "lockstep";
  const auto bytes = std::as_bytes(std::span(text));
  EXPECT_EQ(Describe({bytes.first(3), bytes.subspan(3)}), Describe({bytes}));
  EXPECT_EQ(Describe({bytes}).bytes, 8);
}

}  // namespace
}  // namespace lockstep::trainer
