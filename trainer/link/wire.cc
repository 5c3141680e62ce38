#include "trainer/link/wire.h"

namespace lockstep::trainer {
namespace {

void Fill(const HistogramReport& from, v1::Histogram* to) {
  to->mutable_counts()->Add(from.counts.begin(), from.counts.end());
  to->set_sum(from.sum);
}

void Fill(const ScoreReport& from, v1::Score* to) {
  to->set_name(from.name);
  to->set_value(from.value);
}

}  // namespace

v1::Evaluation ToWire(const EvaluationReport& evaluation) {
  v1::Evaluation message;
  message.set_step(evaluation.step);
  message.set_epoch(evaluation.epoch);
  message.set_loss(evaluation.loss);
  for (const ScoreReport& score : evaluation.scores) Fill(score, message.add_scores());
  message.set_samples(evaluation.samples);
  message.set_seconds(evaluation.seconds);
  return message;
}

v1::CheckpointEvent ToWire(const CheckpointReport& checkpoint) {
  v1::CheckpointEvent message;
  message.set_step(checkpoint.step);
  message.set_bytes(checkpoint.bytes);
  message.set_write_seconds(checkpoint.write_seconds);
  message.set_stall_seconds(checkpoint.stall_seconds);
  message.set_ok(checkpoint.ok);
  message.set_error(checkpoint.error);
  message.set_path(checkpoint.path);
  return message;
}

v1::Progress ToWire(const ProgressReport& progress) {
  v1::Progress message;
  message.set_step(progress.step);
  message.set_epoch(progress.epoch);
  message.set_total_steps(progress.total_steps);
  message.set_samples(progress.samples);
  message.set_steps(progress.steps);
  message.set_loss(progress.loss);
  if (!progress.score.name.empty()) Fill(progress.score, message.mutable_score());
  message.set_learning_rate(progress.learning_rate);
  message.set_gradient_norm(progress.gradient_norm);
  message.mutable_phase_seconds()->Add(progress.phase_seconds.begin(),
                                       progress.phase_seconds.end());
  Fill(progress.step_duration, message.mutable_step_duration());
  Fill(progress.allreduce_duration, message.mutable_allreduce_duration());
  message.set_allreduce_bytes(progress.allreduce_bytes);
  for (const StragglerReport& rank : progress.ranks) {
    v1::RankStraggling* straggling = message.add_ranks();
    straggling->set_rank(rank.rank);
    straggling->set_wait_seconds(rank.wait_seconds);
    straggling->set_slowest_steps(rank.slowest_steps);
  }
  message.set_nonfinite_steps(progress.nonfinite_steps);
  message.set_samples_per_second(progress.samples_per_second);
  message.set_eta_seconds(progress.eta_seconds);
  if (progress.last_evaluation) {
    *message.mutable_last_evaluation() = ToWire(*progress.last_evaluation);
  }
  if (progress.best_evaluation) {
    *message.mutable_best_evaluation() = ToWire(*progress.best_evaluation);
  }
  message.set_first_step(progress.first_step);
  message.set_wall_seconds(progress.wall_seconds);
  message.set_held(progress.held);
  message.set_flops_utilization(progress.flops_utilization);
  if (progress.feature_cache) {
    v1::FeatureCache* cache = message.mutable_feature_cache();
    cache->set_reused(progress.feature_cache->reused);
    cache->set_computed_seconds(progress.feature_cache->computed_seconds);
    cache->set_saved_seconds(progress.feature_cache->saved_seconds);
  }
  return message;
}

v1::Hello ToWire(const LinkOptions& options, const std::optional<ProgressReport>& progress) {
  v1::Hello message;
  message.set_run_id(options.run_id);
  message.set_attempt(options.attempt);
  message.set_token(options.token);
  message.set_run_dir(options.run_dir);
  message.set_world_size(options.world_size);
  message.mutable_pids()->Add(options.pids.begin(), options.pids.end());
  for (const std::string& host : options.hosts) message.add_hosts(host);
  for (const LinkDevice& device : options.devices) {
    v1::RankDevice* added = message.add_devices();
    added->set_name(device.name);
    added->set_uuid(device.uuid);
  }
  message.set_config_yaml(options.config_yaml);
  message.set_mpirun_pid(options.mpirun_pid);
  if (progress) *message.mutable_progress() = ToWire(*progress);
  return message;
}

std::optional<Order> FromWire(const v1::Order& order) {
  Order result;
  result.id = order.order_id();
  result.reason = order.reason();
  switch (order.kind()) {
    case v1::Order::KIND_PAUSE:
      result.kind = Order::kPause;
      return result;
    case v1::Order::KIND_HOLD:
      result.kind = Order::kHold;
      return result;
    case v1::Order::KIND_RESUME:
      result.kind = Order::kResume;
      return result;
    case v1::Order::KIND_CHECKPOINT:
      result.kind = Order::kCheckpoint;
      return result;
    case v1::Order::KIND_STOP:
      result.kind = Order::kStop;
      return result;
    default:
      return std::nullopt;
  }
}

}  // namespace lockstep::trainer
