#include "metrics/family_builder.h"

#include <limits>
#include <utility>

namespace lockstep::metrics {

using prometheus::ClientMetric;
using prometheus::MetricFamily;
using prometheus::MetricType;

void FamilyBuilder::Gauge(const char* name, const char* help) {
  Open(name, help, MetricType::Gauge);
}

void FamilyBuilder::Counter(const char* name, const char* help) {
  Open(name, help, MetricType::Counter);
}

void FamilyBuilder::OpenHistogram(const char* name, const char* help,
                                  std::span<const double> bounds) {
  Open(name, help, MetricType::Histogram);
  bounds_ = bounds;
}

void FamilyBuilder::Open(const char* name, const char* help, MetricType type) {
  families_.push_back({std::string("lockstep_") + name, help, type, {}});
}

void FamilyBuilder::Add(Labels labels, double value) {
  MetricFamily& family = families_.back();
  ClientMetric metric;
  metric.label = std::move(labels);
  if (family.type == MetricType::Counter) {
    metric.counter.value = value;
  } else {
    metric.gauge.value = value;
  }
  family.metric.push_back(std::move(metric));
}

// Prometheus wants cumulative counts that end with +Inf; ours are per bucket. Missing buckets count
// as empty and surplus ones fall into +Inf, so no observation is lost.
void FamilyBuilder::Add(Labels labels, const Histogram& histogram) {
  ClientMetric metric;
  metric.label = std::move(labels);
  uint64_t cumulative = 0;
  size_t next = 0;
  for (const double bound : bounds_) {
    if (next < histogram.counts.size()) cumulative += histogram.counts[next++];
    metric.histogram.bucket.push_back({cumulative, bound});
  }
  while (next < histogram.counts.size()) cumulative += histogram.counts[next++];
  metric.histogram.bucket.push_back({cumulative, std::numeric_limits<double>::infinity()});
  metric.histogram.sample_count = cumulative;
  metric.histogram.sample_sum = histogram.sum;
  families_.back().metric.push_back(std::move(metric));
}

std::vector<MetricFamily> FamilyBuilder::Finish() {
  std::erase_if(families_, [](const MetricFamily& family) { return family.metric.empty(); });
  return std::move(families_);
}

}  // namespace lockstep::metrics
