// A coordinator for tests: runs are what the test says they are, calls are remembered, and it can
// go away and come back on the same socket. Thread-safe.
#pragma once

#include <grpcpp/server.h>

#include <condition_variable>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "lockstep/v1/control.grpc.pb.h"

namespace lockstep::cli {

class FakeCoordinator : public v1::ControlService::Service {
 public:
  explicit FakeCoordinator(std::string socket);
  ~FakeCoordinator() override;

  void Start();
  /// Breaks every connection.
  void Stop();
  const std::string& socket() const { return socket_; }

  /// Adds or changes a run and tells those who watch it.
  void Put(v1::Run run);
  void Change(const std::string& id, const std::function<void(v1::Run&)>& change);

  /// The next `count` calls of the method wait until their connection breaks.
  void HangNext(const std::string& method, int count);
  /// The next call of the method ends with this.
  void FailNext(const std::string& method, grpc::Status status);
  /// Waits until the method was called so often; false after 20 s.
  bool AwaitCalls(const std::string& method, size_t count);
  std::vector<std::string> RequestIds(const std::string& method);
  v1::SubmitRunRequest last_submit();
  v1::PredictRequest last_predict();
  v1::GetCostRequest last_cost();
  std::vector<int64_t> watched_after();  // after_sequence of each WatchRun.
  bool shutdown_asked();

  std::string log_text;          // Set before Start().
  v1::GetStatusResponse status;  // On top of what GetStatus always says. Set before Start().
  std::string price_yaml;
  v1::GetCostResponse cost;  // What GetCost says.
  std::vector<v1::Checkpoint> checkpoints;
  v1::LimitChanges resume_limits;    // Of the last resume.
  std::string bad_checkpoint_error;  // Empty = all are good.

  grpc::Status SubmitRun(grpc::ServerContext*, const v1::SubmitRunRequest*,
                         v1::SubmitRunResponse*) override;
  grpc::Status GetRun(grpc::ServerContext*, const v1::GetRunRequest*, v1::GetRunResponse*) override;
  grpc::Status ListRuns(grpc::ServerContext*, const v1::ListRunsRequest*,
                        v1::ListRunsResponse*) override;
  grpc::Status WatchRun(grpc::ServerContext*, const v1::WatchRunRequest*,
                        grpc::ServerWriter<v1::WatchRunResponse>*) override;
  grpc::Status PauseRun(grpc::ServerContext*, const v1::PauseRunRequest*,
                        v1::PauseRunResponse*) override;
  grpc::Status ResumeRun(grpc::ServerContext*, const v1::ResumeRunRequest*,
                         v1::ResumeRunResponse*) override;
  grpc::Status CheckpointRun(grpc::ServerContext*, const v1::CheckpointRunRequest*,
                             v1::CheckpointRunResponse*) override;
  grpc::Status StopRun(grpc::ServerContext*, const v1::StopRunRequest*,
                       v1::StopRunResponse*) override;
  grpc::Status KillRun(grpc::ServerContext*, const v1::KillRunRequest*,
                       v1::KillRunResponse*) override;
  grpc::Status StreamLogs(grpc::ServerContext*, const v1::StreamLogsRequest*,
                          grpc::ServerWriter<v1::StreamLogsResponse>*) override;
  grpc::Status ListCheckpoints(grpc::ServerContext*, const v1::ListCheckpointsRequest*,
                               v1::ListCheckpointsResponse*) override;
  grpc::Status VerifyCheckpoint(grpc::ServerContext*, const v1::VerifyCheckpointRequest*,
                                v1::VerifyCheckpointResponse*) override;
  grpc::Status Predict(grpc::ServerContext*, const v1::PredictRequest*,
                       v1::PredictResponse*) override;
  grpc::Status GetCost(grpc::ServerContext*, const v1::GetCostRequest*,
                       v1::GetCostResponse*) override;
  grpc::Status GetStatus(grpc::ServerContext*, const v1::GetStatusRequest*,
                         v1::GetStatusResponse*) override;
  grpc::Status Shutdown(grpc::ServerContext*, const v1::ShutdownRequest*,
                        v1::ShutdownResponse*) override;

 private:
  // Counts the call, then hangs or fails as the test wants.
  grpc::Status Enter(const std::string& method, const std::string& request_id,
                     grpc::ServerContext* call);
  grpc::Status Find(const std::string& text, v1::Run* run);

  const std::string socket_;
  std::unique_ptr<grpc::Server> server_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool stopping_ = false;
  std::vector<std::string> order_;
  std::map<std::string, v1::Run> runs_;
  std::map<std::string, std::vector<std::string>> calls_;  // Method -> request ids.
  std::map<std::string, int> hang_;
  std::map<std::string, grpc::Status> fail_;
  v1::SubmitRunRequest last_submit_;
  v1::PredictRequest last_predict_;
  v1::GetCostRequest last_cost_;
  std::vector<int64_t> watched_after_;
  bool shutdown_asked_ = false;
};

/// A run that trains, with every field a person may see.
v1::Run ExampleRun(const std::string& id, v1::RunState state);

// A folder with a short path (sockets need that), gone with the object.
class TempFolder {
 public:
  TempFolder();
  ~TempFolder();
  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path Write(const std::string& name, const std::string& text) const;

 private:
  std::filesystem::path path_;
};

}  // namespace lockstep::cli
