// What a run does: progress, time, ranks, learning, checkpoints, recovery.
#include <map>
#include <string>

#include "config/rank_board.h"
#include "metrics/family_builder.h"

namespace lockstep::metrics {
namespace {

// Known in advance, so that their series start at 0.
constexpr const char* kRestartReasons[] = {"rank_crash", "hang",        "oom", "nonfinite",
                                           "gpu_fault",  "coordinator", "user"};

const char* PhaseLabel(int phase) {
  return config::PhaseName(static_cast<config::Phase>(phase));
}

void AddProgress(FamilyBuilder& out, const Snapshot& snapshot) {
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
  out.Gauge("run_live", "1 until a run has ended, then 0.");
  PerRun(out, snapshot, [](const RunSample& run) { return run.live ? 1 : 0; });
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

void AddTime(FamilyBuilder& out, const Snapshot& snapshot) {
  out.OpenHistogram("run_step_duration_seconds", "Wall time of a step.", kStepBuckets);
  PerRun(out, snapshot, [](const RunSample& run) { return run.step_duration; });
  out.Counter("run_phase_seconds_total",
              "Wall time of a run by phase; the phases add up to the whole.");
  for (const RunSample& run : snapshot.runs) {
    for (int phase = 0; phase < config::kPhaseCount; ++phase) {
      out.Add({{"run", run.run}, {"phase", PhaseLabel(phase)}},
              run.spent.seconds[static_cast<size_t>(phase)]);
    }
  }
  out.Gauge("run_effective_training_ratio",
            "Share of a run's wall time that went into steps that count, 0 to 1.");
  PerRunIf(
      out, snapshot, [](const RunSample& run) { return run.effective_ratio > 0; },
      [](const RunSample& run) { return run.effective_ratio; });
  out.Gauge("run_flops_utilization_ratio",
            "Arithmetic of the model's steps as a share of the devices' peak, 0 to 1.");
  PerRunIf(
      out, snapshot, [](const RunSample& run) { return run.flops_utilization > 0; },
      [](const RunSample& run) { return run.flops_utilization; });
  out.OpenHistogram("allreduce_duration_seconds", "Wall time of a step's gradient all-reduce.",
                    kStepBuckets);
  PerRun(out, snapshot, [](const RunSample& run) { return run.allreduce_duration; });
  out.Counter("allreduce_bytes_total", "Gradient bytes that one rank gave to all-reduce.");
  PerRun(out, snapshot,
         [](const RunSample& run) { return static_cast<double>(run.allreduce_bytes); });
}

void AddRanks(FamilyBuilder& out, const Snapshot& snapshot) {
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
  out.Gauge("run_straggler_ratio",
            "Share of the last steps in which the rank that stands out came last, with the cause; "
            "absent while no rank does.");
  for (const RunSample& run : snapshot.runs) {
    const StragglerSample& straggler = run.straggler;
    if (straggler.rank < 0) continue;
    out.Add(
        {{"run", run.run}, {"rank", std::to_string(straggler.rank)}, {"cause", straggler.cause}},
        straggler.ratio);
  }
  out.Gauge("rank_last_heartbeat_timestamp_seconds", "Unix time of a rank's last sign of life.");
  per_rank([](const RankSample& rank) { return rank.last_heartbeat_timestamp_seconds > 0; },
           [](const RankSample& rank) { return rank.last_heartbeat_timestamp_seconds; });
}

void AddData(FamilyBuilder& out, const Snapshot& snapshot) {
  out.Counter("data_loader_samples_total", "Samples read from the data set, over all ranks.");
  PerRun(out, snapshot,
         [](const RunSample& run) { return static_cast<double>(run.loaded_samples); });
  out.Counter("data_loader_corrupt_samples_total",
              "Samples that could not be read, with another in their place.");
  PerRun(out, snapshot,
         [](const RunSample& run) { return static_cast<double>(run.corrupt_samples); });
}

void AddLearning(FamilyBuilder& out, const Snapshot& snapshot) {
  auto per_split = [&](auto known, auto train, auto validation) {
    for (const RunSample& run : snapshot.runs) {
      if (!known(run)) continue;
      if (run.has_train) out.Add({{"run", run.run}, {"split", "train"}}, train(run));
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
  auto stepped = [](const RunSample& run) { return run.has_train; };
  out.Gauge("run_learning_rate", "Learning rate of the newest step.");
  PerRunIf(out, snapshot, stepped, [](const RunSample& run) { return run.learning_rate; });
  out.Gauge("run_gradient_norm", "Global L2 norm of the newest step's gradient, before clipping.");
  PerRunIf(out, snapshot, stepped, [](const RunSample& run) { return run.gradient_norm; });
  out.Counter(
      "run_nonfinite_steps_total",
      "Steps whose loss or gradient was NaN or infinite, without the overflows by which fp16 "
      "finds its loss scale.");
  PerRun(out, snapshot,
         [](const RunSample& run) { return static_cast<double>(run.nonfinite_steps); });
}

void AddCheckpoints(FamilyBuilder& out, const Snapshot& snapshot) {
  out.OpenHistogram("checkpoint_write_duration_seconds",
                    "Time from a checkpoint's snapshot to its commit on disk.", kStepBuckets);
  PerRun(out, snapshot, [](const RunSample& run) { return run.checkpoint_write_duration; });
  out.Counter("checkpoint_stall_seconds_total", "Time in which training stood for checkpoints.");
  PerRun(out, snapshot, [](const RunSample& run) {
    return run.spent.seconds[static_cast<size_t>(config::Phase::kCheckpointStall)];
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

void AddRecovery(FamilyBuilder& out, const Snapshot& snapshot) {
  out.Counter("run_restarts_total", "New attempts after the first, by reason.");
  for (const RunSample& run : snapshot.runs) {
    std::map<std::string, int64_t> restarts = run.restarts;
    for (const char* reason : kRestartReasons) restarts.try_emplace(reason, 0);
    for (const auto& [reason, count] : restarts) {
      out.Add({{"run", run.run}, {"reason", reason}}, static_cast<double>(count));
    }
  }
  out.OpenHistogram("run_recovery_duration_seconds",
                    "Time from an attempt's failure to the first step after it.", kStepBuckets);
  PerRun(out, snapshot, [](const RunSample& run) { return run.recovery_duration; });
  out.Counter("run_lost_steps_total", "Steps that had to be done again after a failure.");
  PerRun(out, snapshot, [](const RunSample& run) { return static_cast<double>(run.lost_steps); });
}

}  // namespace

void AddRuns(FamilyBuilder& out, const Snapshot& snapshot) {
  AddProgress(out, snapshot);
  AddTime(out, snapshot);
  AddRanks(out, snapshot);
  AddData(out, snapshot);
  AddLearning(out, snapshot);
  AddCheckpoints(out, snapshot);
  AddRecovery(out, snapshot);
}

}  // namespace lockstep::metrics
