#include "config/validate.h"

#include <initializer_list>
#include <set>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"

namespace lockstep::config {
namespace {

class Rules {
 public:
  Rules(const KeyPlaces& places, Problems& problems) : places_(places), problems_(problems) {}

  /// Reports at the first of `paths` when `wrong`, unless one of the keys involved was refused
  /// already: its value is a default that nobody wrote.
  void Refuse(bool wrong, std::initializer_list<std::string> paths, const std::string& message,
              const std::string& hint) {
    if (!wrong) return;
    for (const std::string& path : paths) {
      if (!places_.Good(path)) return;
    }
    problems_.Add(places_.PlaceOf(*paths.begin()), *paths.begin(), message, hint);
  }
  /// A key that another one switches off. The default passes: a resolved config names every key.
  void RefuseUnused(bool unused, bool is_default, const std::string& path, const std::string& owner,
                    const std::string& only_for) {
    Refuse(unused && !is_default, {path, owner},
           absl::StrCat("has no effect when ", owner, " is not ", only_for), "remove it");
  }
  bool Given(const std::string& path) const { return places_.Given(path); }

 private:
  const KeyPlaces& places_;
  Problems& problems_;
};

bool IsTable(DatasetKind kind) {
  return kind == DatasetKind::kCsvRegression || kind == DatasetKind::kCsvMultilabel;
}

// Pictures in files of their own or in archives, of any size and in any state.
bool HasPictureFiles(DatasetKind kind) {
  return IsTable(kind) || kind == DatasetKind::kImageFolder || kind == DatasetKind::kTarShards;
}

void CheckSource(const DataConfig& data, Rules& rules) {
  const DataConfig defaults;
  const bool generated = data.kind == DatasetKind::kShapes;
  rules.Refuse(!generated && data.path.empty(), {"data.path", "data.kind"}, "missing",
               IsTable(data.kind) ? "expected the CSV file"
                                  : "expected the data set's folder: only shapes needs none");
  rules.Refuse(generated && !data.path.empty(), {"data.path", "data.kind"},
               "shapes are generated and have no path",
               "remove it, or set data.kind to what the path holds");
  rules.RefuseUnused(!HasPictureFiles(data.kind), data.split.empty(), "data.split", "data.kind",
                     "image_folder, csv_regression, csv_multilabel or tar_shards");
  rules.Refuse(data.split.size() == 1, {"data.split"}, "has one number",
               "expected the shares of training and held-out pictures, like [80, 20], or of "
               "training, held-out and test pictures");
  rules.RefuseUnused(!HasPictureFiles(data.kind), data.on_bad_sample == defaults.on_bad_sample,
                     "data.on_bad_sample", "data.kind",
                     "image_folder, csv_regression, csv_multilabel or tar_shards");
  rules.RefuseUnused(!HasPictureFiles(data.kind), data.cache == defaults.cache, "data.cache",
                     "data.kind", "image_folder, csv_regression, csv_multilabel or tar_shards");
}

void CheckTable(const DataConfig& data, Rules& rules) {
  const bool table = IsTable(data.kind);
  rules.RefuseUnused(!table, data.path_column == DataConfig().path_column, "data.path_column",
                     "data.kind", "csv_regression or csv_multilabel");
  rules.RefuseUnused(!table, data.targets.empty(), "data.targets", "data.kind",
                     "csv_regression or csv_multilabel");
  rules.Refuse(table && data.path_column.empty(), {"data.path_column"}, "is empty",
               "expected the name of the column with the pictures' paths");
  std::set<std::string> seen;
  for (const std::string& target : data.targets) {
    rules.Refuse(table && target == data.path_column, {"data.targets", "data.path_column"},
                 absl::StrCat("names '", target, "', the column with the pictures' paths"),
                 "expected columns of numbers");
    rules.Refuse(!seen.insert(target).second, {"data.targets"},
                 absl::StrCat("names '", target, "' twice"), "remove one of them");
  }
}

void CheckPreprocessing(const DataConfig& data, Rules& rules) {
  rules.Refuse(!data.mean.empty() && data.mean.size() != 3, {"data.mean"},
               absl::StrCat("has ", data.mean.size(), " numbers"),
               "expected three: red, green and blue");
  rules.Refuse(!data.std.empty() && data.std.size() != 3, {"data.std"},
               absl::StrCat("has ", data.std.size(), " numbers"),
               "expected three: red, green and blue");
  const bool only_mean = !data.mean.empty() && data.std.empty();
  const bool only_std = data.mean.empty() && !data.std.empty();
  rules.Refuse(only_mean, {"data.mean", "data.std"}, "given without data.std",
               "give both or neither");
  rules.Refuse(only_std, {"data.std", "data.mean"}, "given without data.mean",
               "give both or neither");
  rules.Refuse(!data.mean.empty() && data.preset != Preset::kAuto, {"data.mean", "data.preset"},
               "contradicts data.preset, which has a mean and a std of its own",
               "remove data.mean and data.std, or data.preset");
  rules.Refuse(data.resize == ResizeRule::kStretch && data.shorter_side != 0,
               {"data.shorter_side", "data.resize"}, "has no effect when data.resize is stretch",
               "remove it");
  rules.Refuse(
      data.shorter_side != 0 && data.shorter_side < data.image_size,
      {"data.shorter_side", "data.image_size"},
      absl::StrCat(data.shorter_side, " pixels leave nothing to cut ", data.image_size, " out of"),
      absl::StrCat("expected at least image_size, which is ", data.image_size));
}

void CheckAugment(const DataConfig& data, Rules& rules) {
  rules.Refuse(data.image_size > 0 && data.augment.crop_padding >= data.image_size,
               {"data.augment.crop_padding", "data.image_size"},
               "a picture cannot be padded by its own size",
               absl::StrCat("expected less than image_size, which is ", data.image_size));
  rules.Refuse(data.augment.crop_padding > 0 && data.augment.resized_crop > 0,
               {"data.augment.crop_padding", "data.augment.resized_crop"},
               "contradicts data.augment.resized_crop: both crop at random",
               "crop_padding is for small pictures, resized_crop for large ones; remove one");
}

void CheckData(const DataConfig& data, Rules& rules) {
  CheckSource(data, rules);
  CheckTable(data, rules);
  CheckPreprocessing(data, rules);
  CheckAugment(data, rules);
}

// Height and width of every picture, where the config alone tells; else 0.
int KnownImageSize(const DataConfig& data) {
  constexpr int kCifarSize = 32;
  const bool cifar = data.kind == DatasetKind::kCifar10 || data.kind == DatasetKind::kCifar100;
  return data.image_size > 0 ? data.image_size : (cifar ? kCifarSize : 0);
}

// The blocks must leave at least one pixel: the sizes are those of convolution and pooling.
void CheckBlocks(const std::vector<ConvBlockConfig>& blocks, int image_size, Rules& rules) {
  int size = image_size;
  for (size_t i = 0; i < blocks.size(); ++i) {
    const ConvBlockConfig& block = blocks[i];
    const int padding = block.padding < 0 ? block.kernel / 2 : block.padding;
    const int room = size + 2 * padding - block.kernel;
    const int after_conv = room < 0 ? 0 : room / block.stride + 1;
    const int after = block.pool == Pool::kNone ? after_conv : after_conv / block.pool_size;
    rules.Refuse(
        after < 1,
        {absl::StrCat("model.cnn.blocks[", i, "]"), "data.image_size", "data.kind", "model.name",
         "model.cnn.blocks"},
        absl::StrCat("leaves nothing of the ", size, "x", size, " pixels that reach this block"),
        "use fewer pools or strides, a smaller kernel, or a larger data.image_size");
    if (after < 1) return;
    size = after;
  }
}

// What each network's strides and pools divide a picture by, where the config alone tells its size.
void CheckSmallestPicture(const ModelConfig& model, int image_size, Rules& rules) {
  int smallest = 0;
  std::string otherwise = "use a larger data.image_size";
  if (model.name.starts_with("vgg") || model.name == "mobilenet_v2") smallest = 32;
  if (model.name.starts_with("resnet")) {
    const bool large = model.stem == "imagenet" || (model.stem == "auto" && image_size > 64);
    smallest = large ? 32 : 8;
  }
  if (model.name == "inception_v3") {
    const bool auxiliary = model.auxiliary_loss_weight > 0;
    smallest = auxiliary ? 299 : 75;
    if (auxiliary) otherwise += ", or model.auxiliary_loss_weight: 0 (75 pixels)";
  }
  rules.Refuse(
      image_size > 0 && image_size < smallest,
      {"data.image_size", "model.name", "model.stem", "model.auxiliary_loss_weight", "data.kind"},
      absl::StrCat(model.name, " cannot take pictures of ", image_size, " pixels; it needs ",
                   smallest),
      otherwise);
}

void CheckHead(const ModelConfig& model, Rules& rules) {
  const HeadConfig defaults;
  rules.Refuse(model.name == "cnn" && model.head.replace, {"model.head.kind", "model.name"},
               "a cnn's dense layers are its own", "set model.cnn.dense instead");
  rules.RefuseUnused(!model.head.replace, model.head.dense == defaults.dense, "model.head.dense",
                     "model.head.kind", "dense");
  rules.RefuseUnused(!model.head.replace, model.head.dropout == defaults.dropout,
                     "model.head.dropout", "model.head.kind", "dense");
  rules.RefuseUnused(model.name != "inception_v3",
                     model.auxiliary_loss_weight == ModelConfig().auxiliary_loss_weight ||
                         model.auxiliary_loss_weight == 0,
                     "model.auxiliary_loss_weight", "model.name", "inception_v3");
}

void CheckModel(const RunConfig& config, Rules& rules) {
  const ModelConfig& model = config.model;
  const bool is_cnn = model.name == "cnn";
  rules.RefuseUnused(!is_cnn, model.cnn == CnnConfig(), "model.cnn", "model.name", "cnn");
  const bool is_resnet = model.name.starts_with("resnet");
  rules.RefuseUnused(!is_resnet, model.stem == "auto", "model.stem", "model.name", "a resnet");
  int classes = 0;
  if (config.data.kind == DatasetKind::kCifar10) classes = 10;
  if (config.data.kind == DatasetKind::kCifar100) classes = 100;
  rules.Refuse(
      model.num_classes != 0 && model.num_classes < classes, {"model.num_classes", "data.kind"},
      absl::StrCat(model.num_classes, " is fewer than the data set's ", classes, " classes"),
      absl::StrCat("expected at least ", classes, ", or auto"));
  const int image_size = KnownImageSize(config.data);
  if (is_cnn && image_size > 0) CheckBlocks(model.cnn.blocks, image_size, rules);
  CheckSmallestPicture(model, image_size, rules);
  CheckHead(model, rules);
}

void CheckBatchSizes(const RunConfig& config, Rules& rules) {
  const TrainingConfig& training = config.training;
  const std::string global = "training.global_batch_size";
  const std::string per_rank = "training.batch_size_per_rank";
  const bool has_global = training.global_batch_size != 0;
  const bool has_per_rank = training.batch_size_per_rank != 0;
  rules.Refuse(!has_global && !has_per_rank, {global, per_rank}, "missing",
               "expected global_batch_size (samples per step over all ranks) or "
               "batch_size_per_rank");
  rules.Refuse(has_global && has_per_rank, {per_rank, global},
               "contradicts training.global_batch_size",
               "give exactly one of the two, or set one to auto");
  rules.Refuse(has_global && training.global_batch_size < config.resources.ranks,
               {global, "resources.ranks"},
               absl::StrCat(training.global_batch_size, " samples are too few for ",
                            config.resources.ranks, " ranks"),
               "expected at least one sample per rank");
  const int64_t most = has_global ? training.global_batch_size : training.batch_size_per_rank;
  rules.Refuse(most != 0 && training.micro_batch_size > most,
               {"training.micro_batch_size", global, per_rank},
               absl::StrCat(training.micro_batch_size, " is more than the whole batch of ", most),
               "expected a part of the batch, or auto");
}

void CheckOptimizer(OptimizerConfig& optimizer, Rules& rules) {
  const OptimizerConfig defaults;
  const bool sgd = optimizer.kind == OptimizerKind::kSgd;
  constexpr double kAdamLearningRate = 1e-3;  // Kingma & Ba 2015, "Adam", the suggested setting.
  if (!sgd && !rules.Given("optimizer.learning_rate")) optimizer.learning_rate = kAdamLearningRate;
  const auto unused = [&](const char* key, bool is_default, bool for_sgd) {
    rules.RefuseUnused(sgd != for_sgd, is_default, absl::StrCat("optimizer.", key),
                       "optimizer.name", for_sgd ? "sgd" : "adam or adamw");
  };
  unused("momentum", optimizer.momentum == defaults.momentum, true);
  unused("nesterov", optimizer.nesterov == defaults.nesterov, true);
  unused("beta1", optimizer.beta1 == defaults.beta1, false);
  unused("beta2", optimizer.beta2 == defaults.beta2, false);
  unused("epsilon", optimizer.epsilon == defaults.epsilon, false);
  rules.Refuse(sgd && optimizer.nesterov && optimizer.momentum == 0,
               {"optimizer.nesterov", "optimizer.momentum", "optimizer.name"},
               "needs momentum, which is 0", "set optimizer.momentum to 0.9, or remove nesterov");
}

// What a model answers, as far as config alone tells: classes, labels (yes or no), or numbers.
enum class Answer { kClasses, kLabels, kNumbers };

Answer AnswerOf(const RunConfig& config) {
  switch (config.training.loss.kind) {
    case LossKind::kAuto:
      break;
    case LossKind::kCrossEntropy:
      return Answer::kClasses;
    case LossKind::kBinaryCrossEntropy:
      return Answer::kLabels;
    case LossKind::kMse:
    case LossKind::kMae:
    case LossKind::kHuber:
      return Answer::kNumbers;
  }
  if (config.data.kind == DatasetKind::kCsvRegression) return Answer::kNumbers;
  if (config.data.kind == DatasetKind::kCsvMultilabel) return Answer::kLabels;
  return Answer::kClasses;
}

void CheckLoss(const RunConfig& config, Rules& rules) {
  const LossConfig& loss = config.training.loss;
  const Answer answer = AnswerOf(config);
  const bool csv = config.data.kind == DatasetKind::kCsvRegression ||
                   config.data.kind == DatasetKind::kCsvMultilabel;
  const bool numbers = config.data.kind == DatasetKind::kCsvRegression;
  const std::string name = "training.loss.name";
  rules.Refuse(
      csv && answer == Answer::kClasses, {name, "data.kind"},
      "cross_entropy needs classes, and this data set has none",
      numbers ? "expected mse, mae, huber, or auto" : "expected binary_cross_entropy, or auto");
  rules.Refuse(csv && answer == (numbers ? Answer::kLabels : Answer::kNumbers), {name, "data.kind"},
               numbers ? "binary_cross_entropy needs targets of 0 and 1"
                       : "targets of 0 and 1 are no numbers to be close to",
               numbers ? "set data.kind to csv_multilabel, or the loss to mse, mae or huber"
                       : "expected binary_cross_entropy, or set data.kind to csv_regression");
  rules.Refuse(!csv && answer != Answer::kClasses, {name, "data.kind"},
               "needs numbers to learn, and this data set has classes",
               "expected cross_entropy, or data.kind csv_regression or csv_multilabel");
  rules.RefuseUnused(loss.kind != LossKind::kHuber, loss.huber_delta == LossConfig().huber_delta,
                     "training.loss.huber_delta", name, "huber");
  rules.Refuse(loss.balance_classes && answer != Answer::kClasses,
               {"training.loss.class_weights", name, "data.kind"}, "balanced needs classes",
               "remove it, or give training.loss.weights");
  rules.Refuse(!loss.class_weights.empty() && answer == Answer::kNumbers,
               {"training.loss.weights", name, "data.kind"}, "only classes and labels have weights",
               "remove it");
  rules.Refuse(loss.balance_classes && !loss.class_weights.empty(),
               {"training.loss.weights", "training.loss.class_weights"},
               "contradicts class_weights: balanced", "give one of the two");
  rules.Refuse(config.training.label_smoothing > 0 && answer == Answer::kNumbers,
               {"training.label_smoothing", name, "data.kind"},
               "numbers have no probability to spread", "remove it");
  rules.Refuse(config.model.num_classes == 1 && answer == Answer::kClasses,
               {"model.num_classes", name, "data.kind"}, "1 is out of range",
               "expected at least two classes to choose from, or auto");
  const std::string& best = config.checkpoint.best_metric;
  const bool of_classes = best == "val_top1" || best == "val_top5";
  const bool of_numbers = best == "val_mae" || best == "val_mse" || best == "val_r2";
  rules.Refuse((of_classes && answer != Answer::kClasses) ||
                   (of_numbers && answer != Answer::kNumbers) ||
                   (best == "val_macro_f1" && answer == Answer::kNumbers),
               {"checkpoint.best_metric", name, "data.kind"},
               absl::StrCat("there is no ", best, " with this kind of data"),
               answer == Answer::kClasses  ? "expected val_top1, val_top5, val_macro_f1 or val_loss"
               : answer == Answer::kLabels ? "expected val_macro_f1 or val_loss"
                                           : "expected val_mae, val_mse, val_r2 or val_loss");
}

void CheckStages(const RunConfig& config, Rules& rules) {
  const ModelConfig& model = config.model;
  const bool frozen = model.freeze != "none";
  const Duration& duration = config.training.duration;
  rules.RefuseUnused(!frozen, model.unfreeze_after.is_zero(), "model.unfreeze_after",
                     "model.freeze", "backbone or `N layers`");
  rules.Refuse(!model.unfreeze_after.is_zero() && model.unfreeze_after.unit() == duration.unit() &&
                   model.unfreeze_after.count() >= duration.count(),
               {"model.unfreeze_after", "training.duration"},
               absl::StrCat("is not before the end of a duration of ", duration.ToString()),
               "expected less than training.duration, or 0s");
  const bool cached = model.feature_cache != Use::kNever && model.freeze == "backbone";
  rules.Refuse(model.feature_cache == Use::kAlways && model.freeze != "backbone",
               {"model.feature_cache", "model.freeze"},
               "features can only be cached when all of the trunk is frozen",
               "set model.freeze to backbone, or feature_cache to auto");
  const AugmentConfig& augment = config.data.augment;
  rules.Refuse(model.feature_views > 1 && !cached, {"model.feature_views", "model.freeze"},
               "has no effect without a feature cache",
               "set model.freeze to backbone, or remove it");
  rules.Refuse(model.feature_views > 1 && augment == AugmentConfig(),
               {"model.feature_views", "data.augment"},
               "several views of a picture are all the same without data.augment",
               "set data.augment, or remove it");
  rules.Refuse(AnswerOf(config) == Answer::kNumbers && augment.cutmix > 0,
               {"data.augment.cutmix", "data.kind"}, "part of a picture has no part of its number",
               "use mixup, or remove it");
  rules.Refuse(config.training.early_stopping.patience > 0 && config.training.eval_every.is_zero(),
               {"training.early_stopping.patience", "training.eval_every"},
               "needs evaluation, and training.eval_every is off",
               "set training.eval_every to 1ep, or patience to 0");
  rules.Refuse(
      config.schedule.kind == ScheduleKind::kPlateau && config.training.eval_every.is_zero(),
      {"schedule.name", "training.eval_every"},
      "plateau needs evaluation, and training.eval_every is off",
      "set training.eval_every to 1ep, or use another schedule");
}

void CheckSchedule(const RunConfig& config, Rules& rules) {
  const ScheduleConfig& schedule = config.schedule;
  const ScheduleConfig defaults;
  const Duration& duration = config.training.duration;
  const bool cosine = schedule.kind == ScheduleKind::kCosine;
  const bool step = schedule.kind == ScheduleKind::kStep;
  const bool plateau = schedule.kind == ScheduleKind::kPlateau;
  rules.RefuseUnused(!step, schedule.step_every == defaults.step_every, "schedule.step_every",
                     "schedule.name", "step");
  rules.RefuseUnused(!step && !plateau, schedule.gamma == defaults.gamma, "schedule.gamma",
                     "schedule.name", "step or plateau");
  rules.RefuseUnused(!plateau, schedule.patience == defaults.patience, "schedule.patience",
                     "schedule.name", "plateau");
  rules.RefuseUnused(!cosine, schedule.final_ratio == defaults.final_ratio, "schedule.final_ratio",
                     "schedule.name", "cosine");
  rules.Refuse(cosine && duration.unit() == Duration::Unit::kSeconds,
               {"schedule.name", "training.duration"},
               absl::StrCat("cosine needs to know the last step, which a wall time (",
                            duration.ToString(), ") does not tell"),
               "give training.duration in ep or st, or use constant or step");
  rules.Refuse(!schedule.warmup.is_zero() && schedule.warmup.unit() == duration.unit() &&
                   schedule.warmup.count() >= duration.count(),
               {"schedule.warmup", "training.duration"},
               absl::StrCat("a warm-up of ", schedule.warmup.ToString(),
                            " leaves nothing of a duration of ", duration.ToString()),
               "expected a warm-up shorter than training.duration");
}

void CheckKeeping(const RunConfig& config, Rules& rules) {
  rules.Refuse(config.checkpoint.keep_best > 0 && config.training.eval_every.is_zero(),
               {"checkpoint.keep_best", "training.eval_every"},
               absl::StrCat("keeping the best ", config.checkpoint.keep_best,
                            " needs evaluation, and training.eval_every is off"),
               "set checkpoint.keep_best to 0, or training.eval_every to 1ep");
  rules.Refuse(config.restart.max_backoff_seconds < config.restart.backoff_seconds,
               {"restart.max_backoff_seconds", "restart.backoff_seconds"},
               "is less than restart.backoff_seconds",
               absl::StrCat("expected at least ", config.restart.backoff_seconds));
}

}  // namespace

void CheckRun(RunConfig& config, const KeyPlaces& places, Problems& problems) {
  Rules rules(places, problems);
  CheckData(config.data, rules);
  CheckModel(config, rules);
  CheckBatchSizes(config, rules);
  CheckOptimizer(config.optimizer, rules);
  CheckSchedule(config, rules);
  CheckLoss(config, rules);
  CheckStages(config, rules);
  CheckKeeping(config, rules);
}

}  // namespace lockstep::config
