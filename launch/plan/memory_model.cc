#include "launch/plan/memory_model.h"

#include <algorithm>

namespace lockstep::plan {
namespace {

using config::ProbedStep;
using config::ProbeReport;

// Nobody fills a GPU to the last byte: fragments, and what the driver takes.
constexpr double kMemoryShare = 0.95;
constexpr double kRounding = 1e-9;

// m = m0 + m1 b through the probed peaks, by least squares; b at most the micro-batch.
struct MemoryModel {
  double fixed = 0;
  double per_sample = 0;
  double Bytes(double batch) const { return fixed + per_sample * batch; }
};

MemoryModel FitMemory(const ProbeReport& probe) {
  double n = 0, sx = 0, sy = 0, sxx = 0, sxy = 0, most = 0;
  // The unfrozen model takes more; a run that unfreezes must fit then.
  for (const ProbedStep& step :
       (probe.unfrozen.steps.empty() ? probe.first : probe.unfrozen).steps) {
    if (step.peak_bytes <= 0) continue;
    const auto batch = static_cast<double>(step.local_batch);
    const double x = probe.micro_batch_size > 0
                         ? std::min(batch, static_cast<double>(probe.micro_batch_size))
                         : batch;
    const auto y = static_cast<double>(step.peak_bytes);
    n += 1, sx += x, sy += y, sxx += x * x, sxy += x * y;
    most = std::max(most, y);
  }
  const double spread = n * sxx - sx * sx;
  if (n == 0) return {};
  if (spread <= kRounding * n * sxx) return {most, 0};
  MemoryModel model;
  model.per_sample = std::max(0.0, (n * sxy - sx * sy) / spread);
  model.fixed = std::max(0.0, (sy - model.per_sample * sx) / n);
  return model;
}

}  // namespace

MemoryPlan PlanMemory(const ProbeReport& probe, int64_t local_batch) {
  const MemoryModel memory = FitMemory(probe);
  const int64_t at_once =
      probe.micro_batch_size > 0 ? std::min(local_batch, probe.micro_batch_size) : local_batch;
  const auto kept = static_cast<double>(probe.kept_bytes);
  const double bytes = memory.Bytes(static_cast<double>(at_once));
  MemoryPlan plan;
  plan.bytes = bytes > 0 ? static_cast<int64_t>(bytes + kept) : 0;
  const double room = kMemoryShare * static_cast<double>(probe.available_bytes);
  const bool refused = probe.does_not_fit > 0 && local_batch >= probe.does_not_fit;
  const bool too_much = probe.available_bytes > 0 && static_cast<double>(plan.bytes) > room;
  plan.fits = !refused && !too_much;
  if (plan.fits) return plan;
  // The largest size that did fit, or that the model says fits.
  int64_t largest = 0;
  for (const ProbedStep& step : probe.first.steps) {
    if (step.local_batch < at_once) largest = std::max(largest, step.local_batch);
  }
  if (too_much && memory.per_sample > 0) {
    const auto by_model = static_cast<int64_t>((room - memory.fixed - kept) / memory.per_sample);
    largest = refused ? std::min(largest, std::max<int64_t>(by_model, 0)) : by_model;
  }
  plan.micro_batch_size = std::clamp<int64_t>(largest, 0, at_once - 1);
  return plan;
}

}  // namespace lockstep::plan
