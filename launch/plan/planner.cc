#include "launch/plan/planner.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace lockstep::plan {
namespace {

using config::Duration;
using config::ProbedStep;
using config::ProbeReport;

// Of a step's compute the backward pass is two thirds: for each product of the forward pass it
// makes two, one for the gradient of the input and one for that of the weights.
constexpr double kBackwardShare = 2.0 / 3;
// Buckets of the gradient on a GPU (trainer/step/gradient_arena.h): all but the last travel behind
// the backward pass.
constexpr double kBucketBytes = 25 << 20;
// Nobody fills a GPU to the last byte: fragments, and what the driver takes.
constexpr double kMemoryShare = 0.95;
constexpr double kSecondsPerHour = 3600;
constexpr double kJoulesPerKwh = 3.6e6;
constexpr double kRounding = 1e-9;

// What one probe says of a step.
struct Timing {
  StepTimeModel frozen;    // Before model.unfreeze_after; the only one without it.
  StepTimeModel unfrozen;  // From then on.
};

absl::StatusOr<StepTimeModel> Fit(const std::vector<ProbedStep>& steps, int ranks) {
  std::vector<StepObservation> observations;
  observations.reserve(steps.size());
  for (const ProbedStep& step : steps) {
    observations.push_back({static_cast<double>(step.local_batch), 0, step.seconds});
  }
  auto model = FitStepTime(observations);
  if (model.ok()) return model;
  return absl::InvalidArgumentError(
      absl::StrCat("the probe with ", ranks,
                   ranks == 1 ? " rank: " : " ranks: ", std::string(model.status().message())));
}

absl::StatusOr<Timing> FitTiming(const ProbeReport& probe) {
  auto frozen = Fit(probe.steps, probe.ranks);
  if (!frozen.ok()) return frozen.status();
  Timing timing{*frozen, *frozen};
  if (probe.unfrozen.empty()) return timing;
  auto unfrozen = Fit(probe.unfrozen, probe.ranks);
  if (!unfrozen.ok()) return unfrozen.status();
  timing.unfrozen = *unfrozen;
  return timing;
}

// t = m0 + m1 b through the probed peaks, by least squares; b at most the micro-batch.
struct MemoryModel {
  double fixed = 0;
  double per_sample = 0;
  double Bytes(double batch) const { return fixed + per_sample * batch; }
};

MemoryModel FitMemory(const ProbeReport& probe) {
  double n = 0, sx = 0, sy = 0, sxx = 0, sxy = 0, most = 0;
  // The unfrozen model takes more; a run that unfreezes must fit then.
  for (const ProbedStep& step : probe.unfrozen.empty() ? probe.steps : probe.unfrozen) {
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

const ProbeReport* ProbeOf(const std::vector<ProbeReport>& probes, int ranks) {
  for (const ProbeReport& probe : probes) {
    if (probe.ranks == ranks) return &probe;
  }
  return nullptr;
}

const ProbeReport& LargestProbe(const std::vector<ProbeReport>& probes) {
  return *std::max_element(
      probes.begin(), probes.end(),
      [](const ProbeReport& a, const ProbeReport& b) { return a.ranks < b.ranks; });
}

absl::StatusOr<Link> MeasuredLink(const ProbeReport& probe) {
  if (probe.ranks < 2) {
    return absl::InvalidArgumentError(
        "one rank was probed, so no interconnect could be measured; name one with --interconnect");
  }
  std::vector<TimedAllReduce> timed;
  timed.reserve(probe.all_reduces.size());
  for (const config::ProbedAllReduce& one : probe.all_reduces) {
    timed.push_back({static_cast<double>(one.bytes), one.seconds});
  }
  return FitLink(timed, probe.ranks, "measured");
}

// The all-reduces of the probe that is extrapolated from and of the planned number of ranks.
struct Reduces {
  double probed = 0;
  double planned = 0;
  std::string over;  // In words.
};

absl::StatusOr<Reduces> ReducesOf(const PlanRequest& request, const ProbeReport& basis, int ranks) {
  const auto bytes = static_cast<double>(basis.reduced_bytes);
  const auto measured = MeasuredLink(basis);
  Reduces reduces;
  if (measured.ok()) reduces.probed = RingAllReduceSeconds(*measured, basis.ranks, bytes);
  if (!request.interconnect && measured.ok()) {
    reduces.planned = BestAllReduce(*measured, ranks, bytes).seconds;
    reduces.over = "over the measured interconnect, as in one larger machine";
    return reduces;
  }
  const Link link = request.interconnect ? *request.interconnect : *FindLink("10GbE");
  if (!link.between_hosts) {
    reduces.planned = BestAllReduce(link, ranks, bytes).seconds;
    reduces.over = absl::StrCat("over ", link.name, ", as in one larger machine");
    return reduces;
  }
  Cluster cluster;
  cluster.between = link;
  // Hosts of one rank have no link inside, and the model never asks for it.
  cluster.inside = measured.ok() ? *measured : link;
  cluster.ranks_per_host = std::min(ranks, request.ranks_per_host);
  cluster.hosts = (ranks + request.ranks_per_host - 1) / request.ranks_per_host;
  reduces.planned = ClusterAllReduce(cluster, bytes).seconds;
  reduces.over =
      absl::StrCat("over ", link.name, " between ", cluster.hosts, " machines like this one");
  return reduces;
}

double Overlap(const ProbeReport& probe) {
  const auto bytes = static_cast<double>(probe.reduced_bytes);
  return probe.gpu && bytes > 0 ? std::max(0.0, 1 - kBucketBytes / bytes) : 0;
}

// Step times of one row, before and after unfreezing.
struct StepSeconds {
  double frozen = 0;
  double unfrozen = 0;
};

absl::StatusOr<StepSeconds> StepTimes(const PlanRequest& request, PlanRow& row) {
  const ProbeReport* own = ProbeOf(request.probes, row.ranks);
  const ProbeReport& basis = own != nullptr ? *own : LargestProbe(request.probes);
  auto timing = FitTiming(basis);
  if (!timing.ok()) return timing.status();
  const auto batch = static_cast<double>(row.local_batch);
  row.fit_error = timing->frozen.worst_error;
  if (own != nullptr) {
    const auto link = MeasuredLink(basis);
    if (link.ok()) {
      row.exposed_reduce_seconds = ExposedSeconds(
          RingAllReduceSeconds(*link, row.ranks, static_cast<double>(basis.reduced_bytes)),
          kBackwardShare * batch * timing->frozen.seconds_per_sample, Overlap(basis));
    }
    row.basis = "measured";
    return StepSeconds{timing->frozen.Seconds(batch), timing->unfrozen.Seconds(batch)};
  }
  auto reduces = ReducesOf(request, basis, row.ranks);
  if (!reduces.ok()) return reduces.status();
  const auto step = [&](const StepTimeModel& model) {
    const double backward = kBackwardShare * batch * model.seconds_per_sample;
    const double probed = ExposedSeconds(reduces->probed, backward, Overlap(basis));
    row.exposed_reduce_seconds = ExposedSeconds(reduces->planned, backward, Overlap(basis));
    // The part of c that is no all-reduce cannot be negative.
    const double alone = std::max(model.Seconds(batch) - probed, batch * model.seconds_per_sample);
    return alone + row.exposed_reduce_seconds;
  };
  row.extrapolated = true;
  row.basis =
      absl::StrCat("extrapolated from ", basis.ranks, basis.ranks == 1 ? " rank" : " ranks",
                   basis.gpu ? ""
                             : absl::StrCat(" of ", basis.threads_per_rank,
                                            basis.threads_per_rank == 1 ? " thread" : " threads"),
                   ", ", reduces->over);
  const double unfrozen = step(timing->unfrozen);
  return StepSeconds{step(timing->frozen), unfrozen};
}

void PlanMemory(const PlanRequest& request, PlanRow& row) {
  const ProbeReport* own = ProbeOf(request.probes, row.ranks);
  const ProbeReport& basis = own != nullptr ? *own : LargestProbe(request.probes);
  const MemoryModel memory = FitMemory(basis);
  const int64_t at_once = basis.micro_batch_size > 0
                              ? std::min(row.local_batch, basis.micro_batch_size)
                              : row.local_batch;
  row.available_bytes = basis.available_bytes;
  row.memory_bytes = static_cast<int64_t>(memory.Bytes(static_cast<double>(at_once)));
  const double room = kMemoryShare * static_cast<double>(row.available_bytes);
  const bool refused = basis.does_not_fit > 0 && at_once >= basis.does_not_fit;
  const bool too_much = row.available_bytes > 0 && static_cast<double>(row.memory_bytes) > room;
  row.fits = !refused && !too_much;
  if (row.fits) return;
  // The largest size that did fit, or that the model says fits.
  int64_t largest = 0;
  for (const ProbedStep& step : basis.steps) {
    if (step.local_batch < at_once) largest = std::max(largest, step.local_batch);
  }
  if (too_much && memory.per_sample > 0) {
    const auto by_model = static_cast<int64_t>((room - memory.fixed) / memory.per_sample);
    largest = refused ? std::min(largest, std::max<int64_t>(by_model, 0)) : by_model;
  }
  row.micro_batch_size = std::clamp<int64_t>(largest, 0, at_once - 1);
}

// How often something happens in so many steps; a period in wall time counts seconds of them.
double Times(const Duration& every, double steps, double steps_per_epoch, double seconds) {
  if (every.is_zero()) return 0;
  double period = every.count();
  if (every.unit() == Duration::Unit::kEpochs) period *= steps_per_epoch;
  const double length = every.unit() == Duration::Unit::kSeconds ? seconds : steps;
  return std::floor(length / period + kRounding);
}

// The same as a rate: events in a step of `step_seconds`.
double PerStep(const Duration& every, double steps_per_epoch, double step_seconds) {
  if (every.is_zero()) return 0;
  if (every.unit() == Duration::Unit::kSeconds) return step_seconds / every.count();
  return 1 / (every.count() * (every.unit() == Duration::Unit::kEpochs ? steps_per_epoch : 1));
}

double StepsOf(const Duration& duration, double steps_per_epoch) {
  const double steps = duration.unit() == Duration::Unit::kEpochs
                           ? duration.count() * steps_per_epoch
                           : duration.count();
  return std::max(1.0, std::ceil(steps * (1 - kRounding)));
}

Prices PricesOf(const PlanRequest& request, double seconds) {
  return request.prices ? request.prices(seconds) : Prices{};
}

Spent Price(const Prices& prices, int ranks, double seconds) {
  Spent spent;
  const double hours = seconds * ranks / kSecondsPerHour;
  spent.seconds = seconds;
  spent.energy_kwh = prices.watts_per_rank * seconds * ranks / kJoulesPerKwh;
  if (!prices.known) return spent;
  spent.hardware_cost = hours * prices.hardware_per_rank_hour;
  spent.energy_cost = spent.energy_kwh * prices.energy_per_kwh;
  return spent;
}

// Everything around the steps.
struct Around {
  double before = 0;  // Start, and features that are cached first.
  double evaluation = 0;
  double checkpoint = 0;
  double last_checkpoint = 0;  // Waited for until it is durable.
};

Around AroundOf(const PlanRequest& request, const PlanRow& row) {
  const ProbeReport* own = ProbeOf(request.probes, row.ranks);
  const ProbeReport& probe = own != nullptr ? *own : LargestProbe(request.probes);
  // Evaluation and caching are shared among the ranks.
  const double share = static_cast<double>(probe.ranks) / row.ranks;
  Around around;
  around.before = probe.startup_seconds;
  if (probe.cached_samples > 0) {
    const auto samples = static_cast<double>(
        probe.train_samples * request.config.model.feature_views + probe.eval_samples);
    around.before +=
        probe.cache_seconds * samples / static_cast<double>(probe.cached_samples) * share;
  }
  if (probe.evaluated_samples > 0) {
    around.evaluation = probe.evaluation_seconds * static_cast<double>(probe.eval_samples) /
                        static_cast<double>(probe.evaluated_samples) * share;
  }
  around.checkpoint = probe.checkpoint_stall_seconds;
  around.last_checkpoint = probe.checkpoint_write_seconds;
  return around;
}

void PlanLength(const PlanRequest& request, const StepSeconds& step, PlanRow& row) {
  const config::RunConfig& config = request.config;
  const Duration& duration = config.training.duration;
  const Around around = AroundOf(request, row);
  row.evaluation_seconds = around.evaluation;
  row.checkpoint_seconds = around.checkpoint;
  const auto per_step = [&](double seconds) {
    return seconds +
           PerStep(config.training.eval_every, row.steps_per_epoch, seconds) * around.evaluation +
           PerStep(config.checkpoint.every, row.steps_per_epoch, seconds) * around.checkpoint;
  };
  const Duration& unfreeze = config.model.unfreeze_after;
  const double frozen_steps =
      unfreeze.is_zero() ? INFINITY : StepsOf(unfreeze, row.steps_per_epoch);

  double seconds = 0;
  if (duration.unit() == Duration::Unit::kSeconds) {
    // Its length is given; how far it comes is what is asked for.
    seconds = duration.count();
    const double left = std::max(0.0, seconds - around.before);
    const double first = std::min(frozen_steps, left / per_step(step.frozen));
    const double then = (left - first * per_step(step.frozen)) / per_step(step.unfrozen);
    row.steps = first + std::max(0.0, then);
  } else {
    row.steps = StepsOf(duration, row.steps_per_epoch);
    const double first = std::min(frozen_steps, row.steps);
    const double stepping = first * step.frozen + (row.steps - first) * step.unfrozen;
    const double evaluations =
        Times(config.training.eval_every, row.steps, row.steps_per_epoch, stepping);
    // There is one at the end in any case.
    const bool ends_with_one =
        std::abs(evaluations -
                 row.steps * PerStep(config.training.eval_every, row.steps_per_epoch, 1)) < 1e-6 &&
        evaluations > 0;
    seconds = around.before + stepping +
              (evaluations + (ends_with_one ? 0 : 1)) * around.evaluation +
              Times(config.checkpoint.every, row.steps - 1, row.steps_per_epoch, stepping) *
                  around.checkpoint +
              around.last_checkpoint;
  }
  row.epochs = row.steps / row.steps_per_epoch;
  const Prices prices = PricesOf(request, seconds);
  row.epoch = Price(prices, row.ranks, row.steps_per_epoch * per_step(step.frozen));
  row.run = Price(prices, row.ranks, seconds);
  const double max_cost = config.cost.max_cost;
  row.over_max_cost = prices.known && max_cost > 0 && row.run.cost() > max_cost;
  const double max_energy = config.cost.max_energy;
  row.over_max_energy = max_energy > 0 && row.run.energy_kwh > max_energy;
  const Duration& max_time = config.cost.max_time;
  row.over_max_time = !max_time.is_zero() && seconds > max_time.count();
}

}  // namespace

int64_t LocalBatch(const config::TrainingConfig& training, int ranks) {
  if (training.global_batch_size == 0) return training.batch_size_per_rank;
  return (training.global_batch_size + ranks - 1) / ranks;
}

absl::StatusOr<Plan> MakePlan(const PlanRequest& request) {
  if (request.probes.empty()) return absl::InvalidArgumentError("nothing was probed");
  const ProbeReport& any = LargestProbe(request.probes);
  Plan plan;
  plan.gpu = any.gpu;
  plan.device = any.device;
  plan.prices = PricesOf(request, 0);
  std::vector<int> ranks = request.ranks;
  std::sort(ranks.begin(), ranks.end());
  ranks.erase(std::unique(ranks.begin(), ranks.end()), ranks.end());
  const config::TrainingConfig& training = request.config.training;
  for (const int count : ranks) {
    PlanRow row;
    row.ranks = count;
    row.local_batch = LocalBatch(training, count);
    row.global_batch =
        training.global_batch_size > 0 ? training.global_batch_size : row.local_batch * count;
    if (count < 1 || row.global_batch < count || any.train_samples < 1) {
      return absl::InvalidArgumentError(absl::StrCat("a global batch of ", row.global_batch,
                                                     " samples cannot be shared by ", count,
                                                     " ranks"));
    }
    row.steps_per_epoch =
        static_cast<double>(any.train_samples) / static_cast<double>(row.global_batch);
    const auto step = StepTimes(request, row);
    if (!step.ok()) return step.status();
    row.step_seconds = step->frozen;
    row.samples_per_second = static_cast<double>(row.global_batch) / row.step_seconds;
    PlanMemory(request, row);
    PlanLength(request, *step, row);
    plan.rows.push_back(std::move(row));
  }
  return plan;
}

}  // namespace lockstep::plan
