#include "config/validate.h"

#include <initializer_list>
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

void CheckData(const DataConfig& data, Rules& rules) {
  const bool generated = data.kind == DatasetKind::kShapes;
  rules.Refuse(!generated && data.path.empty(), {"data.path", "data.kind"}, "missing",
               "expected the data set's folder: only shapes needs none");
  rules.Refuse(generated && !data.path.empty(), {"data.path", "data.kind"},
               "shapes are generated and have no path",
               "remove it, or set data.kind to cifar10, cifar100 or image_folder");
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
  rules.Refuse(data.image_size > 0 && data.augment.crop_padding >= data.image_size,
               {"data.augment.crop_padding", "data.image_size"},
               "a picture cannot be padded by its own size",
               absl::StrCat("expected less than image_size, which is ", data.image_size));
}

// Height and width of every picture, where the config alone tells; else 0.
int KnownImageSize(const DataConfig& data) {
  constexpr int kCifarSize = 32;
  const bool cifar = data.kind == DatasetKind::kCifar10 || data.kind == DatasetKind::kCifar100;
  return data.image_size > 0 ? data.image_size : (cifar ? kCifarSize : 0);
}

// The blocks must leave at least one pixel: the sizes are those of convolution and 2x2 pooling.
void CheckBlocks(const std::vector<ConvBlockConfig>& blocks, int image_size, Rules& rules) {
  int size = image_size;
  for (size_t i = 0; i < blocks.size(); ++i) {
    const ConvBlockConfig& block = blocks[i];
    const int padding = block.padding < 0 ? block.kernel / 2 : block.padding;
    const int room = size + 2 * padding - block.kernel;
    const int after_conv = room < 0 ? 0 : room / block.stride + 1;
    const int after = block.pool == Pool::kNone ? after_conv : after_conv / 2;
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

void CheckModel(const RunConfig& config, Rules& rules) {
  const ModelConfig& model = config.model;
  const bool is_cnn = model.name == "cnn";
  rules.RefuseUnused(!is_cnn, model.cnn == CnnConfig(), "model.cnn", "model.name", "cnn");
  rules.RefuseUnused(is_cnn, model.stem == "auto", "model.stem", "model.name", "resnet18");
  int classes = 0;
  if (config.data.kind == DatasetKind::kCifar10) classes = 10;
  if (config.data.kind == DatasetKind::kCifar100) classes = 100;
  rules.Refuse(
      model.num_classes != 0 && model.num_classes < classes, {"model.num_classes", "data.kind"},
      absl::StrCat(model.num_classes, " is fewer than the data set's ", classes, " classes"),
      absl::StrCat("expected at least ", classes, ", or auto"));
  const int image_size = KnownImageSize(config.data);
  if (is_cnn && image_size > 0) CheckBlocks(model.cnn.blocks, image_size, rules);
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

void CheckSchedule(const RunConfig& config, Rules& rules) {
  const ScheduleConfig& schedule = config.schedule;
  const ScheduleConfig defaults;
  const Duration& duration = config.training.duration;
  const bool cosine = schedule.kind == ScheduleKind::kCosine;
  const bool step = schedule.kind == ScheduleKind::kStep;
  rules.RefuseUnused(!step, schedule.step_every == defaults.step_every, "schedule.step_every",
                     "schedule.name", "step");
  rules.RefuseUnused(!step, schedule.gamma == defaults.gamma, "schedule.gamma", "schedule.name",
                     "step");
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
  CheckKeeping(config, rules);
}

}  // namespace lockstep::config
