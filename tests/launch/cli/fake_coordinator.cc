#include "tests/launch/cli/fake_coordinator.h"

#include <grpcpp/security/server_credentials.h>
#include <grpcpp/server_builder.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <fstream>

namespace lockstep::cli {

using grpc::ServerContext;
using grpc::Status;
using grpc::StatusCode;

FakeCoordinator::FakeCoordinator(std::string socket) : socket_(std::move(socket)) {}
FakeCoordinator::~FakeCoordinator() {
  Stop();
}

void FakeCoordinator::Start() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = false;
  }
  std::filesystem::remove(socket_);
  grpc::ServerBuilder builder;
  builder.AddListeningPort("unix:" + socket_, grpc::InsecureServerCredentials());
  builder.RegisterService(this);
  server_ = builder.BuildAndStart();
  if (server_ == nullptr) abort();
}

void FakeCoordinator::Stop() {
  if (server_ == nullptr) return;
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
    changed_.notify_all();
  }
  server_->Shutdown(std::chrono::system_clock::now());
  server_->Wait();
  server_.reset();
}

void FakeCoordinator::Put(v1::Run run) {
  std::lock_guard lock(mutex_);
  if (!runs_.contains(run.run_id())) order_.insert(order_.begin(), run.run_id());
  run.set_sequence(runs_[run.run_id()].sequence() + 1);
  runs_[run.run_id()] = std::move(run);
  changed_.notify_all();
}

void FakeCoordinator::Change(const std::string& id, const std::function<void(v1::Run&)>& change) {
  std::lock_guard lock(mutex_);
  v1::Run& run = runs_.at(id);
  change(run);
  run.set_sequence(run.sequence() + 1);
  changed_.notify_all();
}

void FakeCoordinator::HangNext(const std::string& method, int count) {
  std::lock_guard lock(mutex_);
  hang_[method] = count;
}

void FakeCoordinator::FailNext(const std::string& method, Status status) {
  std::lock_guard lock(mutex_);
  fail_[method] = std::move(status);
}

bool FakeCoordinator::AwaitCalls(const std::string& method, size_t count) {
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, std::chrono::seconds(20),
                           [&] { return calls_[method].size() >= count; });
}

std::vector<std::string> FakeCoordinator::RequestIds(const std::string& method) {
  std::lock_guard lock(mutex_);
  return calls_[method];
}

v1::SubmitRunRequest FakeCoordinator::last_submit() {
  std::lock_guard lock(mutex_);
  return last_submit_;
}

std::vector<int64_t> FakeCoordinator::watched_after() {
  std::lock_guard lock(mutex_);
  return watched_after_;
}

bool FakeCoordinator::shutdown_asked() {
  std::lock_guard lock(mutex_);
  return shutdown_asked_;
}

Status FakeCoordinator::Enter(const std::string& method, const std::string& request_id,
                              ServerContext* call) {
  std::unique_lock lock(mutex_);
  calls_[method].push_back(request_id);
  changed_.notify_all();
  if (hang_[method] > 0) {
    --hang_[method];
    // A deadline that passes tells nobody, so look now and then.
    while (!stopping_ && !call->IsCancelled()) {
      changed_.wait_for(lock, std::chrono::milliseconds(20));
    }
    return Status(StatusCode::UNAVAILABLE, "going down");
  }
  if (auto entry = fail_.extract(method); !entry.empty()) return entry.mapped();
  return Status::OK;
}

Status FakeCoordinator::Find(const std::string& text, v1::Run* run) {
  std::lock_guard lock(mutex_);
  for (const std::string& id : order_) {
    if (id.starts_with(text) || runs_[id].name() == text) {
      *run = runs_[id];
      return Status::OK;
    }
  }
  return Status(StatusCode::NOT_FOUND, "there is no run '" + text + "'");
}

Status FakeCoordinator::SubmitRun(ServerContext* call, const v1::SubmitRunRequest* request,
                                  v1::SubmitRunResponse* response) {
  if (Status status = Enter("SubmitRun", request->request_id(), call); !status.ok()) return status;
  v1::Run run = ExampleRun("new1", v1::RUN_STATE_QUEUED);
  run.clear_progress();
  run.clear_last_checkpoint();
  run.set_queue_position(1);
  Put(run);
  std::lock_guard lock(mutex_);
  last_submit_ = *request;
  *response->mutable_run() = runs_["new1"];
  return Status::OK;
}

Status FakeCoordinator::GetRun(ServerContext* call, const v1::GetRunRequest* request,
                               v1::GetRunResponse* response) {
  if (Status status = Enter("GetRun", "", call); !status.ok()) return status;
  return Find(request->run(), response->mutable_run());
}

Status FakeCoordinator::ListRuns(ServerContext* call, const v1::ListRunsRequest* request,
                                 v1::ListRunsResponse* response) {
  if (Status status = Enter("ListRuns", "", call); !status.ok()) return status;
  std::lock_guard lock(mutex_);
  const size_t first = request->page_token().empty() ? 0 : std::stoul(request->page_token());
  const size_t size = request->page_size() > 0 ? static_cast<size_t>(request->page_size()) : 50;
  for (size_t i = first; i < order_.size(); ++i) {
    if (i == first + size) {
      response->set_next_page_token(std::to_string(i));
      break;
    }
    const v1::Run& run = runs_[order_[i]];
    const auto& states = request->states();
    if (states.empty() || std::find(states.begin(), states.end(), run.state()) != states.end()) {
      *response->add_runs() = run;
    }
  }
  return Status::OK;
}

Status FakeCoordinator::WatchRun(ServerContext* call, const v1::WatchRunRequest* request,
                                 grpc::ServerWriter<v1::WatchRunResponse>* writer) {
  {
    std::lock_guard lock(mutex_);
    watched_after_.push_back(request->after_sequence());
  }
  if (Status status = Enter("WatchRun", "", call); !status.ok()) return status;
  int64_t sequence = request->after_sequence();
  while (true) {
    v1::WatchRunResponse response;
    {
      std::unique_lock lock(mutex_);
      while (!stopping_ && !call->IsCancelled() && runs_[request->run()].sequence() <= sequence) {
        changed_.wait_for(lock, std::chrono::milliseconds(20));
      }
      if (stopping_ || call->IsCancelled()) return Status(StatusCode::UNAVAILABLE, "going down");
      *response.mutable_run() = runs_[request->run()];
    }
    sequence = response.run().sequence();
    if (!writer->Write(response)) return Status::OK;
    if (response.run().state() >= v1::RUN_STATE_COMPLETED) return Status::OK;
  }
}

Status FakeCoordinator::PauseRun(ServerContext* call, const v1::PauseRunRequest* request,
                                 v1::PauseRunResponse* response) {
  if (Status status = Enter("PauseRun", request->request_id(), call); !status.ok()) return status;
  response->set_step(120);
  return Find(request->run(), response->mutable_run());
}

Status FakeCoordinator::ResumeRun(ServerContext* call, const v1::ResumeRunRequest* request,
                                  v1::ResumeRunResponse* response) {
  if (Status status = Enter("ResumeRun", request->request_id(), call); !status.ok()) return status;
  resume_limits = request->limits();
  return Find(request->run(), response->mutable_run());
}

Status FakeCoordinator::CheckpointRun(ServerContext* call, const v1::CheckpointRunRequest* request,
                                      v1::CheckpointRunResponse* response) {
  if (Status status = Enter("CheckpointRun", request->request_id(), call); !status.ok()) {
    return status;
  }
  v1::CheckpointEvent* checkpoint = response->mutable_checkpoint();
  checkpoint->set_step(120);
  checkpoint->set_ok(bad_checkpoint_error.empty());
  checkpoint->set_error(bad_checkpoint_error);
  checkpoint->set_bytes(1258291);
  checkpoint->set_write_seconds(0.25);
  checkpoint->set_path("/runs/a/checkpoints/step-000000120");
  return Find(request->run(), response->mutable_run());
}

Status FakeCoordinator::StopRun(ServerContext* call, const v1::StopRunRequest* request,
                                v1::StopRunResponse* response) {
  if (Status status = Enter("StopRun", request->request_id(), call); !status.ok()) return status;
  response->set_step(120);
  return Find(request->run(), response->mutable_run());
}

Status FakeCoordinator::KillRun(ServerContext* call, const v1::KillRunRequest* request,
                                v1::KillRunResponse* response) {
  if (Status status = Enter("KillRun", request->request_id(), call); !status.ok()) return status;
  return Find(request->run(), response->mutable_run());
}

Status FakeCoordinator::StreamLogs(ServerContext* call, const v1::StreamLogsRequest* request,
                                   grpc::ServerWriter<v1::StreamLogsResponse>* writer) {
  if (Status status = Enter("StreamLogs", "", call); !status.ok()) return status;
  std::string text = log_text + "rank " + std::to_string(request->rank()) + " attempt " +
                     std::to_string(request->attempt()) + "\n";
  const auto size = static_cast<int64_t>(text.size());
  const int64_t first = request->offset() < 0 ? std::max<int64_t>(0, size + request->offset())
                                              : std::min(request->offset(), size);
  v1::StreamLogsResponse response;
  response.set_data(text.substr(static_cast<size_t>(first)));
  response.set_next_offset(size);
  if (!response.data().empty()) writer->Write(response);
  if (!request->follow()) return Status::OK;
  std::unique_lock lock(mutex_);
  while (!stopping_ && !call->IsCancelled()) {
    if (runs_[request->run()].state() >= v1::RUN_STATE_COMPLETED) return Status::OK;
    changed_.wait_for(lock, std::chrono::milliseconds(20));
  }
  return Status(StatusCode::UNAVAILABLE, "going down");
}

Status FakeCoordinator::ListCheckpoints(ServerContext* call,
                                        const v1::ListCheckpointsRequest* request,
                                        v1::ListCheckpointsResponse* response) {
  if (Status status = Enter("ListCheckpoints", "", call); !status.ok()) return status;
  for (const v1::Checkpoint& checkpoint : checkpoints) *response->add_checkpoints() = checkpoint;
  v1::Run run;
  return Find(request->run(), &run);
}

Status FakeCoordinator::VerifyCheckpoint(ServerContext* call,
                                         const v1::VerifyCheckpointRequest* request,
                                         v1::VerifyCheckpointResponse* response) {
  if (Status status = Enter("VerifyCheckpoint", "", call); !status.ok()) return status;
  for (const v1::Checkpoint& checkpoint : checkpoints) {
    if (request->step() != 0 && request->step() != checkpoint.step()) continue;
    auto* result = response->add_results();
    *result->mutable_checkpoint() = checkpoint;
    result->set_ok(bad_checkpoint_error.empty());
    result->set_error(bad_checkpoint_error);
  }
  return Status::OK;
}

// A picture that begins with "text" is none.
Status FakeCoordinator::Predict(ServerContext* call, const v1::PredictRequest* request,
                                v1::PredictResponse* response) {
  if (Status status = Enter("Predict", "", call); !status.ok()) return status;
  const std::lock_guard lock(mutex_);
  last_predict_ = *request;
  if (request->picture().rfind("text", 0) == 0) {
    return {grpc::StatusCode::INVALID_ARGUMENT, request->picture_name() + ": is no picture"};
  }
  response->set_checkpoint("/runs/a/checkpoints/step-000000012");
  response->set_step(12);
  auto* label = response->mutable_prediction()->add_labels();
  label->set_name("cat");
  label->set_probability(0.931);
  return Status::OK;
}

v1::PredictRequest FakeCoordinator::last_predict() {
  const std::lock_guard lock(mutex_);
  return last_predict_;
}

v1::GetCostRequest FakeCoordinator::last_cost() {
  const std::lock_guard lock(mutex_);
  return last_cost_;
}

Status FakeCoordinator::GetCost(ServerContext* call, const v1::GetCostRequest* request,
                                v1::GetCostResponse* response) {
  if (Status refused = Enter("GetCost", "", call); !refused.ok()) return refused;
  const std::lock_guard lock(mutex_);
  last_cost_ = *request;
  *response = cost;
  return Status::OK;
}

Status FakeCoordinator::GetStatus(ServerContext* call, const v1::GetStatusRequest*,
                                  v1::GetStatusResponse* response) {
  if (Status refused = Enter("GetStatus", "", call); !refused.ok()) return refused;
  response->set_version("0.1.0");
  response->set_pid(getpid());
  response->set_uptime_seconds(3725);
  response->set_state_dir(std::filesystem::path(socket_).parent_path());
  response->set_socket(socket_);
  response->set_metrics_address("127.0.0.1:9464");
  response->set_slots(4);
  response->set_free_slots(1);
  response->set_queued(2);
  response->set_running(1);
  response->MergeFrom(status);
  response->set_price_yaml(price_yaml);
  return Status::OK;
}

Status FakeCoordinator::Shutdown(ServerContext* call, const v1::ShutdownRequest* request,
                                 v1::ShutdownResponse*) {
  if (Status status = Enter("Shutdown", request->request_id(), call); !status.ok()) return status;
  std::lock_guard lock(mutex_);
  shutdown_asked_ = true;
  changed_.notify_all();
  return Status::OK;
}

v1::Run ExampleRun(const std::string& id, v1::RunState state) {
  v1::Run run;
  run.set_run_id(id);
  run.set_name("tiny-" + id);
  run.set_state(state);
  run.set_attempt(1);
  run.set_ranks(2);
  run.set_run_dir("/runs/" + id);
  run.set_submitted_by("ann");
  run.mutable_submitted()->set_seconds(1800000000);
  run.mutable_started()->set_seconds(1800000010);
  if (state >= v1::RUN_STATE_COMPLETED) run.mutable_ended()->set_seconds(1800000102);
  run.set_model("cnn");
  run.set_dataset("shapes");
  run.set_cost(0.0123);
  run.set_currency("EUR");
  v1::Progress* progress = run.mutable_progress();
  progress->set_step(120);
  progress->set_total_steps(400);
  progress->set_epoch(1.2);
  progress->set_loss(0.4123);
  progress->mutable_score()->set_name("top1");
  progress->mutable_score()->set_value(0.871);
  progress->set_learning_rate(0.05);
  progress->set_samples(15360);
  progress->set_steps(120);
  progress->set_wall_seconds(10);
  progress->set_samples_per_second(1536.4);
  progress->set_eta_seconds(95);
  progress->mutable_last_evaluation()->set_step(100);
  v1::Score* score = progress->mutable_last_evaluation()->add_scores();
  score->set_name("top1");
  score->set_value(0.931);
  progress->mutable_last_evaluation()->set_loss(0.212);
  progress->mutable_last_evaluation()->set_epoch(1);
  run.mutable_last_checkpoint()->set_step(100);
  run.mutable_last_checkpoint()->set_ok(true);
  run.mutable_last_checkpoint()->set_bytes(1258291);
  run.mutable_last_checkpoint()->set_write_seconds(0.1);
  return run;
}

TempFolder::TempFolder() {
  char path[] = "/tmp/lockstep-cli-XXXXXX";
  if (mkdtemp(path) == nullptr) abort();
  path_ = path;
}

TempFolder::~TempFolder() {
  std::error_code error;
  std::filesystem::remove_all(path_, error);
}

std::filesystem::path TempFolder::Write(const std::string& name, const std::string& text) const {
  std::ofstream(path_ / name) << text;
  return path_ / name;
}

}  // namespace lockstep::cli
