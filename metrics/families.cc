#include "metrics/families.h"

#include <string>

#include "metrics/family_builder.h"

namespace lockstep::metrics {
namespace {

// The labels that are known in advance: their series start at 0, so that rate() and increase() see
// the first event and an alert can tell "none" from "not reported".
constexpr const char* kStates[] = {"queued",   "starting",   "running",   "pausing", "paused",
                                   "stopping", "recovering", "completed", "stopped", "failed"};
constexpr const char* kLogLevels[] = {"debug", "info", "warning", "error", "critical"};
constexpr const char* kWatchdogReasons[] = {"hang"};

void AddCounts(FamilyBuilder& out, const char* label, std::map<std::string, int64_t> counts,
               std::span<const char* const> known) {
  for (const char* name : known) counts.try_emplace(name, 0);
  for (const auto& [name, count] : counts) out.Add({{label, name}}, static_cast<double>(count));
}

void AddCoordinator(FamilyBuilder& out, const Snapshot& snapshot) {
  out.Gauge("build_info", "Versions of this coordinator, as labels; always 1.");
  out.Add({{"version", snapshot.build.version},
           {"git_sha", snapshot.build.git_sha},
           {"torch", snapshot.build.torch},
           {"nccl", snapshot.build.nccl}},
          1);
  out.Gauge("start_time_seconds", "Unix time at which this coordinator started.");
  out.Add({}, snapshot.start_time_seconds);

  out.Gauge("runs", "Runs by state.");
  AddCounts(out, "state", snapshot.runs_by_state, kStates);
  out.Counter("run_transitions_total", "Changes of a run's state, by state left and entered.");
  for (const auto& [edge, count] : snapshot.transitions) {
    out.Add({{"from", edge.first}, {"to", edge.second}}, static_cast<double>(count));
  }
  out.Gauge("slots", "Slots for ranks, by whether a run holds them: busy or free.");
  out.Add({{"state", "busy"}}, snapshot.slots - snapshot.free_slots);
  out.Add({{"state", "free"}}, snapshot.free_slots);
  out.Gauge("queue_depth_runs", "Runs that wait for free slots.");
  out.Add({}, static_cast<double>(snapshot.queue_depth));
  out.Gauge("queue_oldest_wait_seconds", "How long the oldest queued run has waited; 0 = none.");
  out.Add({}, snapshot.queue_oldest_wait_seconds);
}

void AddService(FamilyBuilder& out, const Snapshot& snapshot) {
  out.Counter("rpc_server_handled_total", "Finished RPCs, by method and status code.");
  for (const auto& [call, count] : snapshot.rpcs_handled) {
    out.Add({{"method", call.first}, {"code", call.second}}, static_cast<double>(count));
  }
  out.OpenHistogram("rpc_server_handling_seconds",
                    "Time from an RPC's arrival to its answer, by method; of streams, their life.",
                    kServiceBuckets);
  for (const auto& [method, histogram] : snapshot.rpc_seconds) {
    out.Add({{"method", method}}, histogram);
  }
  out.Gauge("rpc_server_inflight", "RPCs under way, by method.");
  for (const auto& [method, count] : snapshot.rpcs_inflight) {
    out.Add({{"method", method}}, static_cast<double>(count));
  }
  out.OpenHistogram("store_transaction_duration_seconds",
                    "Time of a transaction of the run store, until it is on disk.",
                    kServiceBuckets);
  out.Add({}, snapshot.store_seconds);
  out.Counter("store_errors_total", "Failed transactions of the run store.");
  out.Add({}, static_cast<double>(snapshot.store_errors));
  out.Counter("log_messages_total", "Messages in the coordinator's log, by level.");
  AddCounts(out, "level", snapshot.log_messages, kLogLevels);
  out.Counter("watchdog_fired_total", "Attempts ended by the stall watchdog, by reason.");
  AddCounts(out, "reason", snapshot.watchdog_fired, kWatchdogReasons);
}

}  // namespace

std::vector<prometheus::MetricFamily> Families(const Snapshot& snapshot) {
  FamilyBuilder out;
  AddCoordinator(out, snapshot);
  AddService(out, snapshot);
  AddBudget(out, snapshot);
  AddDevices(out, snapshot);
  AddRuns(out, snapshot);
  AddRunCosts(out, snapshot);
  return out.Finish();
}

}  // namespace lockstep::metrics
