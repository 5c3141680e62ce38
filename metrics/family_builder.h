// Prometheus families under construction, for metrics/families.cc and the files beside it.
//
// A family is opened with its name (without the prefix `lockstep_`), help text and type; what is
// added then belongs to it until the next one is opened. Single-threaded.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "metrics/snapshot.h"
#include "prometheus/metric_family.h"

namespace lockstep::metrics {

using Labels = std::vector<prometheus::ClientMetric::Label>;

class FamilyBuilder {
 public:
  void Gauge(const char* name, const char* help);
  void Counter(const char* name, const char* help);
  /// `bounds` are the upper bounds of all its series' buckets, +Inf not among them; they must
  /// outlive the family's series.
  void OpenHistogram(const char* name, const char* help, std::span<const double> bounds);

  /// A series of the family opened last.
  void Add(Labels labels, double value);
  void Add(Labels labels, const Histogram& histogram);

  /// Everything; families without series are left out.
  std::vector<prometheus::MetricFamily> Finish();

 private:
  void Open(const char* name, const char* help, prometheus::MetricType type);

  std::vector<prometheus::MetricFamily> families_;
  std::span<const double> bounds_;
};

// Each adds its part of the endpoint.
void AddRuns(FamilyBuilder& out, const Snapshot& snapshot);      // run_families.cc
void AddRunCosts(FamilyBuilder& out, const Snapshot& snapshot);  // cost_families.cc
void AddBudget(FamilyBuilder& out, const Snapshot& snapshot);    // cost_families.cc
void AddDevices(FamilyBuilder& out, const Snapshot& snapshot);   // device_families.cc

// Adds one series per run to the family that was just opened.
template <typename Value>
void PerRun(FamilyBuilder& out, const Snapshot& snapshot, Value value) {
  for (const RunSample& run : snapshot.runs) out.Add({{"run", run.run}}, value(run));
}

// The same, for the runs of which the value is known.
template <typename Known, typename Value>
void PerRunIf(FamilyBuilder& out, const Snapshot& snapshot, Known known, Value value) {
  for (const RunSample& run : snapshot.runs) {
    if (known(run)) out.Add({{"run", run.run}}, value(run));
  }
}

}  // namespace lockstep::metrics
