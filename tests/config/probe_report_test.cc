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
  report.reduced_bytes = 8;
  report.startup_seconds = 0.9;
  report.steps = {{10, 11, 0.12, {{"forward", 0.013}}, 14}};
  report.unfrozen = {{15, 16, 0.17, {{"backward", 0.018}}, 19}};
  report.all_reduces = {{20, 0.21}};
  report.cached_samples = 22;
  report.cache_seconds = 0.23;
  report.evaluated_samples = 24;
  report.evaluation_seconds = 0.25;
  report.checkpoint_bytes = 26;
  report.checkpoint_stall_seconds = 0.27;
  report.checkpoint_write_seconds = 0.28;
  report.attempting = 29;
  report.does_not_fit = 30;
  report.does_not_fit_why = "no room";
  const auto read = ParseProbeReport(ToJson(report));
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(*read, report);
}

TEST(ProbeReportTest, WhatIsNoReportIsRefusedWithAReason) {
  for (const char* text : {"", "{}", "[1]", R"({"format": 1})", R"({"format": "x"})"}) {
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
