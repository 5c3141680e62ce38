// What a run is told to do: the plain structs behind run.yaml.
//
// A RunConfig is a value. It is made by LoadRunConfig() (config/load.h), which fills every default,
// so a loaded config is complete: `auto` is the only thing left open, and Resolve() closes it once
// the world size and the machine are known. Units stand in the field names. No field is read from
// anywhere but here.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "config/duration.h"

namespace lockstep::config {

enum class DeviceChoice { kAuto, kCpu, kGpu };

// What is worth doing where it can be done.
enum class Use { kAuto, kAlways, kNever };

struct ResourcesConfig {
  int ranks = 0;                              // World size; 0 = auto: all free slots.
  DeviceChoice device = DeviceChoice::kAuto;  // auto: a GPU for each rank where hosts have any.
  int threads_per_rank =
      0;  // Intra-op threads; 0 = auto: cores of the host / ranks on it, at least 1.
  double collective_timeout_seconds =
      1800;  // A collective that takes longer ends the attempt, naming the ranks.

  bool operator==(const ResourcesConfig&) const = default;
};

enum class DatasetKind { kShapes, kCifar10, kCifar100, kImageFolder };

struct AugmentConfig {
  bool horizontal_flip = false;  // `flip: horizontal`; probability one half.
  int crop_padding =
      0;  // Zero-pad by this many pixels on each side, then crop back at random. Pixels.

  bool operator==(const AugmentConfig&) const = default;
};

struct DataConfig {
  DatasetKind kind = DatasetKind::kShapes;
  std::string
      path;  // Folder (cifar10, cifar100: the .bin files; image_folder: train/ and test/ or val/).
  int image_size = 0;  // Square size pictures are resized to; 0 = auto: the data set's own. Pixels.
  int train_samples =
      0;  // shapes: pictures to generate. Others: first N of the seeded order; 0 = all.
  int eval_samples = 0;       // Likewise for the held-out pictures.
  int prefetch_threads = 1;   // Loader threads per rank.
  int prefetch_batches = 4;   // Batches kept ready per rank.
  Use resident = Use::kAuto;  // Whole data set in GPU memory. auto: where it fits.
  std::vector<double> mean;   // Per channel, on the 0–1 scale; empty = the data set's preset.
  std::vector<double> std;    // Likewise.
  AugmentConfig augment;

  bool operator==(const DataConfig&) const = default;
};

enum class Pool { kNone, kMax, kAverage };
enum class Activation { kRelu, kLeakyRelu, kGelu, kSilu, kTanh };

struct ConvBlockConfig {
  int filters = 32;
  int kernel = 3;
  int stride = 1;
  int padding = -1;         // Pixels; -1 = auto: keeps the size at stride 1 (kernel / 2).
  Pool pool = Pool::kNone;  // After the activation, 2x2 with stride 2.
  bool batch_norm = true;
  double dropout = 0.0;  // Probability, after the pool.

  bool operator==(const ConvBlockConfig&) const = default;
};

struct CnnConfig {
  std::vector<ConvBlockConfig> blocks;
  bool global_pool = false;  // Average over height and width before the dense layers.
  std::vector<int> dense;    // Hidden sizes before the classifier.
  double dropout = 0.0;      // Probability, before each dense layer and the classifier.
  Activation activation = Activation::kRelu;

  bool operator==(const CnnConfig&) const = default;
};

struct ModelConfig {
  std::string name = "cnn";   // "cnn" or "resnet18".
  int num_classes = 0;        // 0 = auto: the data set's.
  std::string stem = "auto";  // resnet: "imagenet" (7x7 stride 2, max pool), "cifar" (3x3), auto by
                              // image size (<= 64: cifar).
  bool sync_batch_norm = false;  // Batch norm over the step's samples of all ranks.
  CnnConfig cnn;                 // Used when name is "cnn".

  bool operator==(const ModelConfig&) const = default;
};

enum class Precision { kFp32, kBf16, kFp16 };

struct TrainingConfig {
  Duration duration;                // `30ep`, `5000st`, `2h`.
  int64_t global_batch_size = 0;    // Samples per step over all ranks; exactly one of this
  int64_t batch_size_per_rank = 0;  //   and this is given (the other is 0 until resolved).
  int64_t micro_batch_size =
      0;  // Samples through the model at once on a rank; 0 = auto: the rank's whole share.
  Precision precision = Precision::kFp32;
  bool tf32 = true;             // GPU: fp32 products of convolutions and matrices in TF32.
  bool deterministic = false;   // GPU: the same bits on every run on the same GPUs.
  Use cuda_graph = Use::kAuto;  // GPU: the whole step as one CUDA graph.
  double label_smoothing = 0.0;
  double gradient_clip_norm = 0.0;  // Global L2 norm; 0 = off.
  Duration eval_every = Duration::Epochs(1);
  int max_nonfinite_steps =
      0;  // Skipped non-finite steps in a row that are tolerated before the run fails.
  int64_t replica_check_every_steps = 100;  // 0 = off.
  int64_t log_every_steps = 10;             // metrics.jsonl step rows and the progress line.

  bool operator==(const TrainingConfig&) const = default;
};

enum class OptimizerKind { kSgd, kAdam, kAdamW };

struct OptimizerConfig {
  OptimizerKind kind = OptimizerKind::kSgd;  // `name:` in YAML.
  double learning_rate = 0.1;
  double momentum = 0.9;  // sgd
  bool nesterov = false;  // sgd
  double beta1 = 0.9;     // adam, adamw
  double beta2 = 0.999;   // adam, adamw
  double epsilon = 1e-8;  // adam, adamw
  double weight_decay = 0.0;
  bool decay_norm_and_bias = false;  // Weight decay also on one-dimensional parameters.

  bool operator==(const OptimizerConfig&) const = default;
};

enum class ScheduleKind { kConstant, kStep, kCosine };

struct ScheduleConfig {
  ScheduleKind kind = ScheduleKind::kConstant;  // `name:` in YAML.
  Duration warmup;                              // Linear from 0; zero length = none.
  Duration step_every = Duration::Epochs(30);   // step: multiply by `gamma` after each of these.
  double gamma = 0.1;                           // step
  double final_ratio = 0.0;  // cosine: the last learning rate as a share of the first.

  bool operator==(const ScheduleConfig&) const = default;
};

struct CheckpointConfig {
  Duration every = Duration::Epochs(1);
  int keep_last = 2;
  int keep_best = 1;
  std::string best_metric =
      "val_top1";  // "val_top1" (higher is better) or "val_loss" (lower is better).

  bool operator==(const CheckpointConfig&) const = default;
};

struct CostConfig {
  double max_cost = 0.0;  // In the daemon's currency; 0 = no limit.
  Duration max_time;      // Wall time; zero = no limit.

  bool operator==(const CostConfig&) const = default;
};

struct RestartConfig {
  int max_restarts = 3;  // Crashes in a row without a newer checkpoint before the run fails.
  double backoff_seconds = 1.0;  // Doubles with each crash in a row.
  double max_backoff_seconds = 60.0;
  double stall_timeout_seconds =
      0;  // No step for so long = stalled; 0 = auto: max(60 s, 20 x the p99 step).

  bool operator==(const RestartConfig&) const = default;
};

struct RunConfig {
  std::string name;  // [a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?
  uint64_t seed = 42;
  int priority = 0;  // Higher runs first; equal ones in order of submission.
  ResourcesConfig resources;
  DataConfig data;
  ModelConfig model;
  TrainingConfig training;
  OptimizerConfig optimizer;
  ScheduleConfig schedule;
  CheckpointConfig checkpoint;
  CostConfig cost;
  RestartConfig restart;

  bool operator==(const RunConfig&) const = default;
};

}  // namespace lockstep::config
