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

Json KnownOrNull(double value) {
  return value >= 0 ? Json(value) : Json(nullptr);
}

Json SpendingJson(const v1::Spending& spending) {
  Json json{{"hardware_micros", spending.hardware_micros()},
            {"energy_micros", spending.energy_micros()},
            {"transfer_micros", spending.transfer_micros()},
            {"energy_joules", spending.energy_joules()},
            {"energy_estimated", spending.energy_estimated()},
            {"cost_per_hour", spending.cost_per_hour()},
            {"watts", spending.watts()},
            {"projected_cost", KnownOrNull(spending.projected_cost())},
            {"limit_ratio", nullptr},
            {"limit", nullptr},
            {"overspent", spending.overspent()}};
  if (!spending.limit().empty()) {
    json["limit_ratio"] = spending.limit_ratio();
    json["limit"] = spending.limit();
  }
  return json;
}

Json StragglerJson(const v1::Straggler& straggler) {
  return Json{{"rank", straggler.rank()},
              {"share", straggler.share()},
              {"seconds_per_step", straggler.seconds_per_step()},
              {"cause", straggler.cause()},
              {"text", straggler.text()}};
}

Json GpuJson(const v1::Gpu& gpu) {
  return Json{{"index", gpu.index()},
              {"uuid", gpu.uuid()},
              {"name", gpu.name()},
              {"healthy", gpu.healthy()},
              {"trouble", gpu.trouble()},
              {"utilization_ratio", KnownOrNull(gpu.utilization_ratio())},
              {"memory_used_bytes", KnownOrNull(gpu.memory_used_bytes())},
              {"memory_total_bytes", KnownOrNull(gpu.memory_total_bytes())},
              {"temperature_celsius", KnownOrNull(gpu.temperature_celsius())},
              {"power_watts", KnownOrNull(gpu.power_watts())},
              {"power_limit_watts", KnownOrNull(gpu.power_limit_watts())},
              {"throttled", gpu.throttled()},
              {"run", gpu.run().empty() ? Json(nullptr) : Json(gpu.run())},
              {"rank", gpu.run().empty() ? Json(nullptr) : Json(gpu.rank())}};
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
              {"stall_seconds", checkpoint.stall_seconds()},
              {"cost", checkpoint.cost()}};
}

Json ToJson(const v1::Checkpoint& checkpoint) {
  return Json{{"step", checkpoint.step()},
              {"path", checkpoint.path()},
              {"bytes", checkpoint.bytes()},
              {"created", FormatUtc(checkpoint.created_unix_seconds())},
              {"metric", checkpoint.has_metric() ? Json(checkpoint.metric()) : Json(nullptr)},
              {"cost", checkpoint.has_cost() ? Json(checkpoint.cost()) : Json(nullptr)}};
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
  json["spending"] = run.has_spending() ? SpendingJson(run.spending()) : Json(nullptr);
  json["straggler"] = run.has_straggler() ? StragglerJson(run.straggler()) : Json(nullptr);
  json["devices"] = Json::array();
  for (const std::string& device : run.devices()) json["devices"].push_back(device);
  json["run_dir"] = run.run_dir();
  json["sequence"] = run.sequence();
  json["progress"] = run.has_progress() ? ProgressJson(run.progress()) : Json(nullptr);
  json["last_checkpoint"] =
      run.has_last_checkpoint() ? ToJson(run.last_checkpoint()) : Json(nullptr);
  if (!run.config_yaml().empty()) json["config_yaml"] = run.config_yaml();
  return json;
}

Json ToJson(const v1::GetStatusResponse& status) {
  Json gpus = Json::array();
  for (const v1::Gpu& gpu : status.gpus()) gpus.push_back(GpuJson(gpu));
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
              {"running", status.running()},
              {"currency", status.currency()},
              {"month_micros", status.month_micros()},
              {"monthly_budget",
               status.monthly_budget() > 0 ? Json(status.monthly_budget()) : Json(nullptr)},
              {"cpu_watts", KnownOrNull(status.cpu_watts())},
              {"gpus", gpus}};
}

std::string OneLine(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
}

std::string Document(const Json& json) {
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace lockstep::cli
