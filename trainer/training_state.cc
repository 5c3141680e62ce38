#include "trainer/training_state.h"

#include <limits>
#include <nlohmann/json.hpp>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace lockstep::trainer {

using nlohmann::json;

namespace {

json ToJsonValue(const EvaluationResult& e) {
  return {{"step", e.step}, {"epoch", e.epoch},     {"loss", e.loss},
          {"top1", e.top1}, {"samples", e.samples}, {"seconds", e.seconds}};
}

std::optional<EvaluationResult> EvaluationFrom(const json& parent, const char* key) {
  const auto it = parent.find(key);
  if (it == parent.end() || it->is_null()) return std::nullopt;
  EvaluationResult e;
  e.step = it->value("step", e.step);
  e.epoch = it->value("epoch", e.epoch);
  // JSON has no NaN: a loss that was not finite was written as null.
  e.loss = it->at("loss").is_null() ? std::numeric_limits<double>::quiet_NaN()
                                    : it->at("loss").get<double>();
  e.top1 = it->value("top1", e.top1);
  e.samples = it->value("samples", e.samples);
  e.seconds = it->value("seconds", e.seconds);
  return e;
}

}  // namespace

std::string TrainingState::ToJson() const {
  json j = {{"step", step},
            {"seconds", seconds},
            {"metrics_bytes", metrics_bytes},
            {"evaluation_pending", evaluation_pending},
            {"epoch_loss_sum", epoch_loss_sum},
            {"epoch_correct", epoch_correct},
            {"epoch_samples", epoch_samples},
            {"nonfinite_in_a_row", nonfinite_in_a_row},
            {"seed", seed},
            {"global_batch", global_batch},
            {"dataset_size", dataset_size},
            {"model", model},
            {"num_classes", num_classes},
            {"world_size", world_size}};
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
    s.evaluation_pending = j.value("evaluation_pending", s.evaluation_pending);
    s.epoch_loss_sum = j.value("epoch_loss_sum", s.epoch_loss_sum);
    s.epoch_correct = j.value("epoch_correct", s.epoch_correct);
    s.epoch_samples = j.value("epoch_samples", s.epoch_samples);
    s.nonfinite_in_a_row = j.value("nonfinite_in_a_row", s.nonfinite_in_a_row);
    s.seed = j.value("seed", s.seed);
    s.global_batch = j.value("global_batch", s.global_batch);
    s.dataset_size = j.value("dataset_size", s.dataset_size);
    s.model = j.value("model", s.model);
    s.num_classes = j.value("num_classes", s.num_classes);
    s.world_size = j.value("world_size", s.world_size);
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
