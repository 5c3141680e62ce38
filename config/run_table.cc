// The table of run.yaml: every key with its type, unit, range and meaning. To add a key, add the
// member to run_config.h and its row here; loading, run.yaml, the JSON schema and the reference
// follow. Rules between keys are in validate.cc.
#include "config/field.h"
#include "config/run_config.h"

namespace lockstep::config {
namespace {

constexpr int kMostPixels = 4096;
constexpr int64_t kMostSamplesPerStep = 1 << 24;
constexpr double kLongestSeconds = 30 * 86400;  // A month: longer is a mistake.

const std::vector<Duration::Unit> kAnyLength = {Duration::Unit::kEpochs, Duration::Unit::kSteps,
                                                Duration::Unit::kSeconds};
// What must fall on the same step in every repetition of a run cannot depend on the clock.
const std::vector<Duration::Unit> kCountedLength = {Duration::Unit::kEpochs,
                                                    Duration::Unit::kSteps};
const std::vector<Duration::Unit> kWallTime = {Duration::Unit::kSeconds};

const std::vector<std::string> kUse = {"auto", "always", "never"};

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

Fields<AugmentConfig> Augment() {
  Fields<AugmentConfig> f;
  f.Choice("flip", &AugmentConfig::horizontal_flip, {"none", "horizontal"},
           "Mirror a training picture left to right with probability one half.");
  f.Integer("crop_padding", &AugmentConfig::crop_padding,
            "Pad a training picture by this much on each side and crop it back at a random place.")
      .Range(0, kMostPixels)
      .Unit("pixels");
  return f;
}

Fields<DataConfig> Data() {
  Fields<DataConfig> f;
  f.Choice("kind", &DataConfig::kind, {"shapes", "cifar10", "cifar100", "image_folder"},
           "What the data set is: shapes are drawn by the program and need no files; image_folder "
           "reads train/CLASS/*.jpg or *.png and test/ or val/ likewise.");
  f.Text("path", &DataConfig::path,
         "Folder of the data set: the .bin files of cifar10 and cifar100, or train/ and test/ of "
         "image_folder.");
  f.Integer("image_size", &DataConfig::image_size,
            "Pictures are resized to a square of this size. auto: the data set's own size.")
      .Range(1, kMostPixels)
      .Auto()
      .Unit("pixels");
  f.Integer("train_samples", &DataConfig::train_samples,
            "Train on so many pictures: generated ones (shapes) or the first of the seeded order. "
            "auto: all of them (shapes: 8000).")
      .Range(1, 1 << 30)
      .Auto()
      .Unit("samples");
  f.Integer("eval_samples", &DataConfig::eval_samples,
            "Evaluate on so many held-out pictures. auto: all of them (shapes: 2000).")
      .Range(1, 1 << 30)
      .Auto()
      .Unit("samples");
  f.Integer("prefetch_threads", &DataConfig::prefetch_threads, "Loader threads of a rank.")
      .Range(1, 64);
  f.Integer("prefetch_batches", &DataConfig::prefetch_batches, "Batches that a rank keeps ready.")
      .Range(1, 64);
  f.Choice("resident", &DataConfig::resident, kUse,
           "Keep all training pictures in GPU memory and augment them there. auto: where they fit "
           "into a quarter of what is free. Pictures and bits are the same either way.");
  f.NumberList("mean", &DataConfig::mean,
               "Mean of red, green and blue on the 0 to 1 scale, subtracted from every pixel. "
               "Empty: the data set's preset.")
      .Within(0, 1)
      .AtMost(3);
  f.NumberList("std", &DataConfig::std,
               "Standard deviation of red, green and blue, every pixel is divided by it. Empty: "
               "the data set's preset.")
      .Above(0, 1)
      .AtMost(3);
  f.Group("augment", &DataConfig::augment, Augment(),
          "Random changes to training pictures; the same ones in every repetition of a run.");
  return f;
}

Fields<ConvBlockConfig> ConvBlock() {
  Fields<ConvBlockConfig> f;
  f.Integer("filters", &ConvBlockConfig::filters, "Output channels of the convolution.")
      .Range(1, 8192);
  f.Integer("kernel", &ConvBlockConfig::kernel, "Height and width of the convolution's kernel.")
      .Range(1, 31)
      .Unit("pixels");
  f.Integer("stride", &ConvBlockConfig::stride, "Step of the convolution.")
      .Range(1, 31)
      .Unit("pixels");
  f.Integer("padding", &ConvBlockConfig::padding,
            "Zeros around the picture before the convolution. auto: kernel / 2, which keeps the "
            "size at stride 1.")
      .Range(0, 31)
      .Auto(-1)
      .Unit("pixels");
  f.Choice("pool", &ConvBlockConfig::pool, {"none", "max", "average"},
           "2x2 pool with stride 2 after the activation.");
  f.Boolean("batch_norm", &ConvBlockConfig::batch_norm,
            "Batch norm between the convolution and the activation.");
  f.Number("dropout", &ConvBlockConfig::dropout, "Probability of dropout after the pool.")
      .Below(0, 1);
  return f;
}

Fields<CnnConfig> Cnn() {
  Fields<CnnConfig> f;
  f.GroupList("blocks", &CnnConfig::blocks, ConvBlock(),
              "Convolution blocks, first to last. Empty: the picture goes straight to the dense "
              "layers.")
      .AtMost(64);
  f.Boolean("global_pool", &CnnConfig::global_pool,
            "Average over height and width before the dense layers.");
  f.IntegerList("dense", &CnnConfig::dense,
                "Sizes of the hidden dense layers before the classifier.")
      .Range(1, 1 << 16)
      .AtMost(16);
  f.Number("dropout", &CnnConfig::dropout,
           "Probability of dropout before each dense layer and before the classifier.")
      .Below(0, 1);
  f.Choice("activation", &CnnConfig::activation, {"relu", "leaky_relu", "gelu", "silu", "tanh"},
           "Activation after each convolution and each hidden dense layer.");
  return f;
}

Fields<ModelConfig> Model() {
  Fields<ModelConfig> f;
  f.TextChoice("name", &ModelConfig::name, {"cnn", "resnet18"},
               "Which model: cnn is composed from the keys below model.cnn.");
  f.Integer("num_classes", &ModelConfig::num_classes,
            "Outputs of the classifier. auto: the data set's classes.")
      .Range(2, 1 << 20)
      .Auto();
  f.TextChoice("stem", &ModelConfig::stem, {"auto", "imagenet", "cifar"},
               "First layer of a resnet: imagenet (7x7, stride 2, max pool) or cifar (3x3). auto: "
               "cifar for pictures up to 64 pixels.");
  f.Boolean("sync_batch_norm", &ModelConfig::sync_batch_norm,
            "Batch norm over the samples that all ranks put through the model at once, instead of "
            "each rank over its own.");
  f.Group("cnn", &ModelConfig::cnn, Cnn(), "Layers of the model named cnn.");
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
  f.Choice("cuda_graph", &TrainingConfig::cuda_graph, kUse,
           "On a GPU, capture the whole step as one CUDA graph. auto: falls back to single "
           "kernels where it cannot be, and says why.");
  f.Number("label_smoothing", &TrainingConfig::label_smoothing,
           "Share of the target probability that is spread over all classes.")
      .Below(0, 1);
  f.Number("gradient_clip_norm", &TrainingConfig::gradient_clip_norm,
           "Scale the gradient down to this global L2 norm when it is larger. 0: never.")
      .Within(0, 1e9);
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
  return f;
}

Fields<OptimizerConfig> Optimizer() {
  Fields<OptimizerConfig> f;
  f.Choice("name", &OptimizerConfig::kind, {"sgd", "adam", "adamw"}, "Which optimizer.");
  f.Number("learning_rate", &OptimizerConfig::learning_rate,
           "Learning rate after the warm-up; the schedule changes it from there.")
      .Above(0, 1e6)
      .DefaultNote("`0.1` (sgd), `0.001` (adam, adamw)");
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
  f.Choice("name", &ScheduleConfig::kind, {"constant", "step", "cosine"},
           "How the learning rate changes after the warm-up.");
  f.Length("warmup", &ScheduleConfig::warmup, kCountedLength,
           "Grow the learning rate linearly from 0 over this long.");
  f.Length("step_every", &ScheduleConfig::step_every, kCountedLength,
           "For step: multiply the learning rate by gamma after each of these.")
      .Nonzero();
  f.Number("gamma", &ScheduleConfig::gamma, "For step: the factor.").Above(0, 1);
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
  f.TextChoice("best_metric", &CheckpointConfig::best_metric, {"val_top1", "val_loss"},
               "What best means: the highest val_top1 or the lowest val_loss.");
  return f;
}

Fields<CostConfig> Cost() {
  Fields<CostConfig> f;
  f.Number("max_cost", &CostConfig::max_cost,
           "Stop the run when it has cost this much, in the coordinator's currency. 0: no limit.")
      .Within(0, 1e12);
  f.Length("max_time", &CostConfig::max_time, kWallTime,
           "Stop the run after this much wall time. 0s: no limit.");
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
  f.Group("data", &RunConfig::data, Data(), "What it learns from.");
  f.Group("model", &RunConfig::model, Model(), "What is trained.");
  f.Group("training", &RunConfig::training, Training(), "How long and in which portions.");
  f.Group("optimizer", &RunConfig::optimizer, Optimizer(), "How the parameters are updated.");
  f.Group("schedule", &RunConfig::schedule, Schedule(), "How the learning rate changes.");
  f.Group("checkpoint", &RunConfig::checkpoint, Checkpoint(), "What is saved and kept.");
  f.Group("cost", &RunConfig::cost, Cost(), "Limits in money and time.");
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
