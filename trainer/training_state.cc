#include "trainer/training_state.h"

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "trainer/objective/loss.h"

namespace lockstep::trainer {

using nlohmann::json;

namespace {

json ToJsonValue(const EvaluationResult& e) {
  json value = {{"step", e.step},
                {"epoch", e.epoch},
                {"loss", e.loss},
                {"samples", e.samples},
                {"seconds", e.seconds}};
  json scores = json::array();  // Their order says which comes first.
  for (const auto& [name, score] : e.scores) scores.push_back({{"name", name}, {"value", score}});
  value["scores"] = scores;
  return value;
}

// JSON has no NaN: a number that was not finite was written as null.
double NumberFrom(const json& value) {
  return value.is_null() ? std::numeric_limits<double>::quiet_NaN() : value.get<double>();
}

std::optional<EvaluationResult> EvaluationFrom(const json& parent, const char* key) {
  const auto it = parent.find(key);
  if (it == parent.end() || it->is_null()) return std::nullopt;
  EvaluationResult e;
  e.step = it->value("step", e.step);
  e.epoch = it->value("epoch", e.epoch);
  e.loss = NumberFrom(it->at("loss"));
  e.samples = it->value("samples", e.samples);
  e.seconds = it->value("seconds", e.seconds);
  for (const json& score : it->value("scores", json::array())) {
    e.scores.emplace_back(score.at("name").get<std::string>(), NumberFrom(score.at("value")));
  }
  // Format of version 0.1, when there was one score.
  if (e.scores.empty() && it->contains("top1")) e.scores = {{"top1", NumberFrom(it->at("top1"))}};
  return e;
}

}  // namespace

double EvaluationResult::Score(const std::string& name) const {
  if (name == "loss") return loss;
  for (const auto& [known, value] : scores) {
    if (known == name) return value;
  }
  return std::numeric_limits<double>::quiet_NaN();
}

bool BestMetric::Better(const EvaluationResult& a, const EvaluationResult& b, double by) const {
  const double x = a.Score(name), y = b.Score(name);
  if (std::isnan(x)) return false;
  if (std::isnan(y)) return true;
  return higher_is_better ? x > y + by : x < y - by;
}

BestMetric BestMetricOf(const config::RunConfig& config) {
  std::string name = config.checkpoint.best_metric;
  if (name == "auto") {
    name = TaskOf(LossKindOf(config)) == Task::kClasses ? "val_top1" : "val_loss";
  }
  name = name.substr(std::string("val_").size());
  return {.name = name, .higher_is_better = name != "loss" && name != "mae" && name != "mse"};
}

std::string TrainingState::ToJson() const {
  json j = {{"step", step},
            {"seconds", seconds},
            {"metrics_bytes", metrics_bytes},
            {"tensorboard_file", events.file},
            {"tensorboard_bytes", events.bytes},
            {"evaluation_pending", evaluation_pending},
            {"epoch_loss_sum", epoch_loss_sum},
            {"epoch_score_sum", epoch_score_sum},
            {"epoch_samples", epoch_samples},
            {"nonfinite_in_a_row", nonfinite_in_a_row},
            {"seed", seed},
            {"global_batch", global_batch},
            {"dataset_size", dataset_size},
            {"model", model},
            {"num_classes", num_classes},
            {"world_size", world_size},
            {"evaluations_without_better", evaluations_without_better},
            {"evaluations_on_plateau", evaluations_on_plateau},
            {"plateau_factor", plateau_factor},
            {"ended_early", ended_early}};
  if (!card.empty()) j["card"] = json::parse(card);
  if (last_evaluation) j["last_evaluation"] = ToJsonValue(*last_evaluation);
  if (best_evaluation) j["best_evaluation"] = ToJsonValue(*best_evaluation);
  return j.dump(2) + "\n";
}

absl::StatusOr<TrainingState> TrainingState::FromJson(const std::string& text) {
  TrainingState s;
  try {
    const json j = json::parse(text);
    s.step = j.at("step").get<int64_t>();
    s.seconds = j.value("seconds", s.seconds);
    s.metrics_bytes = j.value("metrics_bytes", s.metrics_bytes);
    s.events.file = j.value("tensorboard_file", s.events.file);
    s.events.bytes = j.value("tensorboard_bytes", s.events.bytes);
    s.evaluation_pending = j.value("evaluation_pending", s.evaluation_pending);
    s.epoch_loss_sum = j.value("epoch_loss_sum", s.epoch_loss_sum);
    s.epoch_score_sum = j.value("epoch_score_sum", j.value("epoch_correct", s.epoch_score_sum));
    s.epoch_samples = j.value("epoch_samples", s.epoch_samples);
    s.nonfinite_in_a_row = j.value("nonfinite_in_a_row", s.nonfinite_in_a_row);
    s.seed = j.value("seed", s.seed);
    s.global_batch = j.value("global_batch", s.global_batch);
    s.dataset_size = j.value("dataset_size", s.dataset_size);
    s.model = j.value("model", s.model);
    s.num_classes = j.value("num_classes", s.num_classes);
    s.world_size = j.value("world_size", s.world_size);
    s.evaluations_without_better =
        j.value("evaluations_without_better", s.evaluations_without_better);
    s.evaluations_on_plateau = j.value("evaluations_on_plateau", s.evaluations_on_plateau);
    s.plateau_factor = j.value("plateau_factor", s.plateau_factor);
    s.ended_early = j.value("ended_early", s.ended_early);
    if (j.contains("card")) s.card = j.at("card").dump();
    s.last_evaluation = EvaluationFrom(j, "last_evaluation");
    s.best_evaluation = EvaluationFrom(j, "best_evaluation");
  } catch (const json::exception& error) {
    return absl::InvalidArgumentError(absl::StrCat("state.json: ", error.what()));
  }
  return s;
}

absl::Status TrainingState::CheckSameRun(const TrainingState& now) const {
  std::vector<std::string> differences;
  const auto compare = [&](const char* what, const auto& saved, const auto& current) {
    if (saved != current) {
      differences.push_back(absl::StrCat(what, " is ", current, " but was ", saved));
    }
  };
  compare("seed", seed, now.seed);
  compare("training.global_batch_size", global_batch, now.global_batch);
  compare("the number of training samples", dataset_size, now.dataset_size);
  compare("model.name", model, now.model);
  compare("model.num_classes", num_classes, now.num_classes);
  if (differences.empty()) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("the checkpoint at step ", step,
                   " belongs to another training: ", absl::StrJoin(differences, "; "),
                   ". Use the settings it was made with, or another run directory"));
}

}  // namespace lockstep::trainer
