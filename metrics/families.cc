#include "metrics/families.h"

#include <limits>
#include <string>
#include <utility>

#include "config/rank_board.h"

namespace lockstep::metrics {
namespace {

using prometheus::ClientMetric;
using prometheus::MetricFamily;
using prometheus::MetricType;
using Labels = std::vector<ClientMetric::Label>;

// The labels that are known in advance: their series start at 0, so that rate() and increase() see
// the first event and an alert can tell "none" from "not reported".
constexpr const char* kStates[] = {"queued",   "starting",   "running",   "pausing", "paused",
                                   "stopping", "recovering", "completed", "stopped", "failed"};
constexpr const char* kRestartReasons[] = {"rank_crash", "hang",        "oom",
                                           "nonfinite",  "coordinator", "user"};

// One family under construction. Families without series are dropped by Finish().
class Builder {
 public:
  Builder& Gauge(const char* name, const char* help) { return Open(name, help, MetricType::Gauge); }
  Builder& Counter(const char* name, const char* help) {
    return Open(name, help, MetricType::Counter);
  }
  Builder& HistogramFamily(const char* name, const char* help) {
    return Open(name, help, MetricType::Histogram);
  }

  Builder& Add(Labels labels, double value) {
    ClientMetric metric;
    metric.label = std::move(labels);
    if (family().type == MetricType::Counter) {
      metric.counter.value = value;
    } else {
      metric.gauge.value = value;
    }
    family().metric.push_back(std::move(metric));
    return *this;
  }

  // Prometheus wants cumulative counts that end with +Inf; ours are per bucket. Missing buckets
  // count as empty and surplus ones fall into +Inf, so no observation is lost.
  Builder& Add(Labels labels, const Histogram& histogram) {
    ClientMetric metric;
    metric.label = std::move(labels);
    uint64_t cumulative = 0;
    size_t next = 0;
    for (double bound : kStepBuckets) {
      if (next < histogram.counts.size()) cumulative += histogram.counts[next++];
      metric.histogram.bucket.push_back({cumulative, bound});
    }
    while (next < histogram.counts.size()) cumulative += histogram.counts[next++];
    metric.histogram.bucket.push_back({cumulative, std::numeric_limits<double>::infinity()});
    metric.histogram.sample_count = cumulative;
    metric.histogram.sample_sum = histogram.sum;
    family().metric.push_back(std::move(metric));
    return *this;
  }

  std::vector<MetricFamily> Finish() {
    std::erase_if(families_, [](const MetricFamily& family) { return family.metric.empty(); });
    return std::move(families_);
  }

 private:
  Builder& Open(const char* name, const char* help, MetricType type) {
    families_.push_back({std::string("lockstep_") + name, help, type, {}});
    return *this;
  }
  MetricFamily& family() { return families_.back(); }

  std::vector<MetricFamily> families_;
};

Labels OfRun(const RunSample& run) {
  return {{"run", run.run}};
}

const char* PhaseLabel(int phase) {
  return config::PhaseName(static_cast<config::Phase>(phase));
}

// Adds one series per run to the family that was just opened.
template <typename Value>
void PerRun(Builder& builder, const Snapshot& snapshot, Value value) {
  for (const RunSample& run : snapshot.runs) builder.Add(OfRun(run), value(run));
}

// The same, for the runs of which the value is known.
template <typename Known, typename Value>
void PerRunIf(Builder& builder, const Snapshot& snapshot, Known known, Value value) {
  for (const RunSample& run : snapshot.runs) {
    if (known(run)) builder.Add(OfRun(run), value(run));
  }
}

void AddCoordinator(Builder& out, const Snapshot& snapshot) {
  out.Gauge("build_info", "Versions of this coordinator, as labels; always 1.")
      .Add(
          {{"version", snapshot.version}, {"git_sha", snapshot.git_sha}, {"torch", snapshot.torch}},
          1);
  out.Gauge("start_time_seconds", "Unix time at which this coordinator started.")
      .Add({}, snapshot.start_time_seconds);

  out.Gauge("runs", "Runs by state.");
  std::map<std::string, int64_t> by_state = snapshot.runs_by_state;
  for (const char* state : kStates) by_state.try_emplace(state, 0);
  for (const auto& [state, count] : by_state) {
    out.Add({{"state", state}}, static_cast<double>(count));
  }
  out.Counter("run_transitions_total", "Changes of a run's state, by state left and entered.");
  for (const auto& [edge, count] : snapshot.transitions) {
    out.Add({{"from", edge.first}, {"to", edge.second}}, static_cast<double>(count));
  }
  out.Gauge("queue_depth_runs", "Runs that wait for free slots.")
      .Add({}, static_cast<double>(snapshot.queue_depth));
  out.Gauge("queue_oldest_wait_seconds", "How long the oldest queued run has waited; 0 = none.")
      .Add({}, snapshot.queue_oldest_wait_seconds);

  out.Gauge("price_info", "Currency of every cost on this endpoint, as a label; always 1.")
      .Add({{"currency", snapshot.currency}}, 1);
  out.Counter("rpc_server_handled_total", "Finished RPCs, by method and status code.");
  for (const auto& [call, count] : snapshot.rpcs_handled) {
    out.Add({{"method", call.first}, {"code", call.second}}, static_cast<double>(count));
  }
  out.Counter("store_errors_total", "Failed transactions of the run store.")
      .Add({}, static_cast<double>(snapshot.store_errors));
  out.Counter("watchdog_fired_total", "Attempts ended by the stall watchdog, by reason.");
  for (const auto& [reason, count] : snapshot.watchdog_fired) {
    out.Add({{"reason", reason}}, static_cast<double>(count));
  }
}

void AddProgress(Builder& out, const Snapshot& snapshot) {
  out.Gauge("run_info", "What a run is, as labels to join other families with; always 1.");
  for (const RunSample& run : snapshot.runs) {
    out.Add({{"run", run.run},
             {"name", run.name},
             {"model", run.model},
             {"dataset", run.dataset},
             {"world_size", std::to_string(run.world_size)},
             {"config_hash", run.config_hash}},
            1);
  }
  out.Counter("run_samples_total", "Training samples of finished steps, over all ranks.");
  PerRun(out, snapshot, [](const RunSample& run) { return static_cast<double>(run.samples); });
  out.Counter("run_steps_total", "Finished steps.");
  PerRun(out, snapshot, [](const RunSample& run) { return static_cast<double>(run.steps); });
  out.Gauge("run_epoch", "Epochs done, with the fraction of the one under way.");
  PerRun(out, snapshot, [](const RunSample& run) { return run.epoch; });
  out.Gauge("run_progress_ratio", "Share of the run's duration that is done, 0 to 1.");
  PerRun(out, snapshot, [](const RunSample& run) { return run.progress_ratio; });
  out.Gauge("run_eta_timestamp_seconds", "Unix time at which the run is expected to end.");
  PerRunIf(
      out, snapshot, [](const RunSample& run) { return run.eta_timestamp_seconds > 0; },
      [](const RunSample& run) { return run.eta_timestamp_seconds; });
  out.Gauge("run_last_step_timestamp_seconds", "Unix time of the newest step reported.");
  PerRunIf(
      out, snapshot, [](const RunSample& run) { return run.last_step_timestamp_seconds > 0; },
      [](const RunSample& run) { return run.last_step_timestamp_seconds; });
}

void AddTime(Builder& out, const Snapshot& snapshot) {
  out.HistogramFamily("run_step_duration_seconds", "Wall time of a step.");
  PerRun(out, snapshot, [](const RunSample& run) { return run.step_duration; });
  out.Counter("run_phase_seconds_total",
              "Wall time of a run by phase; the phases add up to the whole.");
  for (const RunSample& run : snapshot.runs) {
    for (int phase = 0; phase < config::kPhaseCount; ++phase) {
      out.Add({{"run", run.run}, {"phase", PhaseLabel(phase)}}, run.phase_seconds[phase]);
    }
  }
  out.HistogramFamily("allreduce_duration_seconds", "Wall time of a step's gradient all-reduce.");
  PerRun(out, snapshot, [](const RunSample& run) { return run.allreduce_duration; });
  out.Counter("allreduce_bytes_total", "Gradient bytes that one rank gave to all-reduce.");
  PerRun(out, snapshot,
         [](const RunSample& run) { return static_cast<double>(run.allreduce_bytes); });
}

void AddRanks(Builder& out, const Snapshot& snapshot) {
  auto per_rank = [&](auto known, auto value) {
    for (const RunSample& run : snapshot.runs) {
      for (const RankSample& rank : run.ranks) {
        if (!known(rank)) continue;
        out.Add({{"run", run.run}, {"rank", std::to_string(rank.rank)}}, value(rank));
      }
    }
  };
  auto always = [](const RankSample&) { return true; };
  out.Counter("rank_straggler_wait_seconds_total",
              "Time a rank waited for the slowest rank of a step.");
  per_rank(always, [](const RankSample& rank) { return rank.straggler_wait_seconds; });
  out.Counter("rank_slowest_steps_total", "Steps in which a rank arrived last.");
  per_rank(always, [](const RankSample& rank) { return static_cast<double>(rank.slowest_steps); });
  out.Gauge("rank_last_heartbeat_timestamp_seconds", "Unix time of a rank's last sign of life.");
  per_rank([](const RankSample& rank) { return rank.last_heartbeat_timestamp_seconds > 0; },
           [](const RankSample& rank) { return rank.last_heartbeat_timestamp_seconds; });
}

void AddLearning(Builder& out, const Snapshot& snapshot) {
  auto per_split = [&](auto known, auto train, auto validation) {
    for (const RunSample& run : snapshot.runs) {
      if (!known(run)) continue;
      if (run.steps > 0) out.Add({{"run", run.run}, {"split", "train"}}, train(run));
      if (run.has_eval) out.Add({{"run", run.run}, {"split", "val"}}, validation(run));
    }
  };
  out.Gauge("run_loss", "Newest loss, by split: train (last step) or val (last evaluation).");
  per_split([](const RunSample&) { return true; },
            [](const RunSample& run) { return run.train_loss; },
            [](const RunSample& run) { return run.eval_loss; });
  out.Gauge("run_accuracy_ratio",
            "Newest top-1 or label accuracy, 0 to 1, by split: train or val.");
  per_split([](const RunSample& run) { return run.has_accuracy; },
            [](const RunSample& run) { return run.train_accuracy_ratio; },
            [](const RunSample& run) { return run.eval_accuracy_ratio; });
  auto stepped = [](const RunSample& run) { return run.steps > 0; };
  out.Gauge("run_learning_rate", "Learning rate of the newest step.");
  PerRunIf(out, snapshot, stepped, [](const RunSample& run) { return run.learning_rate; });
  out.Gauge("run_gradient_norm", "Global L2 norm of the newest step's gradient, before clipping.");
  PerRunIf(out, snapshot, stepped, [](const RunSample& run) { return run.gradient_norm; });
  out.Counter("run_nonfinite_steps_total", "Steps whose loss or gradient was NaN or infinite.");
  PerRun(out, snapshot,
         [](const RunSample& run) { return static_cast<double>(run.nonfinite_steps); });
}

void AddCheckpoints(Builder& out, const Snapshot& snapshot) {
  out.HistogramFamily("checkpoint_write_duration_seconds",
                      "Time from a checkpoint's snapshot to its commit on disk.");
  PerRun(out, snapshot, [](const RunSample& run) { return run.checkpoint_write_duration; });
  out.Counter("checkpoint_stall_seconds_total", "Time in which training stood for checkpoints.");
  PerRun(out, snapshot, [](const RunSample& run) {
    return run.phase_seconds[static_cast<size_t>(config::Phase::kCheckpointStall)];
  });
  out.Counter("checkpoint_writes_total", "Checkpoint writes, by result: ok or error.");
  for (const RunSample& run : snapshot.runs) {
    out.Add({{"run", run.run}, {"result", "ok"}}, static_cast<double>(run.checkpoint_writes_ok));
    out.Add({{"run", run.run}, {"result", "error"}},
            static_cast<double>(run.checkpoint_writes_error));
  }
  auto written = [](const RunSample& run) {
    return run.checkpoint_last_success_timestamp_seconds > 0;
  };
  out.Gauge("checkpoint_last_size_bytes", "Size of the newest durable checkpoint.");
  PerRunIf(out, snapshot, written, [](const RunSample& run) {
    return static_cast<double>(run.checkpoint_last_size_bytes);
  });
  out.Gauge("checkpoint_last_success_timestamp_seconds",
            "Unix time at which the newest checkpoint became durable.");
  PerRunIf(out, snapshot, written,
           [](const RunSample& run) { return run.checkpoint_last_success_timestamp_seconds; });
  out.Gauge("checkpoint_last_success_step", "Step of the newest durable checkpoint.");
  PerRunIf(out, snapshot, written, [](const RunSample& run) {
    return static_cast<double>(run.checkpoint_last_success_step);
  });
}

void AddRecoveryAndCost(Builder& out, const Snapshot& snapshot) {
  out.Counter("run_restarts_total", "New attempts after the first, by reason.");
  for (const RunSample& run : snapshot.runs) {
    std::map<std::string, int64_t> restarts = run.restarts;
    for (const char* reason : kRestartReasons) restarts.try_emplace(reason, 0);
    for (const auto& [reason, count] : restarts) {
      out.Add({{"run", run.run}, {"reason", reason}}, static_cast<double>(count));
    }
  }
  out.HistogramFamily("run_recovery_duration_seconds",
                      "Time from an attempt's failure to the first step after it.");
  PerRun(out, snapshot, [](const RunSample& run) { return run.recovery_duration; });
  out.Counter("run_lost_steps_total", "Steps that had to be done again after a failure.");
  PerRun(out, snapshot, [](const RunSample& run) { return static_cast<double>(run.lost_steps); });

  // Every line of the cost is hardware time until power is metered; the label is there from the
  // start because adding one later would break the sums of recorded history.
  out.Counter("run_cost_total", "Cost of a run in the currency of lockstep_price_info, by phase.");
  for (const RunSample& run : snapshot.runs) {
    for (int phase = 0; phase < config::kPhaseCount; ++phase) {
      out.Add({{"run", run.run}, {"phase", PhaseLabel(phase)}, {"component", "hardware"}},
              run.cost_by_phase[phase]);
    }
  }
}

}  // namespace

std::vector<MetricFamily> Families(const Snapshot& snapshot) {
  Builder out;
  AddCoordinator(out, snapshot);
  AddProgress(out, snapshot);
  AddTime(out, snapshot);
  AddRanks(out, snapshot);
  AddLearning(out, snapshot);
  AddCheckpoints(out, snapshot);
  AddRecoveryAndCost(out, snapshot);
  return out.Finish();
}

}  // namespace lockstep::metrics
