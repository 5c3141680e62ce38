// The person's end of the daemon: lockstep.v1.ControlService over the supervisor.
//
// gRPC's callback API: an order that waits, a watch or a followed log holds memory, not a thread.
// Only reading checkpoints to verify them has threads of its own (two, with a bounded queue:
// RESOURCE_EXHAUSTED beyond it), and so has asking models (launch/serving/model_server.h).
#pragma once

#include <chrono>
#include <functional>
#include <string>

#include "config/coordinator_config.h"
#include "launch/services/work_queue.h"
#include "launch/serving/model_server.h"
#include "launch/supervisor/supervisor.h"
#include "lockstep/v1/control.grpc.pb.h"

namespace lockstep::launch {

struct ControlServiceOptions {
  std::string version;
  std::string state_dir;
  std::string socket;
  std::string tcp_address;
  std::function<std::string()> metrics_address;  // Asked at each GetStatus: known late.
  std::vector<std::string> allowed_roots;
  std::vector<config::NamedWeights> weights;  // What model.pretrained may name.
  config::PriceConfig price;
  double monthly_budget = 0;  // 0 = none.
  int slots = 1;
  int cores = 1;
  ModelServerOptions models;
  /// Names the user behind a gRPC peer; may be empty.
  std::function<std::string(const std::string& peer)> user_of;
  /// Asks the daemon to end; returns at once.
  std::function<void()> shut_down;
};

class ControlServiceImpl final : public v1::ControlService::CallbackService {
 public:
  ControlServiceImpl(Supervisor& supervisor, ControlServiceOptions options);
  /// Cancels what is being verified.
  ~ControlServiceImpl() override;

  /// Verifications that run or wait end with CANCELLED, predictions with UNAVAILABLE.
  void StopWork() {
    verifications_.Stop();
    models_.Stop();
  }

  using Context = grpc::CallbackServerContext;
  using Unary = grpc::ServerUnaryReactor;

  Unary* SubmitRun(Context*, const v1::SubmitRunRequest*, v1::SubmitRunResponse*) override;
  Unary* GetRun(Context*, const v1::GetRunRequest*, v1::GetRunResponse*) override;
  Unary* ListRuns(Context*, const v1::ListRunsRequest*, v1::ListRunsResponse*) override;
  grpc::ServerWriteReactor<v1::WatchRunResponse>* WatchRun(Context*,
                                                           const v1::WatchRunRequest*) override;
  Unary* PauseRun(Context*, const v1::PauseRunRequest*, v1::PauseRunResponse*) override;
  Unary* ResumeRun(Context*, const v1::ResumeRunRequest*, v1::ResumeRunResponse*) override;
  Unary* CheckpointRun(Context*, const v1::CheckpointRunRequest*,
                       v1::CheckpointRunResponse*) override;
  Unary* StopRun(Context*, const v1::StopRunRequest*, v1::StopRunResponse*) override;
  Unary* KillRun(Context*, const v1::KillRunRequest*, v1::KillRunResponse*) override;
  grpc::ServerWriteReactor<v1::StreamLogsResponse>* StreamLogs(
      Context*, const v1::StreamLogsRequest*) override;
  Unary* ListCheckpoints(Context*, const v1::ListCheckpointsRequest*,
                         v1::ListCheckpointsResponse*) override;
  Unary* VerifyCheckpoint(Context*, const v1::VerifyCheckpointRequest*,
                          v1::VerifyCheckpointResponse*) override;
  Unary* Predict(Context*, const v1::PredictRequest*, v1::PredictResponse*) override;
  Unary* GetCost(Context*, const v1::GetCostRequest*, v1::GetCostResponse*) override;
  Unary* GetStatus(Context*, const v1::GetStatusRequest*, v1::GetStatusResponse*) override;
  Unary* Shutdown(Context*, const v1::ShutdownRequest*, v1::ShutdownResponse*) override;

 private:
  std::string UserOf(const Context& context) const;
  absl::StatusOr<std::string> ModelOf(const v1::PredictRequest& request) const;
  template <typename Request>
  Unary* Order(Context* context, const Request& request, const char* method, OrderKind kind,
               std::function<void(const Answer&)> fill, const LimitChanges& limits = {});

  Supervisor& supervisor_;
  const ControlServiceOptions options_;
  const std::chrono::steady_clock::time_point started_ = std::chrono::steady_clock::now();
  WorkQueue verifications_;
  ModelServer models_;
};

}  // namespace lockstep::launch
