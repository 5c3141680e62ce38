#include "metrics/families.h"

#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <limits>
#include <map>
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
  EXPECT_EQ(PromtoolComplaint(Text(SampleSnapshot({}, 1.7e9, 10))), "");
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

// Eight GPUs, a live run of eight ranks; of the ended ones the coordinator shows five.
constexpr SampleSize kLargeHost = {.ranks = 8, .ended_runs = 5, .gpus = 8};

TEST(Families, StayUnderTwoThousandSeriesWithEightGpus) {
  Snapshot snapshot = SampleSnapshot(kLargeHost, 1.7e9, 10);
  // More changes of state than the coordinator knows.
  for (const char* from : {"queued", "starting", "running", "pausing", "paused", "recovering"}) {
    for (const char* to : {"starting", "running", "paused", "stopping", "recovering", "failed"}) {
      snapshot.transitions[{from, to}] = 1;
    }
  }
  size_t series = 0;
  std::istringstream lines(Text(snapshot));
  for (std::string line; std::getline(lines, line);) series += !line.empty() && line[0] != '#';
  EXPECT_LE(series, 2000u);
  EXPECT_GT(series, 1500u) << "the sample no longer fills the families";
  RecordProperty("series", static_cast<int>(series));
}

TEST(Families, EverySeriesIsUnique) {
  std::set<std::string> seen;
  std::istringstream lines(Text(SampleSnapshot(kLargeHost, 1.7e9, 10)));
  for (std::string line; std::getline(lines, line);) {
    if (line[0] == '#') continue;
    EXPECT_TRUE(seen.insert(line.substr(0, line.rfind(' '))).second) << line;
  }
}

double SumOf(const MetricFamily& family) {
  double sum = 0;
  for (const ClientMetric& metric : family.metric) {
    sum += metric.counter.value + metric.gauge.value;
  }
  return sum;
}

TEST(Families, CostsAndJoulesOfThePhasesAddUpToTheRuns) {
  const Snapshot snapshot = SampleSnapshot({.ranks = 4, .ended_runs = 0}, 1.7e9, 3600);
  const auto families = Families(snapshot);
  const MetricFamily* cost = Find(families, "lockstep_run_cost_total");
  ASSERT_NE(cost, nullptr);
  const double expected = static_cast<double>(snapshot.runs[0].spent.cost().total()) / 1e6;
  ASSERT_GT(expected, 0);
  EXPECT_NEAR(SumOf(*cost), expected, 1e-9 * expected);
  const MetricFamily* energy = Find(families, "lockstep_run_energy_joules_total");
  ASSERT_NE(energy, nullptr);
  EXPECT_NEAR(SumOf(*energy), snapshot.runs[0].spent.energy_joules(), 1e-6);
}

TEST(Families, ACostSaysWhatWasPaidFor) {
  Snapshot snapshot;
  snapshot.runs.resize(1);
  snapshot.runs[0].spent.money[static_cast<size_t>(config::Phase::kDataWait)] = {
      .hardware = 1'500'000, .energy = 250'000, .transfer = 3};
  const auto families = Families(snapshot);
  const MetricFamily* cost = Find(families, "lockstep_run_cost_total");
  ASSERT_NE(cost, nullptr);
  std::map<std::string, double> of_data_wait;
  int transfers = 0;
  for (const ClientMetric& metric : cost->metric) {
    transfers += LabelOf(metric, "component") == "transfer" ? 1 : 0;
    if (LabelOf(metric, "phase") == "data_wait") {
      of_data_wait[LabelOf(metric, "component")] = metric.counter.value;
    }
  }
  EXPECT_EQ(of_data_wait, (std::map<std::string, double>{
                              {"hardware", 1.5}, {"energy", 0.25}, {"transfer", 0.000003}}));
  EXPECT_EQ(transfers, 3) << "the phases that can move paid bytes, from 0 on";
}

TEST(Families, AStragglerIsNamedWithItsCauseWhileItStandsOut) {
  Snapshot snapshot = SampleSnapshot({.ranks = 4, .ended_runs = 0}, 1.7e9, 10);
  auto families = Families(snapshot);
  const MetricFamily* straggler = Find(families, "lockstep_run_straggler_ratio");
  ASSERT_NE(straggler, nullptr);
  ASSERT_EQ(straggler->metric.size(), 1u);
  EXPECT_EQ(LabelOf(straggler->metric[0], "rank"), "3");
  EXPECT_EQ(LabelOf(straggler->metric[0], "cause"), "data_loader");
  EXPECT_EQ(straggler->metric[0].gauge.value, 0.7);
  snapshot.runs[0].straggler = {};
  families = Families(snapshot);
  EXPECT_EQ(Find(families, "lockstep_run_straggler_ratio"), nullptr);
}

TEST(Families, WhatAGpuDoesNotTellIsLeftOut) {
  Snapshot snapshot;
  snapshot.devices.gpus.resize(2);
  snapshot.devices.gpus[1].index = 1;
  snapshot.devices.gpus[1].temperature_celsius = 55;
  snapshot.devices.gpus[1].healthy = false;
  const auto families = Families(snapshot);
  const MetricFamily* temperature = Find(families, "lockstep_gpu_temperature_celsius");
  ASSERT_NE(temperature, nullptr);
  ASSERT_EQ(temperature->metric.size(), 1u);
  EXPECT_EQ(LabelOf(temperature->metric[0], "gpu"), "1");
  EXPECT_EQ(Find(families, "lockstep_gpu_pcie_link_width_lanes"), nullptr);
  EXPECT_EQ(Find(families, "lockstep_host_cpu_energy_joules_total"), nullptr);
  const MetricFamily* healthy = Find(families, "lockstep_gpu_healthy");
  ASSERT_NE(healthy, nullptr);
  ASSERT_EQ(healthy->metric.size(), 2u);
  EXPECT_EQ(healthy->metric[0].gauge.value, 1);
  EXPECT_EQ(healthy->metric[1].gauge.value, 0);
}

TEST(Families, LimitsThatWereNotSetAreLeftOut) {
  Snapshot snapshot;
  snapshot.runs.resize(1);
  const auto families = Families(snapshot);
  for (const char* name :
       {"lockstep_budget_limit", "lockstep_run_budget_limit", "lockstep_run_budget_remaining",
        "lockstep_run_budget_used_ratio", "lockstep_run_projected_cost"}) {
    EXPECT_EQ(Find(families, name), nullptr) << name;
  }
  EXPECT_NE(Find(families, "lockstep_budget_spent"), nullptr);
}

TEST(Families, ASpentBudgetIsNegative) {
  Snapshot snapshot;
  snapshot.runs.resize(1);
  snapshot.runs[0].max_cost = 2;
  snapshot.runs[0].budget_remaining = -0.25;
  const auto families = Families(snapshot);
  const MetricFamily* remaining = Find(families, "lockstep_run_budget_remaining");
  ASSERT_NE(remaining, nullptr);
  EXPECT_EQ(remaining->metric[0].gauge.value, -0.25);
}

TEST(Families, EveryPhaseHasItsSeconds) {
  const Snapshot snapshot = SampleSnapshot({.ended_runs = 0}, 1.7e9, 10);
  const auto families = Families(snapshot);
  const MetricFamily* family = Find(families, "lockstep_run_phase_seconds_total");
  ASSERT_NE(family, nullptr);
  std::set<std::string> phases;
  double sum = 0, expected = 0;
  for (const ClientMetric& metric : family->metric) {
    phases.insert(LabelOf(metric, "phase"));
    sum += metric.counter.value;
  }
  for (double seconds : snapshot.runs[0].spent.seconds) expected += seconds;
  EXPECT_EQ(phases,
            (std::set<std::string>{"data_wait", "h2d", "forward", "backward", "allreduce_exposed",
                                   "optimizer", "checkpoint_stall", "eval", "startup", "recovery",
                                   "paused", "other", "device", "straggler_wait", "redone"}));
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
  EXPECT_EQ(family->metric.size(), 7u);
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

  snapshot.runs[0].steps = 1;  // The loss of a step is known when the next one is made.
  families = Families(snapshot);
  for (const char* name : {"lockstep_run_loss", "lockstep_run_accuracy_ratio",
                           "lockstep_run_learning_rate", "lockstep_run_gradient_norm"}) {
    EXPECT_EQ(Find(families, name), nullptr) << name;
  }

  snapshot.runs[0].has_train = true;  // Trained, but not evaluated yet.
  families = Families(snapshot);
  const MetricFamily* loss = Find(families, "lockstep_run_loss");
  ASSERT_NE(loss, nullptr);
  ASSERT_EQ(loss->metric.size(), 1u);
  EXPECT_EQ(LabelOf(loss->metric[0], "split"), "train");
}

TEST(Families, ARunThatLearnsNumbersHasALossAndNoAccuracy) {
  Snapshot snapshot = SampleSnapshot({}, 1.7e9, 10);
  for (RunSample& run : snapshot.runs) run.has_accuracy = false;
  const auto families = Families(snapshot);
  EXPECT_EQ(Find(families, "lockstep_run_accuracy_ratio"), nullptr);
  EXPECT_NE(Find(families, "lockstep_run_loss"), nullptr);
}

}  // namespace
}  // namespace lockstep::metrics
