// What the daemon says of money and of its devices.
#include <unistd.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "launch/services/control_service.h"
#include "launch/services/cost_report.h"
#include "launch/services/rpc_status.h"

namespace lockstep::launch {
namespace {

constexpr double kUnknown = -1;

// Why the GPU is slowed down now: reasons whose time grew in the last round.
std::string ThrottledNow(const metrics::GpuReading& gpu) {
  std::string text;
  for (const std::string& reason : gpu.throttled_by) {
    absl::StrAppend(&text, text.empty() ? "" : ", ", reason);
  }
  return text;
}

void AddGpus(const Supervisor::Overview& overview, v1::GetStatusResponse& response) {
  for (const metrics::GpuReading& reading : overview.devices.gpus) {
    v1::Gpu& gpu = *response.add_gpus();
    gpu.set_index(reading.index);
    gpu.set_uuid(reading.uuid);
    gpu.set_name(reading.name);
    gpu.set_healthy(reading.healthy);
    gpu.set_trouble(reading.trouble);
    gpu.set_utilization_ratio(reading.utilization_ratio.value_or(kUnknown));
    gpu.set_memory_used_bytes(reading.memory_used_bytes.value_or(kUnknown));
    gpu.set_memory_total_bytes(reading.memory_total_bytes.value_or(kUnknown));
    gpu.set_temperature_celsius(reading.temperature_celsius.value_or(kUnknown));
    gpu.set_power_watts(reading.power_watts.value_or(kUnknown));
    gpu.set_power_limit_watts(reading.power_limit_watts.value_or(kUnknown));
    gpu.set_throttled(ThrottledNow(reading));
    for (const auto& [name, holder] : overview.gpu_holders) {
      const bool same = name == std::to_string(reading.index) ||
                        (name.size() > 4 && reading.uuid.starts_with(name));
      if (!same) continue;
      gpu.set_run(holder.first);
      gpu.set_rank(holder.second);
    }
  }
}

grpc::ServerUnaryReactor* Ended(grpc::CallbackServerContext* context, const grpc::Status& status) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  reactor->Finish(status);
  return reactor;
}

}  // namespace

ControlServiceImpl::Unary* ControlServiceImpl::GetCost(Context* context,
                                                       const v1::GetCostRequest* request,
                                                       v1::GetCostResponse* response) {
  std::string id;
  int ranks = 0;
  if (!request->run().empty()) {
    const auto run = supervisor_.Find(request->run());
    if (!run.ok()) return Ended(context, ToGrpc(run.status()));
    id = (*run)->run_id();
    ranks = (*run)->ranks();
  }
  v1::CostGrouping by = request->by();
  if (by == v1::COST_GROUPING_UNSPECIFIED) {
    by = id.empty() ? v1::COST_GROUPING_RUN : v1::COST_GROUPING_PHASE;
  }
  std::map<std::string, CostSubject> runs;
  for (const Supervisor::Listed& listed : supervisor_.List()) {
    runs[listed.run->run_id()] = {listed.run->name(), listed.number};
  }
  Unary* reactor = context->DefaultReactor();
  supervisor_.Ledger(id, request->since_unix_seconds(),
                     [this, reactor, response, by, ranks,
                      runs = std::move(runs)](absl::StatusOr<std::vector<StoredLine>> lines) {
                       if (!lines.ok()) return reactor->Finish(ToGrpc(lines.status()));
                       *response = SumUp(*lines, by, runs);
                       response->set_currency(options_.price.currency);
                       if (ranks > 0) {
                         const auto time =
                             static_cast<double>(response->total().rank_microseconds());
                         response->set_ranks(ranks);
                         response->set_wall_seconds(time * 1e-6 / ranks);
                       }
                       reactor->Finish(grpc::Status::OK);
                     });
  return reactor;
}

ControlServiceImpl::Unary* ControlServiceImpl::GetStatus(Context* context,
                                                         const v1::GetStatusRequest* request,
                                                         v1::GetStatusResponse* response) {
  response->set_version(options_.version);
  response->set_pid(getpid());
  response->set_uptime_seconds(
      std::chrono::duration<double>(std::chrono::steady_clock::now() - started_).count());
  response->set_state_dir(options_.state_dir);
  response->set_socket(options_.socket);
  response->set_tcp_address(options_.tcp_address);
  if (options_.metrics_address) response->set_metrics_address(options_.metrics_address());
  response->set_slots(options_.slots);
  const Supervisor::Overview overview = supervisor_.overview();
  response->set_free_slots(overview.free_slots);
  response->set_currency(options_.price.currency);
  response->set_price_yaml(config::PriceYaml(options_.price));
  response->set_month_micros(overview.month_micros);
  response->set_monthly_budget(options_.monthly_budget);
  response->set_cpu_watts(overview.cpu_watts);
  AddGpus(overview, *response);
  for (const Supervisor::Listed& listed : supervisor_.List()) {
    const v1::RunState state = listed.run->state();
    if (state == v1::RUN_STATE_QUEUED) response->set_queued(response->queued() + 1);
    const bool live = state == v1::RUN_STATE_STARTING || state == v1::RUN_STATE_RUNNING ||
                      state == v1::RUN_STATE_PAUSING || state == v1::RUN_STATE_STOPPING ||
                      state == v1::RUN_STATE_RECOVERING;
    if (live) response->set_running(response->running() + 1);
  }
  return Ended(context, grpc::Status::OK);
}

}  // namespace lockstep::launch
