// The table of run.yaml: every key with its type, unit, range and meaning. To add a key, add the
// member to run_config.h and its row here (data: data_table.cc, model: model_table.cc); loading,
// run.yaml, the JSON schema and the reference follow. Rules between keys are in validate.cc.
#include "config/run_table.h"

#include "config/field.h"
#include "config/run_config.h"

namespace lockstep::config {
namespace {

constexpr int64_t kMostSamplesPerStep = 1 << 24;
constexpr double kLongestSeconds = 30 * 86400;  // A month: longer is a mistake.

const std::vector<Duration::Unit> kAnyLength = {Duration::Unit::kEpochs, Duration::Unit::kSteps,
                                                Duration::Unit::kSeconds};
// What must fall on the same step in every repetition of a run cannot depend on the clock.
const std::vector<Duration::Unit> kCountedLength = {Duration::Unit::kEpochs,
                                                    Duration::Unit::kSteps};
const std::vector<Duration::Unit> kWallTime = {Duration::Unit::kSeconds};

Fields<ResourcesConfig> Resources() {
  Fields<ResourcesConfig> f;
  f.Integer("ranks", &ResourcesConfig::ranks,
            "World size: how many ranks train together. auto: all free slots of the coordinator, "
            "or what mpirun was told.")
      .Range(1, 1024)
      .Auto();
  f.Choice(
      "device", &ResourcesConfig::device, {"auto", "cpu", "gpu"},
      "What a rank computes on. auto: a GPU of its own where the hosts have any, otherwise the "
      "CPU.");
  f.Integer("threads_per_rank", &ResourcesConfig::threads_per_rank,
            "Compute threads of a rank. auto: the host's cores divided by the ranks on it.")
      .Range(1, 1024)
      .Auto();
  f.Number("collective_timeout_seconds", &ResourcesConfig::collective_timeout_seconds,
           "A collective that takes longer ends the attempt and names the ranks that are behind.")
      .Above(0, kLongestSeconds)
      .Unit("seconds");
  return f;
}

Fields<LossConfig> Loss() {
  Fields<LossConfig> f;
  f.Choice("name", &LossConfig::kind,
           {"auto", "cross_entropy", "binary_cross_entropy", "mse", "mae", "huber"},
           "What is made small. auto: cross_entropy for classes, binary_cross_entropy for "
           "csv_multilabel, mse for csv_regression.");
  f.Number("huber_delta", &LossConfig::huber_delta,
           "For huber: the error, in standard deviations of the target, above which the loss "
           "grows linearly.")
      .Above(0, 1e6);
  f.Choice("class_weights", &LossConfig::balance_classes, {"none", "balanced"},
           "balanced: weigh each class by the inverse of its share of the training samples.");
  f.NumberList("weights", &LossConfig::class_weights,
               "A weight for each class, in the order of the classes. Empty: all weigh the same.")
      .Within(0, 1e6)
      .AtMost(100000);
  return f;
}

Fields<EarlyStoppingConfig> EarlyStopping() {
  Fields<EarlyStoppingConfig> f;
  f.Integer("patience", &EarlyStoppingConfig::patience,
            "End the run after so many evaluations in a row without a better "
            "checkpoint.best_metric. 0: never.")
      .Range(0, 1000000)
      .Unit("evaluations");
  f.Number("min_delta", &EarlyStoppingConfig::min_delta, "By how much it must be better to count.")
      .Within(0, 1e9);
  return f;
}

Fields<TrainingConfig> Training() {
  Fields<TrainingConfig> f;
  f.Length("duration", &TrainingConfig::duration, kAnyLength, "How long to train.")
      .Required()
      .Nonzero();
  f.Integer("global_batch_size", &TrainingConfig::global_batch_size,
            "Samples per step over all ranks. Give this or batch_size_per_rank.")
      .Range(1, kMostSamplesPerStep)
      .Auto()
      .Unit("samples");
  f.Integer("batch_size_per_rank", &TrainingConfig::batch_size_per_rank,
            "Samples per step on each rank. Give this or global_batch_size.")
      .Range(1, kMostSamplesPerStep)
      .Auto()
      .Unit("samples");
  f.Integer("micro_batch_size", &TrainingConfig::micro_batch_size,
            "Samples that go through the model at once on a rank; the gradients of several are "
            "accumulated. auto: the rank's whole share.")
      .Range(1, kMostSamplesPerStep)
      .Auto()
      .Unit("samples");
  f.Choice("precision", &TrainingConfig::precision, {"fp32", "bf16", "fp16"},
           "Number format of forward and backward; parameters stay fp32. fp16 scales the loss by "
           "itself and needs a GPU.");
  f.Boolean("tf32", &TrainingConfig::tf32,
            "On a GPU, compute the fp32 products of convolutions and matrices in TF32: faster, "
            "with 10 bits of mantissa.");
  f.Boolean("deterministic", &TrainingConfig::deterministic,
            "On a GPU, use only algorithms that give the same bits on every run on the same GPUs; "
            "slower. CPU ranks always do.");
  f.Choice("cuda_graph", &TrainingConfig::cuda_graph, kUseWords,
           "On a GPU, capture the whole step as one CUDA graph. auto: falls back to single "
           "kernels where it cannot be, and says why.");
  f.Group("loss", &TrainingConfig::loss, Loss(), "What the training makes small.");
  f.Number("label_smoothing", &TrainingConfig::label_smoothing,
           "Share of the target probability that is spread over all classes.")
      .Below(0, 1);
  f.Number("gradient_clip_norm", &TrainingConfig::gradient_clip_norm,
           "Scale the gradient down to this global L2 norm when it is larger. 0: never.")
      .Within(0, 1e9);
  f.Number("ema_decay", &TrainingConfig::ema_decay,
           "Keep an exponential moving average of the weights with this decay per step, and "
           "evaluate it; 0.999 is usual. 0: off.")
      .Below(0, 1);
  f.Group("early_stopping", &TrainingConfig::early_stopping, EarlyStopping(),
          "When to end before the duration is over.");
  f.Length("eval_every", &TrainingConfig::eval_every, kCountedLength,
           "Evaluate on the held-out pictures after each of these. 0s: never.");
  f.Integer("max_nonfinite_steps", &TrainingConfig::max_nonfinite_steps,
            "Skip up to so many steps in a row whose loss or gradient is not finite before the run "
            "fails.")
      .Range(0, 1000000)
      .Unit("steps");
  f.Integer("replica_check_every_steps", &TrainingConfig::replica_check_every_steps,
            "Compare a hash of the replicas after each of these. 0: never.")
      .Range(0, 1000000000)
      .Unit("steps");
  f.Integer("log_every_steps", &TrainingConfig::log_every_steps,
            "Write a row to metrics.jsonl and move the progress line after each of these.")
      .Range(1, 1000000000)
      .Unit("steps");
  f.Boolean("tensorboard", &TrainingConfig::tensorboard,
            "Write event files for TensorBoard into the run directory's folder tensorboard.");
  return f;
}

Fields<OptimizerConfig> Optimizer() {
  Fields<OptimizerConfig> f;
  f.Choice("name", &OptimizerConfig::kind, {"sgd", "adam", "adamw"}, "Which optimizer.");
  f.Number("learning_rate", &OptimizerConfig::learning_rate,
           "Learning rate after the warm-up; the schedule changes it from there.")
      .Above(0, 1e6)
      .DefaultNote("`0.1` (sgd), `0.001` (adam, adamw)");
  f.Number("backbone_ratio", &OptimizerConfig::backbone_ratio,
           "Learning rate of all but the head, as a share of learning_rate.")
      .Above(0, 1e6);
  f.Number("momentum", &OptimizerConfig::momentum, "Momentum of sgd.").Below(0, 1);
  f.Boolean("nesterov", &OptimizerConfig::nesterov, "Nesterov's form of momentum, for sgd.");
  f.Number("beta1", &OptimizerConfig::beta1, "Decay of the gradient's mean, for adam and adamw.")
      .Below(0, 1);
  f.Number("beta2", &OptimizerConfig::beta2, "Decay of the gradient's square, for adam and adamw.")
      .Below(0, 1);
  f.Number("epsilon", &OptimizerConfig::epsilon, "Added to the denominator of adam and adamw.")
      .Above(0, 1);
  f.Number("weight_decay", &OptimizerConfig::weight_decay,
           "Weight decay: L2 in the gradient for sgd and adam, decoupled for adamw.")
      .Within(0, 1e6);
  f.Boolean("decay_norm_and_bias", &OptimizerConfig::decay_norm_and_bias,
            "Weight decay also on the parameters of norms and on biases.");
  return f;
}

Fields<ScheduleConfig> Schedule() {
  Fields<ScheduleConfig> f;
  f.Choice("name", &ScheduleConfig::kind, {"constant", "step", "cosine", "plateau"},
           "How the learning rate changes after the warm-up.");
  f.Length("warmup", &ScheduleConfig::warmup, kCountedLength,
           "Grow the learning rate linearly from 0 over this long.");
  f.Length("step_every", &ScheduleConfig::step_every, kCountedLength,
           "For step: multiply the learning rate by gamma after each of these.")
      .Nonzero();
  f.Number("gamma", &ScheduleConfig::gamma, "For step and plateau: the factor.").Above(0, 1);
  f.Integer("patience", &ScheduleConfig::patience,
            "For plateau: evaluations without a better checkpoint.best_metric before the learning "
            "rate is multiplied by gamma.")
      .Range(1, 1000000)
      .Unit("evaluations");
  f.Number("final_ratio", &ScheduleConfig::final_ratio,
           "For cosine: the last learning rate as a share of the first.")
      .Within(0, 1);
  return f;
}

Fields<CheckpointConfig> Checkpoint() {
  Fields<CheckpointConfig> f;
  f.Length("every", &CheckpointConfig::every, kAnyLength,
           "Save a checkpoint after each of these. 0s: only at the end, on a pause or a stop, and "
           "on request.");
  f.Integer("keep_last", &CheckpointConfig::keep_last, "Keep so many of the newest checkpoints.")
      .Range(1, 10000);
  f.Integer("keep_best", &CheckpointConfig::keep_best,
            "Keep so many of the best checkpoints besides.")
      .Range(0, 10000);
  f.TextChoice(
      "best_metric", &CheckpointConfig::best_metric,
      {"auto", "val_top1", "val_top5", "val_macro_f1", "val_loss", "val_mae", "val_mse", "val_r2"},
      "What best means: the lowest loss or error, the highest of the others. auto: "
      "val_top1 for classes, otherwise val_loss.");
  return f;
}

Fields<StopWhenConfig> StopWhen() {
  Fields<StopWhenConfig> f;
  f.Number("metric_gain_per_cost", &StopWhenConfig::metric_gain_per_cost,
           "Percentage points of checkpoint.best_metric (of a loss or an error: percent of it) "
           "that one unit of the currency must still buy, judged over the last three evaluations. "
           "At 0.5 the run ends when the next 1 % would cost more than 2. 0: off.")
      .Within(0, 1e12);
  return f;
}

Fields<CostConfig> Cost() {
  Fields<CostConfig> f;
  f.Number("max_cost", &CostConfig::max_cost,
           "The run may cost this much, in the coordinator's currency. 0: no limit.")
      .Within(0, 1e12);
  f.Number("max_energy", &CostConfig::max_energy, "The run may use this much energy. 0: no limit.")
      .Within(0, 1e12)
      .Unit("kilowatt hours");
  f.Length("max_time", &CostConfig::max_time, kWallTime,
           "The run may hold its slots for this long. 0s: no limit.");
  f.Choice("at_limit", &CostConfig::at_limit, {"pause", "stop"},
           "What happens at a limit; both save a checkpoint first.");
  f.Group("stop_when", &CostConfig::stop_when, StopWhen(),
          "When more training is not worth its money.");
  return f;
}

Fields<RestartConfig> Restart() {
  Fields<RestartConfig> f;
  f.Integer("max_restarts", &RestartConfig::max_restarts,
            "Crashes in a row without a newer checkpoint before the run fails.")
      .Range(0, 1000000);
  f.Number("backoff_seconds", &RestartConfig::backoff_seconds,
           "Wait before the first restart; doubles with each crash in a row.")
      .Within(0, 86400)
      .Unit("seconds");
  f.Number("max_backoff_seconds", &RestartConfig::max_backoff_seconds,
           "The longest wait before a restart.")
      .Within(0, 86400)
      .Unit("seconds");
  f.Number("stall_timeout_seconds", &RestartConfig::stall_timeout_seconds,
           "A run that makes no step for so long is taken for hung and restarted. 0: the larger "
           "of 60 and 20 times the 99th percentile of a step.")
      .Within(0, kLongestSeconds)
      .Unit("seconds");
  return f;
}

std::vector<Field> Run() {
  Fields<RunConfig> f;
  f.Text("name", &RunConfig::name, "Name of the run, in every list and log.")
      .Pattern("^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$",
               "up to 63 small letters, digits and hyphens, no hyphen first or last")
      .Required();
  f.Integer("seed", &RunConfig::seed,
            "Seeds the weights, the order of the samples, augmentation and dropout.");
  f.Integer("priority", &RunConfig::priority,
            "Queued runs of a higher priority start first; equal ones in the order they came.")
      .Range(-1000, 1000);
  f.Group("resources", &RunConfig::resources, Resources(), "What the run may use.");
  f.Group("data", &RunConfig::data, DataTable(), "What it learns from.");
  f.Group("model", &RunConfig::model, ModelTable(), "What is trained.");
  f.Group("training", &RunConfig::training, Training(), "How long and in which portions.");
  f.Group("optimizer", &RunConfig::optimizer, Optimizer(), "How the parameters are updated.");
  f.Group("schedule", &RunConfig::schedule, Schedule(), "How the learning rate changes.");
  f.Group("checkpoint", &RunConfig::checkpoint, Checkpoint(), "What is saved and kept.");
  f.Group("cost", &RunConfig::cost, Cost(),
          "Limits in money, energy and time. The coordinator keeps them.");
  f.Group("restart", &RunConfig::restart, Restart(),
          "What the coordinator does when the run crashes or hangs.");
  return std::move(f).Take();
}

}  // namespace

const Table& RunTable() {
  static const Table table{.title = "Lockstep run", .fields = Run()};
  return table;
}

}  // namespace lockstep::config
