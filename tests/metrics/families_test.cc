#include "metrics/families.h"

#include <unistd.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <limits>
#include <set>
#include <sstream>
#include <string>

#include "gtest/gtest.h"
#include "prometheus/text_serializer.h"
#include "tests/metrics/sample_snapshot.h"

namespace lockstep::metrics {
namespace {

using prometheus::ClientMetric;
using prometheus::MetricFamily;

const MetricFamily* Find(const std::vector<MetricFamily>& families, const std::string& name) {
  for (const MetricFamily& family : families) {
    if (family.name == name) return &family;
  }
  return nullptr;
}

std::string LabelOf(const ClientMetric& metric, const std::string& name) {
  for (const auto& label : metric.label) {
    if (label.name == name) return label.value;
  }
  return "";
}

std::string Text(const Snapshot& snapshot) {
  std::ostringstream out;
  prometheus::TextSerializer().Serialize(out, Families(snapshot));
  return out.str();
}

bool PromtoolPresent() {
  return std::system("command -v promtool >/dev/null 2>&1") == 0;
}

// What promtool says of a scrape; empty when it finds nothing to object to.
std::string PromtoolComplaint(const std::string& text) {
  char path[] = "/tmp/lockstep-families-XXXXXX";
  const int fd = mkstemp(path);
  if (fd < 0) return "mkstemp failed";
  close(fd);
  std::ofstream(path) << text;
  const std::string command = std::string("promtool check metrics < ") + path + " 2>&1";
  std::string said;
  FILE* pipe = popen(command.c_str(), "r");
  if (pipe == nullptr) return "popen failed";
  for (int c = std::fgetc(pipe); c != EOF; c = std::fgetc(pipe)) said += static_cast<char>(c);
  const int status = pclose(pipe);
  std::remove(path);
  if (status != 0 && said.empty()) said = "promtool ended with an error";
  return said;
}

TEST(Families, PassPromtool) {
  if (!PromtoolPresent()) GTEST_SKIP() << "promtool is not installed (package prometheus)";
  EXPECT_EQ(PromtoolComplaint(Text(SampleSnapshot(2, 1, 1.7e9, 10))), "");
  EXPECT_NE(PromtoolComplaint("# TYPE a counter\na 1\n"), "") << "promtool objects to nothing";
}

TEST(Families, OfAnEmptySnapshotPassPromtool) {
  if (!PromtoolPresent()) GTEST_SKIP() << "promtool is not installed (package prometheus)";
  EXPECT_EQ(PromtoolComplaint(Text(Snapshot())), "");
}

TEST(Families, HistogramsAreCumulativeAndEndAtInfinity) {
  Snapshot snapshot;
  snapshot.runs.resize(1);
  Histogram& histogram = snapshot.runs[0].step_duration;
  histogram.counts.assign(kStepBuckets.size() + 1, 0);
  histogram.counts[0] = 2;   // ≤ 1 ms
  histogram.counts[3] = 5;   // ≤ 30 ms
  histogram.counts[11] = 1;  // > 60 s
  histogram.sum = 70.5;
  const auto families = Families(snapshot);
  const MetricFamily* family = Find(families, "lockstep_run_step_duration_seconds");
  ASSERT_NE(family, nullptr);
  ASSERT_EQ(family->metric.size(), 1u);
  const auto& got = family->metric[0].histogram;
  ASSERT_EQ(got.bucket.size(), 12u);
  const uint64_t expected[] = {2, 2, 2, 7, 7, 7, 7, 7, 7, 7, 7, 8};
  for (size_t i = 0; i < got.bucket.size(); ++i) {
    EXPECT_EQ(got.bucket[i].cumulative_count, expected[i]) << "bucket " << i;
  }
  EXPECT_EQ(got.bucket[3].upper_bound, 0.03);
  EXPECT_EQ(got.bucket[11].upper_bound, std::numeric_limits<double>::infinity());
  EXPECT_EQ(got.sample_count, 8u);
  EXPECT_EQ(got.sample_sum, 70.5);
}

TEST(Families, AHistogramWithoutObservationsHasEmptyBuckets) {
  Snapshot snapshot;
  snapshot.runs.resize(1);  // Its histograms have no counts at all.
  const auto families = Families(snapshot);
  const MetricFamily* family = Find(families, "lockstep_run_step_duration_seconds");
  ASSERT_NE(family, nullptr);
  EXPECT_EQ(family->metric[0].histogram.bucket.size(), 12u);
  EXPECT_EQ(family->metric[0].histogram.sample_count, 0u);
}

TEST(Families, StayUnderTwoThousandSeriesWithEightRanksAndSixRuns) {
  const std::string text = Text(SampleSnapshot(8, 5, 1.7e9, 10));
  size_t series = 0;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) series += !line.empty() && line[0] != '#';
  EXPECT_LE(series, 2000u);
  EXPECT_GT(series, 600u) << "the sample no longer fills the families";
}

TEST(Families, EverySeriesIsUnique) {
  std::set<std::string> seen;
  std::istringstream lines(Text(SampleSnapshot(8, 5, 1.7e9, 10)));
  for (std::string line; std::getline(lines, line);) {
    if (line[0] == '#') continue;
    EXPECT_TRUE(seen.insert(line.substr(0, line.rfind(' '))).second) << line;
  }
}

TEST(Families, PhaseCostsAddUpToTheRunsCost) {
  const Snapshot snapshot = SampleSnapshot(4, 0, 1.7e9, 3600);
  const auto families = Families(snapshot);
  const MetricFamily* cost = Find(families, "lockstep_run_cost_total");
  ASSERT_NE(cost, nullptr);
  double sum = 0;
  for (const ClientMetric& metric : cost->metric) sum += metric.counter.value;
  ASSERT_GT(snapshot.runs[0].cost_total, 0);
  EXPECT_NEAR(sum, snapshot.runs[0].cost_total, 1e-9 * snapshot.runs[0].cost_total);
}

TEST(Families, EveryPhaseHasItsSeconds) {
  const Snapshot snapshot = SampleSnapshot(2, 0, 1.7e9, 10);
  const auto families = Families(snapshot);
  const MetricFamily* family = Find(families, "lockstep_run_phase_seconds_total");
  ASSERT_NE(family, nullptr);
  std::set<std::string> phases;
  double sum = 0, expected = 0;
  for (const ClientMetric& metric : family->metric) {
    phases.insert(LabelOf(metric, "phase"));
    sum += metric.counter.value;
  }
  for (double seconds : snapshot.runs[0].phase_seconds) expected += seconds;
  EXPECT_EQ(phases,
            (std::set<std::string>{"data_wait", "h2d", "forward", "backward", "allreduce_exposed",
                                   "optimizer", "checkpoint_stall", "eval", "startup", "recovery",
                                   "paused", "other", "device"}));
  EXPECT_DOUBLE_EQ(sum, expected);
}

TEST(Families, EveryStateIsThereEvenWhenTheSnapshotNamesNone) {
  const auto families = Families(Snapshot());
  const MetricFamily* family = Find(families, "lockstep_runs");
  ASSERT_NE(family, nullptr);
  std::set<std::string> states;
  for (const ClientMetric& metric : family->metric) {
    states.insert(LabelOf(metric, "state"));
    EXPECT_EQ(metric.gauge.value, 0);
  }
  EXPECT_EQ(states,
            (std::set<std::string>{"queued", "starting", "running", "pausing", "paused", "stopping",
                                   "recovering", "completed", "stopped", "failed"}));
}

TEST(Families, RestartsStartAtZeroForEveryReason) {
  Snapshot snapshot;
  snapshot.runs.resize(1);
  snapshot.runs[0].restarts = {{"hang", 2}};
  const auto families = Families(snapshot);
  const MetricFamily* family = Find(families, "lockstep_run_restarts_total");
  ASSERT_NE(family, nullptr);
  EXPECT_EQ(family->metric.size(), 6u);
  for (const ClientMetric& metric : family->metric) {
    EXPECT_EQ(metric.counter.value, LabelOf(metric, "reason") == "hang" ? 2 : 0);
  }
}

TEST(Families, WhatNobodyMeasuredIsLeftOut) {
  Snapshot snapshot;
  snapshot.runs.resize(1);
  auto families = Families(snapshot);
  EXPECT_EQ(Find(families, "lockstep_run_loss"), nullptr);
  EXPECT_EQ(Find(families, "lockstep_run_accuracy_ratio"), nullptr);
  EXPECT_EQ(Find(families, "lockstep_run_eta_timestamp_seconds"), nullptr);
  EXPECT_EQ(Find(families, "lockstep_checkpoint_last_success_timestamp_seconds"), nullptr);

  snapshot.runs[0].steps = 1;  // Trained, but not evaluated yet.
  families = Families(snapshot);
  const MetricFamily* loss = Find(families, "lockstep_run_loss");
  ASSERT_NE(loss, nullptr);
  ASSERT_EQ(loss->metric.size(), 1u);
  EXPECT_EQ(LabelOf(loss->metric[0], "split"), "train");
}

TEST(Families, ARunThatLearnsNumbersHasALossAndNoAccuracy) {
  Snapshot snapshot = SampleSnapshot(2, 1, 1.7e9, 10);
  for (RunSample& run : snapshot.runs) run.has_accuracy = false;
  const auto families = Families(snapshot);
  EXPECT_EQ(Find(families, "lockstep_run_accuracy_ratio"), nullptr);
  EXPECT_NE(Find(families, "lockstep_run_loss"), nullptr);
}

TEST(Pricing, IsRankHours) {
  config::PriceConfig price;
  price.per_rank_hour = 0.5;
  EXPECT_DOUBLE_EQ(Cost(price, 4, 1800), 1.0);  // 4 ranks × 0.5 h × 0.5
  EXPECT_EQ(Cost(price, 4, 0), 0);
  EXPECT_EQ(Cost(config::PriceConfig(), 4, 1800), 0) << "no price is no cost";
}

TEST(Pricing, PhasesAddUpToTheWhole) {
  config::PriceConfig price;
  price.per_rank_hour = 0.37;
  std::array<double, config::kPhaseCount> seconds{};
  double whole = 0, sum = 0;
  for (size_t i = 0; i < seconds.size(); ++i) whole += seconds[i] = 13.7 * static_cast<double>(i);
  for (double cost : CostByPhase(price, 3, seconds)) sum += cost;
  EXPECT_NEAR(sum, Cost(price, 3, whole), 1e-12);
  EXPECT_GT(sum, 0);
}

}  // namespace
}  // namespace lockstep::metrics
