#include "config/probe_report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace lockstep::config {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(ProbeReportTest, EveryFieldSurvivesTheFile) {
  ProbeReport report;
  report.ranks = 2;
  report.threads_per_rank = 3;
  report.device = "NVIDIA H100";
  report.gpu = true;
  report.train_samples = 4;
  report.eval_samples = 5;
  report.micro_batch_size = 6;
  report.available_bytes = 7;
  report.startup_seconds = 0.8;
  report.first = {.steps = {{10, 11, 0.12, {{"forward", 0.013}}, 14}},
                  .reduced_bytes = 15,
                  .evaluated_samples = 16,
                  .evaluation_seconds = 0.17,
                  .first_read_seconds = 0.171,
                  .first_evaluation_seconds = 0.172,
                  .checkpoint_bytes = 18,
                  .checkpoint_stall_seconds = 0.19,
                  .checkpoint_write_seconds = 0.20};
  report.unfrozen = report.first;
  report.unfrozen.reduced_bytes = 21;
  report.all_reduces = {{22, 0.23}};
  report.cached_samples = 24;
  report.cache_seconds = 0.25;
  report.opened_bytes = 26;
  report.sample_bytes = 27.5;
  report.sample_bytes_again = 28.5;
  report.kept_bytes = 31;
  report.attempting = 29;
  report.does_not_fit = 30;
  report.does_not_fit_why = "no room";
  const auto read = ParseProbeReport(ToJson(report));
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(*read, report);
}

TEST(ProbeReportTest, WhatIsNoReportIsRefusedWithAReason) {
  for (const char* text : {"", "{}", "[1]", R"({"format": 3})", R"({"format": "x"})"}) {
    EXPECT_FALSE(ParseProbeReport(text).ok()) << text;
  }
  EXPECT_THAT(std::string(ParseProbeReport(R"({"format": 9})").status().message()),
              HasSubstr("format 9"));
}

TEST(ProbeReportTest, ThreeBatchSizesOrFourAroundTheRunsOwn) {
  EXPECT_THAT(ProbeBatches(64, {}), ElementsAre(16, 32, 64));
  EXPECT_THAT(ProbeBatches(64, {32, 8}), ElementsAre(8, 16, 32, 64));
  EXPECT_THAT(ProbeBatches(64, {128}), ElementsAre(16, 32, 64, 128));
  EXPECT_THAT(ProbeBatches(1, {}), ElementsAre(1, 2, 4));
  EXPECT_THAT(ProbeBatches(2, {}), ElementsAre(1, 2, 4));
  EXPECT_THAT(ProbeBatches(3, {}), ElementsAre(1, 3, 6));
}

}  // namespace
}  // namespace lockstep::config
