#include "launch/plan/planner.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "launch/plan/memory_model.h"

namespace lockstep::plan {
namespace {

using config::Duration;
using config::ProbedStage;
using config::ProbedStep;
using config::ProbeReport;

// Of a step's compute the backward pass is two thirds: for each product of the forward pass it
// makes two, one for the gradient of the input and one for that of the weights.
constexpr double kBackwardShare = 2.0 / 3;
// Buckets of the gradient on a GPU (trainer/step/gradient_arena.h): all but the last travel behind
// the backward pass.
constexpr double kBucketBytes = 25 << 20;
constexpr double kSecondsPerHour = 3600;
constexpr double kJoulesPerKwh = 3.6e6;
constexpr double kBytesPerGb = 1e9;
constexpr double kRounding = 1e-9;

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

Reduces ReducesOf(const PlanRequest& request, const ProbeReport& basis, double bytes, int ranks) {
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
  if (cluster.hosts > 1 && basis.cached_samples > 0) {
    absl::StrAppend(&reduces.over,
                    "; several machines do not cache features, so it will take longer");
  }
  return reduces;
}

double Overlap(bool gpu, double bytes) {
  return gpu && bytes > 0 ? std::max(0.0, 1 - kBucketBytes / bytes) : 0;
}

// What a row takes in one of the run's stages; seconds of all ranks together.
struct Stage {
  double step = 0;
  double evaluation = 0;
  double first_read = 0;        // What each rank's new picture takes beyond that,
  double first_evaluation = 0;  // and an evaluation of new pictures.
  double checkpoint = 0;        // How long it holds the ranks up.
  double last_checkpoint = 0;   // Waited for until it is durable.
  double reduced_bytes = 0;     // Of each rank's step.
  double checkpoint_bytes = 0;
};

// Also tells the row what it is based on.
absl::StatusOr<Stage> PlanStage(const PlanRequest& request, const ProbeReport& basis,
                                const ProbedStage& probed, PlanRow& row) {
  const auto model = Fit(probed.steps, basis.ranks);
  if (!model.ok()) return model.status();
  row.fit_error = std::max(row.fit_error, model->worst_error);
  Stage stage;
  stage.reduced_bytes = static_cast<double>(probed.reduced_bytes);
  const auto batch = static_cast<double>(row.local_batch);
  const double backward = kBackwardShare * batch * model->seconds_per_sample;
  const double overlap = Overlap(basis.gpu, stage.reduced_bytes);
  const Reduces reduces = ReducesOf(request, basis, stage.reduced_bytes, row.ranks);
  row.extrapolated = basis.ranks != row.ranks;
  const double exposed = ExposedSeconds(reduces.probed, backward, overlap);
  if (row.extrapolated) {
    row.exposed_reduce_seconds = ExposedSeconds(reduces.planned, backward, overlap);
    // The part of c that is no all-reduce cannot be negative.
    const double alone =
        std::max(model->Seconds(batch) - exposed, batch * model->seconds_per_sample);
    stage.step = alone + row.exposed_reduce_seconds;
    row.basis =
        absl::StrCat("extrapolated from ", basis.ranks, basis.ranks == 1 ? " rank" : " ranks",
                     basis.gpu ? ""
                               : absl::StrCat(" of ", basis.threads_per_rank,
                                              basis.threads_per_rank == 1 ? " thread" : " threads"),
                     ", ", reduces.over);
  } else {
    row.exposed_reduce_seconds = exposed;
    stage.step = model->Seconds(batch);
    row.basis = "measured";
  }
  stage.first_read = probed.first_read_seconds;
  if (probed.evaluated_samples > 0) {  // Shared among the ranks.
    const double all = static_cast<double>(basis.eval_samples) /
                       static_cast<double>(probed.evaluated_samples) * basis.ranks / row.ranks;
    stage.evaluation = probed.evaluation_seconds * all;
    stage.first_evaluation =
        std::max(0.0, probed.first_evaluation_seconds - probed.evaluation_seconds) * all;
  }
  stage.checkpoint = probed.checkpoint_stall_seconds;
  stage.last_checkpoint = probed.checkpoint_write_seconds;
  stage.checkpoint_bytes = static_cast<double>(probed.checkpoint_bytes);
  return stage;
}

// What happens every so often, as a rate: times in a step of `step_seconds`. At most once, however
// small the data set is against the batch.
double PerStep(const Duration& every, double steps_per_epoch, double step_seconds) {
  if (every.is_zero()) return 0;
  double rate = 1 / every.count();
  if (every.unit() == Duration::Unit::kSeconds) rate *= step_seconds;
  if (every.unit() == Duration::Unit::kEpochs) rate /= steps_per_epoch;
  return std::min(1.0, rate);
}

// How often in so many steps.
double Times(const Duration& every, double steps, double steps_per_epoch, double step_seconds) {
  return std::floor(steps * PerStep(every, steps_per_epoch, step_seconds) + kRounding);
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

Spent Price(const Prices& prices, int ranks, double seconds, const Moved& moved) {
  Spent spent;
  const double hours = seconds * ranks / kSecondsPerHour;
  spent.seconds = seconds;
  spent.energy_kwh = prices.watts_per_rank * seconds * ranks / kJoulesPerKwh;
  if (!prices.known) return spent;
  spent.hardware_cost = hours * prices.hardware_per_rank_hour;
  spent.energy_cost = spent.energy_kwh * prices.energy_per_kwh;
  spent.transfer_cost =
      (moved.dataset * prices.dataset_per_gb + moved.checkpoint * prices.checkpoint_per_gb +
       moved.allreduce * prices.allreduce_per_gb) /
      kBytesPerGb;
  return spent;
}

// Pictures that go through a frozen trunk once, before the first step.
double CachedSamples(const PlanRequest& request, const ProbeReport& basis) {
  if (basis.cached_samples == 0) return 0;
  return static_cast<double>(basis.train_samples * request.config.model.feature_views +
                             basis.eval_samples);
}

double SecondsBeforeSteps(const PlanRequest& request, const ProbeReport& basis, int ranks) {
  const double cached = CachedSamples(request, basis);
  if (cached == 0) return basis.startup_seconds;
  // Caching is shared among the ranks.
  return basis.startup_seconds + basis.cache_seconds * cached /
                                     static_cast<double>(basis.cached_samples) * basis.ranks /
                                     ranks;
}

// How many of `samples` read out of so many pictures are new to who reads them. On disk the ranks
// share what they keep; in memory each keeps its own, and every epoch it gets others. The chance
// that it has not met a picture by then falls by 1 / ranks with each.
double FirstReads(const PlanRequest& request, double samples, int64_t pictures, int ranks) {
  const auto all = static_cast<double>(pictures);
  if (pictures == 0 || samples <= all) return samples;
  if (request.config.data.cache == config::PictureCacheKind::kDisk) return all;
  return all * ranks * (1 - std::pow(1 - 1.0 / ranks, samples / all));
}

// In how many steps `seconds` have passed, where `passed` tells it of steps and rises.
double StepsIn(double seconds, double most, const std::function<double(double)>& passed) {
  if (passed(most) <= seconds) return most;
  double least = 0;
  for (int i = 0; i < 200 && most - least > kRounding * most; ++i) {
    const double middle = (least + most) / 2;
    (passed(middle) <= seconds ? least : most) = middle;
  }
  return least;
}

// How often something happens in each of the run's stages.
struct Counts {
  double first = 0;
  double unfrozen = 0;
};

double DatasetBytes(const PlanRequest& request, const ProbeReport& basis, const PlanRow& row,
                    const Counts& steps, const Counts& evaluations) {
  const double cached = CachedSamples(request, basis);
  const auto read = [&](double samples, double first) {
    return first * basis.sample_bytes + (samples - first) * basis.sample_bytes_again;
  };
  const auto made = [&](const Counts& counts) {
    return (cached > 0 ? 0 : counts.first) + counts.unfrozen;
  };
  const double samples = made(steps) * static_cast<double>(row.global_batch);
  const auto eval = static_cast<double>(basis.eval_samples);
  return static_cast<double>(basis.opened_bytes) * row.ranks / basis.ranks +
         cached * basis.sample_bytes +
         read(samples, FirstReads(request, samples, basis.train_samples, row.ranks)) +
         read(made(evaluations) * eval, std::min(made(evaluations), 1.0) * eval);
}

void PlanLength(const PlanRequest& request, const ProbeReport& basis, const Stage& first,
                const Stage& unfrozen, PlanRow& row) {
  const config::RunConfig& config = request.config;
  const Duration& eval_every = config.training.eval_every;
  const Duration& save_every = config.checkpoint.every;
  row.evaluation_seconds = first.evaluation;
  row.checkpoint_seconds = first.checkpoint;
  // With its share of evaluations and checkpoints.
  const auto whole_step = [&](const Stage& stage) {
    return stage.step + PerStep(eval_every, row.steps_per_epoch, stage.step) * stage.evaluation +
           PerStep(save_every, row.steps_per_epoch, stage.step) * stage.checkpoint;
  };
  const Duration& duration = config.training.duration;
  const bool by_time = duration.unit() == Duration::Unit::kSeconds;
  const Duration& unfreeze = config.model.unfreeze_after;
  const double before = SecondsBeforeSteps(request, basis, row.ranks);
  // Of steps on features nobody reads a picture.
  const bool features = CachedSamples(request, basis) > 0;
  const Stage& reading = features ? unfrozen : first;
  const auto first_reads = [&](const Counts& made) {
    const double samples =
        ((features ? 0 : made.first) + made.unfrozen) * static_cast<double>(row.global_batch);
    return FirstReads(request, samples, basis.train_samples, row.ranks) * reading.first_read /
           row.ranks;
  };
  Counts steps;
  steps.first = unfreeze.is_zero() ? INFINITY : StepsOf(unfreeze, row.steps_per_epoch);
  if (by_time) {
    // Its length is given; how far it comes is what is asked for.
    const double left = std::max(0.0, duration.count() - before - reading.first_evaluation);
    const double most = std::min(steps.first, left / whole_step(first));
    steps.first = StepsIn(left, most, [&](double made) {
      return made * whole_step(first) + first_reads({made, 0});
    });
    const double later = left - steps.first * whole_step(first);
    if (!unfreeze.is_zero() && later > 0) {
      steps.unfrozen = StepsIn(later, later / whole_step(unfrozen), [&](double made) {
        return made * whole_step(unfrozen) + first_reads({steps.first, made});
      });
    }
    row.steps = steps.first + steps.unfrozen;
  } else {
    row.steps = StepsOf(duration, row.steps_per_epoch);
    steps.first = std::min(steps.first, row.steps);
    steps.unfrozen = row.steps - steps.first;
  }
  row.epochs = row.steps / row.steps_per_epoch;

  // The last step is followed by an evaluation and a checkpoint in any case, so the periods count
  // up to the one before it.
  const double counted = std::max(0.0, row.steps - 1);
  const double stepping = steps.first * first.step + steps.unfrozen * unfrozen.step;
  const auto counts = [&](const Duration& every) {
    Counts times;
    times.first = Times(every, std::min(steps.first, counted), row.steps_per_epoch, first.step);
    if (steps.unfrozen > 0) {
      const double all = Times(every, counted, row.steps_per_epoch, stepping / row.steps);
      times.unfrozen = std::max(0.0, all - times.first);
    }
    return times;
  };
  Counts evaluations = counts(eval_every);
  const Counts checkpoints = counts(save_every);
  const Stage& last = steps.unfrozen > 0 ? unfrozen : first;
  double seconds =
      std::max(before, by_time ? duration.count() : 0) + last.evaluation + last.last_checkpoint;
  if (!by_time) {
    seconds += stepping + evaluations.first * first.evaluation +
               evaluations.unfrozen * unfrozen.evaluation + checkpoints.first * first.checkpoint +
               checkpoints.unfrozen * unfrozen.checkpoint + first_reads(steps) +
               (features && steps.unfrozen == 0 ? 0 : reading.first_evaluation);
  }
  (steps.unfrozen > 0 ? evaluations.unfrozen : evaluations.first) += 1;

  row.moved.dataset = DatasetBytes(request, basis, row, steps, evaluations);
  row.moved.checkpoint = checkpoints.first * first.checkpoint_bytes +
                         checkpoints.unfrozen * unfrozen.checkpoint_bytes + last.checkpoint_bytes;
  if (row.ranks > 1) {
    row.moved.allreduce =
        row.ranks * (steps.first * first.reduced_bytes + steps.unfrozen * unfrozen.reduced_bytes);
  }
  const Prices prices = PricesOf(request, seconds);
  row.run = Price(prices, row.ranks, seconds, row.moved);
  row.epoch = Price(prices, row.ranks, row.steps_per_epoch * whole_step(first), {});
  if (row.epochs > 0) row.epoch.transfer_cost = row.run.transfer_cost / row.epochs;
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

std::string WhyNotShared(const config::RunConfig& config, int ranks) {
  const int64_t batch = config.training.global_batch_size;
  if (batch == 0) return "";
  if (batch < ranks) {
    return absl::StrCat("training.global_batch_size is ", batch, ", which ", ranks,
                        " ranks cannot share");
  }
  if (config.model.sync_batch_norm && batch % ranks != 0) {
    return absl::StrCat(
        "model.sync_batch_norm needs the same number of samples on each rank: "
        "training.global_batch_size is ",
        batch, ", which ", ranks, " ranks cannot share equally");
  }
  return "";
}

absl::StatusOr<Plan> MakePlan(const PlanRequest& request) {
  if (request.probes.empty()) return absl::InvalidArgumentError("nothing was probed");
  const ProbeReport& any = LargestProbe(request.probes);
  if (any.train_samples < 1) return absl::InvalidArgumentError("there are no training samples");
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
    if (const std::string why = WhyNotShared(request.config, count); !why.empty()) {
      return absl::InvalidArgumentError(why);
    }
    row.steps_per_epoch =
        static_cast<double>(any.train_samples) / static_cast<double>(row.global_batch);
    const ProbeReport* own = ProbeOf(request.probes, count);
    const ProbeReport& basis = own != nullptr ? *own : any;
    const ProbedStage& thawed = basis.unfrozen.steps.empty() ? basis.first : basis.unfrozen;
    const auto unfrozen = PlanStage(request, basis, thawed, row);
    if (!unfrozen.ok()) return unfrozen.status();
    // Last, since the row tells of the first stage.
    const auto first = PlanStage(request, basis, basis.first, row);
    if (!first.ok()) return first.status();
    row.step_seconds = first->step;
    row.samples_per_second = static_cast<double>(row.global_batch) / row.step_seconds;
    const MemoryPlan memory = PlanMemory(basis, row.local_batch);
    row.memory_bytes = memory.bytes;
    row.available_bytes = basis.available_bytes;
    row.fits = memory.fits;
    row.micro_batch_size = memory.micro_batch_size;
    PlanLength(request, basis, *first, *unfrozen, row);
    plan.rows.push_back(std::move(row));
  }
  return plan;
}

}  // namespace lockstep::plan
