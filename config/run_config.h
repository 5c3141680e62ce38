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
#include "config/price.h"

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

enum class DatasetKind {
  kShapes,
  kCifar10,
  kCifar100,
  kImageFolder,
  kCsvRegression,
  kCsvMultilabel,
  kTarShards
};

// Each a largest relative change, 0 = off; hue: a largest turn of the colour circle.
struct ColorJitterConfig {
  double brightness = 0;
  double contrast = 0;
  double saturation = 0;
  double hue = 0;

  bool operator==(const ColorJitterConfig&) const = default;
};

struct AugmentConfig {
  bool horizontal_flip = false;  // `flip: horizontal`; probability one half.
  int crop_padding =
      0;  // Zero-pad by this many pixels on each side, then crop back at random. Pixels.
  double resized_crop = 0;      // Smallest share of the area that a random crop keeps; 0 = off.
  double rotation_degrees = 0;  // Turn by a random angle up to this, either way.
  ColorJitterConfig color_jitter = {};
  double random_erasing = 0;  // Probability of blanking a random rectangle.
  double mixup = 0;           // Alpha of the beta distribution; 0 = off.
  double cutmix = 0;          // Likewise.

  bool operator==(const AugmentConfig&) const = default;
};

// A name for how pictures become tensors: size, resize rule, mean, std, channel order.
enum class Preset { kAuto, kImageNet, kInception, kVgg16Keras, kCifar, kPlain };
enum class ResizeRule { kAuto, kCrop, kStretch };
enum class ChannelOrder { kAuto, kRgb, kBgr };
enum class OnBadSample { kFail, kSkip };
enum class PictureCacheKind { kAuto, kMemory, kDisk, kNever };

struct DataConfig {
  DatasetKind kind = DatasetKind::kShapes;
  std::string path;           // Folder, CSV file or folder of tar files.
  std::vector<double> split;  // Shares of training, held-out and test samples; empty = as given.
  std::string path_column = "path";  // csv_*: the column with the picture's path.
  std::vector<std::string> targets;  // csv_*: the columns to learn; empty = all others.
  Preset preset = Preset::kAuto;     // auto: the data set's own, or the pretrained model's.
  int image_size = 0;                // Square size the model sees; 0 = auto: the preset's. Pixels.
  ResizeRule resize = ResizeRule::kAuto;  // crop: keep the shape and cut the centre; or stretch.
  int shorter_side = 0;  // crop: the shorter side before the crop; 0 = auto: the preset's. Pixels.
  ChannelOrder channel_order = ChannelOrder::kAuto;
  int train_samples =
      0;  // shapes: pictures to generate. Others: first N of the seeded order; 0 = all.
  int eval_samples = 0;       // Likewise for the held-out pictures.
  int prefetch_threads = 1;   // Loader threads per rank.
  int prefetch_batches = 4;   // Batches kept ready per rank.
  Use resident = Use::kAuto;  // Whole data set in GPU memory. auto: where it fits.
  OnBadSample on_bad_sample = OnBadSample::kFail;
  PictureCacheKind cache = PictureCacheKind::kAuto;  // Decoded and resized pictures.
  std::string cache_folder;  // Of the caches on disk (pictures, features); empty = the user's.
  std::vector<double> mean;  // Per channel, on the 0–1 scale; empty = the data set's preset.
  std::vector<double> std;   // Likewise.
  AugmentConfig augment;

  bool operator==(const DataConfig&) const = default;
};

enum class Pool { kNone, kMax, kAverage };
enum class Activation { kRelu, kLeakyRelu, kGelu, kSilu, kTanh };

enum class BlockActivation { kAuto, kRelu, kLeakyRelu, kGelu, kSilu, kTanh, kNone };

struct ConvBlockConfig {
  int filters = 32;
  int kernel = 3;
  int stride = 1;
  int padding = -1;         // Pixels; -1 = auto: keeps the size at stride 1 (kernel / 2).
  Pool pool = Pool::kNone;  // After the activation.
  int pool_size = 2;        // Height, width and stride of the pool. Pixels.
  bool batch_norm = true;
  BlockActivation activation = BlockActivation::kAuto;  // auto: the cnn's.
  double dropout = 0.0;                                 // Probability, after the pool.

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

// A head of one's own in place of the model's: the trunk's features averaged over the picture,
// hidden dense layers, the classifier.
struct HeadConfig {
  bool replace = false;    // `kind: dense`; false (`kind: own`) = the model's own.
  std::vector<int> dense;  // Hidden sizes before the classifier.
  double dropout = 0;      // Probability, before each dense layer and the classifier.

  bool operator==(const HeadConfig&) const = default;
};

struct ModelConfig {
  std::string name = "cnn";   // A row of the table in trainer/models/zoo.cc.
  int num_classes = 0;        // Outputs; 0 = auto: the data set's classes or targets.
  std::string stem = "auto";  // resnet: "imagenet" (7x7 stride 2, max pool), "cifar" (3x3), auto by
                              // image size (<= 64: cifar).
  bool sync_batch_norm = false;  // Batch norm over the step's samples of all ranks.
  CnnConfig cnn;                 // Used when name is "cnn".
  HeadConfig head;
  double auxiliary_loss_weight = 0.4;  // inception_v3: of its auxiliary head; 0 = without it.
  std::string pretrained;              // File of weights, or a name from the daemon's table.
  std::string freeze = "none";         // "none", "backbone" or "N layers", first ones first.
  Duration unfreeze_after;             // Train everything from here on; zero = never.
  Use feature_cache = Use::kAuto;      // Run the frozen trunk once over the data.
  int feature_views = 1;               // Augmented variants of each picture in the cache.

  bool operator==(const ModelConfig&) const = default;
};

enum class Precision { kFp32, kBf16, kFp16 };

enum class LossKind { kAuto, kCrossEntropy, kBinaryCrossEntropy, kMse, kMae, kHuber };

struct LossConfig {
  LossKind kind = LossKind::kAuto;    // `name:` in YAML. auto: by the kind of data.
  double huber_delta = 1.0;           // Where Huber's loss turns linear; in standard deviations.
  bool balance_classes = false;       // `class_weights: balanced`: weigh by 1 / frequency.
  std::vector<double> class_weights;  // `weights:`; one per class, in the order of the classes.

  bool operator==(const LossConfig&) const = default;
};

struct EarlyStoppingConfig {
  int patience = 0;      // Evaluations without a better best_metric; 0 = off.
  double min_delta = 0;  // What counts as better.

  bool operator==(const EarlyStoppingConfig&) const = default;
};

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
  LossConfig loss;
  double label_smoothing = 0.0;
  double gradient_clip_norm = 0.0;  // Global L2 norm; 0 = off.
  double ema_decay = 0.0;           // Average of the weights, used by evaluation; 0 = off.
  EarlyStoppingConfig early_stopping;
  Duration eval_every = Duration::Epochs(1);
  int max_nonfinite_steps =
      0;  // Skipped non-finite steps in a row that are tolerated before the run fails.
  int64_t replica_check_every_steps = 100;  // 0 = off.
  int64_t log_every_steps = 10;             // metrics.jsonl step rows and the progress line.
  bool tensorboard = true;                  // Event files in the run directory.

  bool operator==(const TrainingConfig&) const = default;
};

enum class OptimizerKind { kSgd, kAdam, kAdamW };

struct OptimizerConfig {
  OptimizerKind kind = OptimizerKind::kSgd;  // `name:` in YAML.
  double learning_rate = 0.1;
  double backbone_ratio = 1.0;  // Learning rate of the trunk as a share of the head's.
  double momentum = 0.9;        // sgd
  bool nesterov = false;        // sgd
  double beta1 = 0.9;           // adam, adamw
  double beta2 = 0.999;         // adam, adamw
  double epsilon = 1e-8;        // adam, adamw
  double weight_decay = 0.0;
  bool decay_norm_and_bias = false;  // Weight decay also on one-dimensional parameters.

  bool operator==(const OptimizerConfig&) const = default;
};

enum class ScheduleKind { kConstant, kStep, kCosine, kPlateau };

struct ScheduleConfig {
  ScheduleKind kind = ScheduleKind::kConstant;  // `name:` in YAML.
  Duration warmup;                              // Linear from 0; zero length = none.
  Duration step_every = Duration::Epochs(30);   // step: multiply by `gamma` after each of these.
  double gamma = 0.1;                           // step, plateau
  int patience = 5;  // plateau: evaluations without a better best_metric before gamma applies.
  double final_ratio = 0.0;  // cosine: the last learning rate as a share of the first.

  bool operator==(const ScheduleConfig&) const = default;
};

struct CheckpointConfig {
  Duration every = Duration::Epochs(1);
  int keep_last = 2;
  int keep_best = 1;
  std::string best_metric = "auto";  // auto: val_top1 where there are classes, else val_loss.

  bool operator==(const CheckpointConfig&) const = default;
};

struct StopWhenConfig {
  // Percentage points of the best metric (of an error or a loss: percent of it) that a unit of the
  // currency must still buy, over the last three evaluations; 0 = off.
  double metric_gain_per_cost = 0;

  bool operator==(const StopWhenConfig&) const = default;
};

struct CostConfig {
  double max_cost = 0.0;    // In the daemon's currency; 0 = no limit.
  double max_energy = 0.0;  // Kilowatt hours; 0 = no limit.
  Duration max_time;        // Wall time; zero = no limit.
  LimitAction at_limit = LimitAction::kPause;
  StopWhenConfig stop_when;

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
