#include "launch/supervisor/run_view.h"

#include <algorithm>
#include <cmath>

#include "metrics/pricing.h"

namespace lockstep::launch {
namespace {

void SetTime(double unix_seconds, google::protobuf::Timestamp& stamp) {
  const double whole = std::floor(unix_seconds);
  stamp.set_seconds(static_cast<int64_t>(whole));
  stamp.set_nanos(static_cast<int32_t>((unix_seconds - whole) * 1e9));
}

void Add(const v1::Histogram& from, v1::Histogram& to) {
  while (to.counts_size() < from.counts_size()) to.add_counts(0);
  for (int i = 0; i < from.counts_size(); ++i) to.set_counts(i, to.counts(i) + from.counts(i));
  to.set_sum(to.sum() + from.sum());
}

metrics::Histogram ToMetrics(const v1::Histogram& histogram) {
  metrics::Histogram result;
  result.counts.assign(histogram.counts().begin(), histogram.counts().end());
  result.counts.resize(metrics::kStepBuckets.size() + 1);
  result.sum = histogram.sum();
  return result;
}

metrics::Histogram ToMetrics(const std::vector<uint64_t>& counts, double sum) {
  metrics::Histogram result{counts, sum};
  result.counts.resize(metrics::kStepBuckets.size() + 1);
  return result;
}

// An accuracy, and not an error in some unit.
bool IsRatio(const v1::Score& score) {
  return score.name() == "top1" || score.name() == "label_accuracy";
}

void FillProgress(const v1::Progress& progress, const SampleContext& context,
                  metrics::RunSample& sample) {
  sample.epoch = progress.epoch();
  if (progress.total_steps() > 0) {
    sample.progress_ratio = std::clamp(
        static_cast<double>(progress.step()) / static_cast<double>(progress.total_steps()), 0., 1.);
  }
  if (progress.eta_seconds() > 0 && context.moving) {
    sample.eta_timestamp_seconds = context.last_report_unix + progress.eta_seconds();
  }
  sample.last_step_timestamp_seconds = context.last_step_unix;
  sample.has_train = progress.has_score();
  sample.train_loss = progress.loss();
  sample.has_accuracy = !progress.has_score() || IsRatio(progress.score());
  sample.train_accuracy_ratio = progress.score().value();
  sample.learning_rate = progress.learning_rate();
  // Features from a cache spare the trunk's arithmetic, so the share would be wrong.
  if (!progress.has_feature_cache()) sample.flops_utilization = progress.flops_utilization();
  sample.gradient_norm = progress.gradient_norm();
  if (progress.has_last_evaluation()) {
    sample.has_eval = true;
    sample.eval_loss = progress.last_evaluation().loss();
    const auto& scores = progress.last_evaluation().scores();
    if (!scores.empty()) sample.eval_accuracy_ratio = scores[0].value();
  }
}

// Time in steps that count, over the wall time.
double EffectiveRatio(const metrics::PhaseSeconds& seconds) {
  using config::Phase;
  const double wall = metrics::Sum(seconds);
  double steps = 0;
  for (const Phase phase :
       {Phase::kDataWait, Phase::kH2d, Phase::kForward, Phase::kBackward, Phase::kAllreduceExposed,
        Phase::kOptimizer, Phase::kDevice, Phase::kStragglerWait}) {
    steps += seconds[static_cast<size_t>(phase)];
  }
  // What was made again was lost once: that time is in `steps` and bought nothing.
  steps -= seconds[static_cast<size_t>(Phase::kRedone)];
  return wall > 0 ? std::clamp(steps / wall, 0.0, 1.0) : 0;
}

void FillSpending(const Run& run, const SampleContext& context, metrics::RunSample& sample) {
  sample.spent = run.account.totals();
  sample.projected_cost = context.coordinator.ProjectedCost(run, context.now);
  sample.max_cost = run.spec.limits.max_cost;
  if (sample.max_cost > 0) {
    const int64_t micros = sample.spent.cost().total();
    sample.budget_remaining =
        sample.max_cost - static_cast<double>(micros) / metrics::kMicrosPerUnit;
  }
  sample.limit_ratio = context.coordinator.NearestLimit(run, context.now).first;
  sample.effective_ratio = EffectiveRatio(sample.spent.seconds);
  sample.live = !IsTerminal(run.state);
}

}  // namespace

v1::RunState ToProto(RunState state) {
  // The values stand in the same order; 0 is UNSPECIFIED.
  static_assert(static_cast<int>(RunState::kFailed) + 1 == v1::RUN_STATE_FAILED);
  return static_cast<v1::RunState>(static_cast<int>(state) + 1);
}

v1::CheckpointEvent ToProto(const CheckpointFacts& checkpoint) {
  v1::CheckpointEvent event;
  event.set_step(checkpoint.step);
  event.set_bytes(checkpoint.bytes);
  event.set_write_seconds(checkpoint.write_seconds);
  event.set_stall_seconds(checkpoint.stall_seconds);
  event.set_ok(checkpoint.ok);
  event.set_error(checkpoint.error);
  event.set_path(checkpoint.path);
  event.set_cost(static_cast<double>(checkpoint.cost_micros) / metrics::kMicrosPerUnit);
  return event;
}

CheckpointFacts FactsOf(const v1::CheckpointEvent& event) {
  CheckpointFacts facts;
  facts.step = event.step();
  facts.bytes = event.bytes();
  facts.write_seconds = event.write_seconds();
  facts.stall_seconds = event.stall_seconds();
  facts.ok = event.ok();
  facts.error = event.error();
  facts.path = event.path();
  return facts;
}

double P99Seconds(const v1::Histogram& histogram) {
  uint64_t total = 0;
  for (const uint64_t count : histogram.counts()) total += count;
  if (total == 0) return 0;
  uint64_t below = 0;
  for (int i = 0; i < histogram.counts_size(); ++i) {
    below += histogram.counts(i);
    if (static_cast<double>(below) >= 0.99 * static_cast<double>(total)) {
      const size_t bound = std::min(static_cast<size_t>(i), metrics::kStepBuckets.size() - 1);
      // Steps beyond the last bound: their mean is at most the mean of all times the count.
      return std::max(metrics::kStepBuckets[bound],
                      static_cast<size_t>(i) >= metrics::kStepBuckets.size()
                          ? 2 * histogram.sum() / static_cast<double>(total)
                          : 0.0);
    }
  }
  return metrics::kStepBuckets.back();
}

ProgressFacts FactsOf(const v1::Progress& progress) {
  ProgressFacts facts;
  facts.step = progress.step();
  facts.first_step = progress.first_step();
  facts.attempt_steps = progress.steps();
  uint64_t steps = 0;
  for (const uint64_t count : progress.step_duration().counts()) steps += count;
  if (steps > 0) {
    facts.mean_step_seconds = progress.step_duration().sum() / static_cast<double>(steps);
  }
  facts.eta_seconds = progress.eta_seconds();
  facts.p99_step_seconds = P99Seconds(progress.step_duration());
  facts.evaluation_seconds = progress.last_evaluation().seconds();
  facts.held = progress.held();
  return facts;
}

void AddToTotals(const v1::Progress& attempt, v1::Progress& totals) {
  if (attempt.ByteSizeLong() == 0) return;
  v1::Progress sum = attempt;
  sum.set_samples(totals.samples() + attempt.samples());
  sum.set_steps(totals.steps() + attempt.steps());
  sum.set_nonfinite_steps(totals.nonfinite_steps() + attempt.nonfinite_steps());
  sum.set_allreduce_bytes(totals.allreduce_bytes() + attempt.allreduce_bytes());
  Add(totals.step_duration(), *sum.mutable_step_duration());
  Add(totals.allreduce_duration(), *sum.mutable_allreduce_duration());
  for (const v1::RankStraggling& before : totals.ranks()) {
    v1::RankStraggling* found = nullptr;
    for (v1::RankStraggling& rank : *sum.mutable_ranks()) {
      if (rank.rank() == before.rank()) found = &rank;
    }
    if (found == nullptr) {
      *sum.add_ranks() = before;
    } else {
      found->set_wait_seconds(found->wait_seconds() + before.wait_seconds());
      found->set_slowest_steps(found->slowest_steps() + before.slowest_steps());
    }
  }
  if (!attempt.has_score() && totals.has_score()) {
    // It knows the loss of no step yet.
    *sum.mutable_score() = totals.score();
    sum.set_loss(totals.loss());
    sum.set_learning_rate(totals.learning_rate());
    sum.set_gradient_norm(totals.gradient_norm());
  }
  if (!sum.has_last_evaluation() && totals.has_last_evaluation()) {
    *sum.mutable_last_evaluation() = totals.last_evaluation();
  }
  totals = std::move(sum);
}

double ValueOf(const v1::Evaluation& evaluation, const std::string& metric) {
  if (metric == "loss") return evaluation.loss();
  for (const v1::Score& score : evaluation.scores()) {
    if (score.name() == metric) return score.value();
  }
  return std::nan("");
}

v1::Spending SpendingOf(const Run& run, const Coordinator& coordinator, Now now) {
  const metrics::Account::Totals totals = run.account.totals();
  const metrics::Money cost = totals.cost();
  v1::Spending spending;
  spending.set_hardware_micros(cost.hardware);
  spending.set_energy_micros(cost.energy);
  spending.set_transfer_micros(cost.transfer);
  spending.set_energy_joules(totals.energy_joules());
  spending.set_energy_estimated(totals.estimated);
  spending.set_cost_per_hour(run.account.CostPerHour(now.unix, coordinator.pricing()));
  spending.set_watts(run.account.watts());
  spending.set_projected_cost(coordinator.ProjectedCost(run, now));
  const auto [ratio, limit] = coordinator.NearestLimit(run, now);
  spending.set_limit_ratio(ratio);
  spending.set_limit(limit);
  const double money = static_cast<double>(cost.total()) / metrics::kMicrosPerUnit;
  if (const double most = run.spec.limits.max_cost; most > 0) {
    spending.set_overspent(std::max(0.0, money - most));
  }
  return spending;
}

v1::Run ToProto(const Run& run, const v1::Progress& progress, const ViewContext& context) {
  v1::Run proto;
  proto.set_run_id(run.spec.id);
  proto.set_name(run.spec.name);
  proto.set_state(ToProto(run.state));
  proto.set_reason(run.reason);
  proto.set_attempt(run.attempt);
  proto.set_restarts(run.restarts);
  proto.set_priority(run.spec.priority);
  proto.set_ranks(run.spec.ranks);
  proto.set_run_dir(run.spec.run_dir);
  proto.set_submitted_by(run.spec.submitted_by);
  SetTime(run.spec.submitted_unix, *proto.mutable_submitted());
  if (run.started_unix > 0) SetTime(run.started_unix, *proto.mutable_started());
  if (run.ended_unix > 0) SetTime(run.ended_unix, *proto.mutable_ended());
  *proto.mutable_progress() = progress;
  proto.mutable_progress()->set_held(run.held);
  if (!IsTerminal(run.state) && (!run.has_processes || run.held)) {
    // Nothing is on its way: the last rate and what followed from it hold no longer.
    proto.mutable_progress()->set_samples_per_second(0);
    proto.mutable_progress()->set_eta_seconds(-1);
  }
  const metrics::Pricing& pricing = context.coordinator.pricing();
  const auto& ranks = run.account.state().ranks;
  if (progress.has_feature_cache()) {
    v1::FeatureCache* cache = proto.mutable_progress()->mutable_feature_cache();
    const std::string device = ranks.empty() ? "cpu" : ranks[0].device;
    cache->set_saved_cost(pricing.HardwarePerHour(device, context.now.unix) / 3600 *
                          cache->saved_seconds());
  }
  for (const auto& rank : ranks) proto.add_devices(rank.device);
  *proto.mutable_spending() = SpendingOf(run, context.coordinator, context.now);
  if (run.last_checkpoint.ok) *proto.mutable_last_checkpoint() = ToProto(run.last_checkpoint);
  const int64_t micros = run.account.cost().total();
  proto.set_cost(static_cast<double>(micros) / metrics::kMicrosPerUnit);
  proto.set_currency(pricing.currency());
  proto.set_queue_position(context.queue_position);
  proto.set_external(run.spec.external);
  proto.set_sequence(run.sequence);
  proto.set_model(run.spec.model);
  proto.set_dataset(run.spec.dataset);
  return proto;
}

metrics::RunSample ToSample(const Run& run, const v1::Progress& totals,
                            const v1::Progress& progress, const SampleContext& context) {
  v1::Progress all = totals;
  AddToTotals(progress, all);
  metrics::RunSample sample;
  sample.run = run.spec.id;
  sample.name = run.spec.name;
  sample.model = run.spec.model;
  sample.dataset = run.spec.dataset;
  sample.config_hash = run.spec.config_hash;
  sample.world_size = run.spec.ranks;
  sample.samples = all.samples();
  sample.steps = all.steps();
  FillProgress(all, context, sample);
  sample.step_duration = ToMetrics(all.step_duration());
  sample.allreduce_duration = ToMetrics(all.allreduce_duration());
  sample.allreduce_bytes = all.allreduce_bytes();
  sample.nonfinite_steps = all.nonfinite_steps();
  for (int rank = 0; rank < run.spec.ranks; ++rank) {
    metrics::RankSample one;
    one.rank = rank;
    one.last_heartbeat_timestamp_seconds = context.last_report_unix;
    sample.ranks.push_back(one);
  }
  for (const v1::RankStraggling& rank : all.ranks()) {
    if (rank.rank() < 0 || rank.rank() >= run.spec.ranks) continue;
    metrics::RankSample& one = sample.ranks[static_cast<size_t>(rank.rank())];
    one.straggler_wait_seconds = rank.wait_seconds();
    one.slowest_steps = rank.slowest_steps();
  }
  sample.checkpoint_write_duration =
      ToMetrics(run.checkpoint_write_counts, run.checkpoint_write_sum);
  sample.checkpoint_writes_ok = run.checkpoints_ok;
  sample.checkpoint_writes_error = run.checkpoints_failed;
  sample.checkpoint_last_size_bytes = run.last_checkpoint.bytes;
  sample.checkpoint_last_success_step = run.last_checkpoint.step;
  sample.checkpoint_last_success_timestamp_seconds = run.last_checkpoint.at_unix;
  sample.restarts = run.restarts_by_reason;
  sample.lost_steps = run.lost_steps;
  sample.loaded_samples = run.read_before.samples + run.read.samples;
  sample.corrupt_samples = run.read_before.replaced + run.read.replaced;
  sample.recovery_duration = ToMetrics(run.recovery_counts, run.recovery_sum);

  FillSpending(run, context, sample);
  return sample;
}

}  // namespace lockstep::launch
