#include "launch/cli/run_json.h"

#include "launch/cli/format.h"
#include "launch/cli/progress.h"

namespace lockstep::cli {
namespace {

Json TimeOrNull(bool known, const google::protobuf::Timestamp& time) {
  if (!known) return nullptr;
  return FormatUtc(static_cast<double>(time.seconds()));
}

Json ProgressJson(const v1::Progress& progress) {
  Json json;
  json["step"] = progress.step();
  json["total_steps"] = progress.total_steps() > 0 ? Json(progress.total_steps()) : Json(nullptr);
  json["epoch"] = progress.epoch();
  json["loss"] = progress.loss();
  if (progress.has_score()) json[progress.score().name()] = progress.score().value();
  json["learning_rate"] = progress.learning_rate();
  json["gradient_norm"] = progress.gradient_norm();
  json["samples_per_second"] = progress.samples_per_second();
  json["eta_seconds"] = progress.eta_seconds() >= 0 ? Json(progress.eta_seconds()) : Json(nullptr);
  json["attempt_samples"] = progress.samples();
  json["attempt_steps"] = progress.steps();
  json["attempt_first_step"] = progress.first_step();
  json["attempt_wall_seconds"] = progress.wall_seconds();
  json["nonfinite_steps"] = progress.nonfinite_steps();
  json["held"] = progress.held();
  json["last_evaluation"] =
      progress.has_last_evaluation() ? ToJson(progress.last_evaluation()) : Json(nullptr);
  json["best_evaluation"] =
      progress.has_best_evaluation() ? ToJson(progress.best_evaluation()) : Json(nullptr);
  if (progress.has_feature_cache()) {
    const v1::FeatureCache& cache = progress.feature_cache();
    json["feature_cache"] = {{"reused", cache.reused()},
                             {"computed_seconds", cache.computed_seconds()},
                             {"saved_seconds", cache.saved_seconds()},
                             {"saved_cost", cache.saved_cost()}};
  }
  return json;
}

}  // namespace

Json ToJson(const v1::Evaluation& evaluation) {
  Json json{{"step", evaluation.step()},
            {"epoch", evaluation.epoch()},
            {"loss", evaluation.loss()},
            {"samples", evaluation.samples()},
            {"seconds", evaluation.seconds()}};
  for (const v1::Score& score : evaluation.scores()) json[score.name()] = score.value();
  return json;
}

Json ToJson(const v1::CheckpointEvent& checkpoint) {
  return Json{{"step", checkpoint.step()},
              {"ok", checkpoint.ok()},
              {"error", checkpoint.error()},
              {"bytes", checkpoint.bytes()},
              {"path", checkpoint.path()},
              {"write_seconds", checkpoint.write_seconds()},
              {"stall_seconds", checkpoint.stall_seconds()}};
}

Json ToJson(const v1::Checkpoint& checkpoint) {
  return Json{{"step", checkpoint.step()},
              {"path", checkpoint.path()},
              {"bytes", checkpoint.bytes()},
              {"created", FormatUtc(checkpoint.created_unix_seconds())},
              {"metric", checkpoint.has_metric() ? Json(checkpoint.metric()) : Json(nullptr)}};
}

Json ToJson(const v1::Run& run) {
  Json json;
  json["id"] = run.run_id();
  json["name"] = run.name();
  json["state"] = StateName(run.state());
  json["reason"] = run.reason();
  json["model"] = run.model();
  json["dataset"] = run.dataset();
  json["ranks"] = run.ranks();
  json["priority"] = run.priority();
  json["queue_position"] = run.queue_position();
  json["attempt"] = run.attempt();
  json["restarts"] = run.restarts();
  json["external"] = run.external();
  json["submitted_by"] = run.submitted_by();
  json["submitted"] = TimeOrNull(run.has_submitted(), run.submitted());
  json["started"] = TimeOrNull(run.has_started(), run.started());
  json["ended"] = TimeOrNull(run.has_ended(), run.ended());
  json["cost"] = run.cost();
  json["currency"] = run.currency();
  json["run_dir"] = run.run_dir();
  json["sequence"] = run.sequence();
  json["progress"] = run.has_progress() ? ProgressJson(run.progress()) : Json(nullptr);
  json["last_checkpoint"] =
      run.has_last_checkpoint() ? ToJson(run.last_checkpoint()) : Json(nullptr);
  if (!run.config_yaml().empty()) json["config_yaml"] = run.config_yaml();
  return json;
}

Json ToJson(const v1::GetStatusResponse& status) {
  return Json{{"version", status.version()},
              {"pid", status.pid()},
              {"uptime_seconds", status.uptime_seconds()},
              {"state_dir", status.state_dir()},
              {"socket", status.socket()},
              {"tcp_address", status.tcp_address()},
              {"metrics_address", status.metrics_address()},
              {"slots", status.slots()},
              {"free_slots", status.free_slots()},
              {"queued", status.queued()},
              {"running", status.running()}};
}

std::string OneLine(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
}

std::string Document(const Json& json) {
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace lockstep::cli
