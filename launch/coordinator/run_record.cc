#include "launch/coordinator/run_record.h"

#include "launch/coordinator/account_json.h"

#include <array>
#include <nlohmann/json.hpp>
#include <stdexcept>

namespace lockstep::launch {

using Json = nlohmann::json;

const char* OrderName(OrderKind kind) {
  constexpr std::array<const char*, 6> kNames = {"pause",      "pause --hold", "resume",
                                                 "checkpoint", "stop",         "kill"};
  return kNames[static_cast<size_t>(kind)];
}

NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE_WITH_DEFAULT(RestartPolicy, max_restarts, backoff_seconds,
                                                max_backoff_seconds, stall_timeout_seconds)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE_WITH_DEFAULT(Limits, max_seconds, max_cost, max_joules, stop,
                                                gain_per_cost, metric)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE_WITH_DEFAULT(RunSpec, id, name, run_dir, submitted_by,
                                                config_hash, model, dataset, ranks, priority,
                                                external, submitted_unix, restart, limits)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE_WITH_DEFAULT(MetricPoint, step, value, cost_micros)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE_WITH_DEFAULT(CheckpointCost, step, micros)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE_WITH_DEFAULT(Order, id, kind, reason, to_ranks, issued_at)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE_WITH_DEFAULT(CheckpointFacts, step, bytes, write_seconds,
                                                stall_seconds, ok, error, path, at_unix,
                                                cost_micros)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE_WITH_DEFAULT(DataRead, samples, replaced)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE_WITH_DEFAULT(RankProcess, pid, start_time_ticks)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE_WITH_DEFAULT(RankDevice, name, uuid, elsewhere)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE_WITH_DEFAULT(Gang, pid, start_time_ticks)

std::string ToJson(const Run& run) {
  Json json = {{"spec", run.spec},
               {"state", StateName(run.state)},
               {"reason", run.reason},
               {"number", run.number},
               {"queue_order", run.queue_order},
               {"sequence", run.sequence},
               {"attempt", run.attempt},
               {"token", run.token},
               {"has_processes", run.has_processes},
               {"slots", run.slots},
               {"gang", run.gang},
               {"rank_processes", run.rank_processes},
               {"rank_devices", run.rank_devices},
               {"held", run.held},
               {"has_goodbye", run.has_goodbye},
               {"goodbye_exit", run.goodbye_exit},
               {"goodbye_reason", run.goodbye_reason},
               {"kill_reason", run.kill_reason},
               {"hang", run.hang},
               {"orders", run.orders},
               {"step", run.step},
               {"progress_attempt", run.progress_attempt},
               {"failed_step", run.failed_step},
               {"settled_step", run.settled_step},
               {"last_checkpoint", run.last_checkpoint},
               {"told_checkpoint", run.told_checkpoint},
               {"crashes_in_a_row", run.crashes_in_a_row},
               {"restarts", run.restarts},
               {"retry_at", run.retry_at},
               {"recovery_began_at", run.recovery_began_at},
               {"started_unix", run.started_unix},
               {"ended_unix", run.ended_unix},
               {"queued_at", run.queued_at},
               {"account", AccountToJson(run.account)},
               {"checkpoint_costs", run.checkpoint_costs},
               {"metric_points", run.metric_points},
               {"warned_percent", run.warned_percent},
               {"restarts_by_reason", run.restarts_by_reason},
               {"lost_steps", run.lost_steps},
               {"read_before", run.read_before},
               {"read", run.read},
               {"read_attempt", run.read_attempt},
               {"checkpoints_ok", run.checkpoints_ok},
               {"checkpoints_failed", run.checkpoints_failed},
               {"checkpoint_write_counts", run.checkpoint_write_counts},
               {"checkpoint_write_sum", run.checkpoint_write_sum},
               {"recovery_counts", run.recovery_counts},
               {"recovery_sum", run.recovery_sum}};
  // Reasons quote what programs printed; a byte that is no UTF-8 must not lose the record.
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

Run RunFromJson(const std::string& text, double shift) {
  const Json json = Json::parse(text);
  Run run;
  json.at("spec").get_to(run.spec);
  const std::optional<RunState> state = ParseState(json.at("state").get<std::string>());
  if (!state) throw std::runtime_error("unknown state " + json.at("state").dump());
  run.state = *state;
  json.at("reason").get_to(run.reason);
  json.at("number").get_to(run.number);
  json.at("queue_order").get_to(run.queue_order);
  json.at("sequence").get_to(run.sequence);
  json.at("attempt").get_to(run.attempt);
  json.at("token").get_to(run.token);
  json.at("has_processes").get_to(run.has_processes);
  run.slots = json.value("slots", std::vector<int>());  // Stores of 0.1.0 may lack it.
  json.at("gang").get_to(run.gang);
  json.at("rank_processes").get_to(run.rank_processes);
  // Stores of before the ranks told lack it.
  run.rank_devices = json.value("rank_devices", std::vector<RankDevice>());
  json.at("held").get_to(run.held);
  json.at("has_goodbye").get_to(run.has_goodbye);
  json.at("goodbye_exit").get_to(run.goodbye_exit);
  json.at("goodbye_reason").get_to(run.goodbye_reason);
  json.at("kill_reason").get_to(run.kill_reason);
  json.at("hang").get_to(run.hang);
  json.at("orders").get_to(run.orders);
  json.at("step").get_to(run.step);
  json.at("progress_attempt").get_to(run.progress_attempt);
  json.at("failed_step").get_to(run.failed_step);
  json.at("settled_step").get_to(run.settled_step);
  json.at("last_checkpoint").get_to(run.last_checkpoint);
  json.at("crashes_in_a_row").get_to(run.crashes_in_a_row);
  json.at("restarts").get_to(run.restarts);
  json.at("retry_at").get_to(run.retry_at);
  json.at("recovery_began_at").get_to(run.recovery_began_at);
  json.at("started_unix").get_to(run.started_unix);
  json.at("ended_unix").get_to(run.ended_unix);
  json.at("queued_at").get_to(run.queued_at);
  run.account = json.contains("clock")
                    ? AccountFromClock(json.at("clock"), run.attempt, run.spec.ranks, shift)
                    : AccountFromJson(json.at("account"), shift);
  // Stores of schema 1 lack these.
  run.checkpoint_costs = json.value("checkpoint_costs", std::vector<CheckpointCost>());
  run.told_checkpoint = json.value("told_checkpoint", run.told_checkpoint);
  run.metric_points = json.value("metric_points", std::vector<MetricPoint>());
  run.warned_percent = json.value("warned_percent", 0);
  run.read_before = json.value("read_before", DataRead());
  run.read = json.value("read", DataRead());
  run.read_attempt = json.value("read_attempt", 0);
  json.at("restarts_by_reason").get_to(run.restarts_by_reason);
  json.at("lost_steps").get_to(run.lost_steps);
  json.at("checkpoints_ok").get_to(run.checkpoints_ok);
  json.at("checkpoints_failed").get_to(run.checkpoints_failed);
  json.at("checkpoint_write_counts").get_to(run.checkpoint_write_counts);
  json.at("checkpoint_write_sum").get_to(run.checkpoint_write_sum);
  json.at("recovery_counts").get_to(run.recovery_counts);
  json.at("recovery_sum").get_to(run.recovery_sum);
  for (double* at : {&run.retry_at, &run.recovery_began_at, &run.queued_at}) {
    if (*at != 0) *at += shift;
  }
  for (Order& order : run.orders) order.issued_at += shift;
  return run;
}

}  // namespace lockstep::launch
