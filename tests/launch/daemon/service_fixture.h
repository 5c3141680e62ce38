// Supervisor and services over an in-process channel, with a fake launcher and fake ranks: all of
// the daemon but its sockets and mpirun.
#pragma once

#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <chrono>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>

#include "fake_launcher.h"
#include "fake_rank.h"
#include "launch/services/control_service.h"
#include "launch/services/rank_service.h"
#include "launch/supervisor/supervisor.h"
#include "tests/launch/temporary_folder.h"

namespace lockstep::launch {

inline constexpr const char* kYaml = R"(name: demo
resources: {ranks: 2}
data: {kind: shapes, train_samples: 100, eval_samples: 10}
model: {name: cnn, cnn: {blocks: [{filters: 4}]}}
training: {duration: 100st, global_batch_size: 8}
restart: {backoff_seconds: 0.05}
)";

class ServiceTest : public ::testing::Test {
 protected:
  void SetUp() override {
#ifdef __SANITIZE_THREAD__
    GTEST_SKIP() << "the distribution's gRPC is not instrumented: every call looks like a race; "
                    "supervisor_test covers the threads";
#endif
    StartDaemon();
  }
  void TearDown() override {
    StopDaemon();
  }

  void StartDaemon() {
    auto store = RunStore::Open(folder_.path() / "lockstep.db", folder_.path() / "backup");
    ASSERT_TRUE(store.ok()) << store.status();
    SupervisorOptions options = options_;
    options.coordinator.slots = slots_;
    options.coordinator.price.per_rank_hour = 3600;  // One a rank and second.
    options.state_dir = folder_.path();
    options.tick = std::chrono::milliseconds(10);
    auto supervisor = Supervisor::Open(std::move(options), launcher_, *std::move(store));
    ASSERT_TRUE(supervisor.ok()) << supervisor.status();
    supervisor_ = *std::move(supervisor);
    ControlServiceOptions service;
    service.version = "test";
    service.state_dir = folder_.path().string();
    service.allowed_roots = allowed_roots_;
    service.slots = slots_;
    service.cores = slots_;
    service.models = models_;
    service.models.process.log = folder_.path() / "predict.log";
    service.user_of = [](const std::string&) { return "ada"; };
    service.shut_down = [this] { shut_down_ = true; };
    control_ = std::make_unique<ControlServiceImpl>(*supervisor_, std::move(service));
    ranks_ = std::make_unique<RankServiceImpl>(*supervisor_, nullptr);
    grpc::ServerBuilder builder;
    builder.RegisterService(control_.get());
    builder.RegisterService(ranks_.get());
    server_ = builder.BuildAndStart();
    channel_ = server_->InProcessChannel({});
    stub_ = v1::ControlService::NewStub(channel_);
    supervisor_->Begin();
  }

  void StopDaemon() {
    if (!supervisor_) return;
    control_->StopWork();
    supervisor_->Shutdown();
    server_->Shutdown(std::chrono::system_clock::now() + std::chrono::milliseconds(500));
    server_->Wait();
    server_.reset();
    stub_.reset();
    channel_.reset();
    control_.reset();
    ranks_.reset();
    supervisor_.reset();
  }

  // --- Calls, with a deadline so that a hang is a failure.
  static void Limit(grpc::ClientContext& context, int seconds = 20) {
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(seconds));
  }
  grpc::Status Submit(v1::Run& run, const std::string& yaml = kYaml,
                      const std::string& request_id = "") {
    grpc::ClientContext context;
    Limit(context);
    v1::SubmitRunRequest request;
    request.set_config_yaml(yaml);
    request.set_config_file("demo.yaml");
    request.set_request_id(request_id);
    v1::SubmitRunResponse response;
    const grpc::Status status = stub_->SubmitRun(&context, request, &response);
    run = response.run();
    return status;
  }
  std::string SubmitOk(const std::string& yaml = kYaml) {
    v1::Run run;
    const grpc::Status status = Submit(run, yaml);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return run.run_id();
  }
  v1::Run Get(const std::string& id) {
    grpc::ClientContext context;
    Limit(context);
    v1::GetRunRequest request;
    request.set_run(id);
    v1::GetRunResponse response;
    const grpc::Status status = stub_->GetRun(&context, request, &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return response.run();
  }
  /// One RPC of the form (request_id, run).
  template <typename Request, typename Response, typename Method>
  grpc::Status Call(Method method, Request request, const std::string& run, Response& response,
                    int seconds = 20) {
    grpc::ClientContext context;
    Limit(context, seconds);
    request.set_run(run);
    return (stub_.get()->*method)(&context, request, &response);
  }
  grpc::Status Pause(const std::string& run, bool hold = false, const std::string& id = "",
                     v1::PauseRunResponse* out = nullptr) {
    v1::PauseRunRequest request;
    request.set_hold(hold);
    request.set_request_id(id);
    v1::PauseRunResponse response;
    const auto status = Call(&v1::ControlService::Stub::PauseRun, request, run, response);
    if (out != nullptr) *out = response;
    return status;
  }
  grpc::Status Resume(const std::string& run) {
    v1::ResumeRunResponse response;
    return Call(&v1::ControlService::Stub::ResumeRun, v1::ResumeRunRequest(), run, response);
  }
  grpc::Status Stop(const std::string& run) {
    v1::StopRunResponse response;
    return Call(&v1::ControlService::Stub::StopRun, v1::StopRunRequest(), run, response);
  }
  grpc::Status Kill(const std::string& run) {
    v1::KillRunResponse response;
    return Call(&v1::ControlService::Stub::KillRun, v1::KillRunRequest(), run, response);
  }

  /// Follows the run until it is in this state; the run as it was then.
  /// Where the supervisor has no time for 2 s it is asked again.
  metrics::Snapshot AwaitSample() {
    std::optional<metrics::Snapshot> sample;
    for (int i = 0; i < 20 && !sample; ++i) sample = supervisor_->Sample();
    EXPECT_TRUE(sample.has_value());
    return sample.value_or(metrics::Snapshot());
  }
  v1::Run AwaitState(const std::string& id, v1::RunState state) {
    return AwaitRun(id, [state](const v1::Run& run) { return run.state() == state; });
  }
  template <typename Condition>
  v1::Run AwaitRun(const std::string& id, Condition condition) {
    grpc::ClientContext context;
    Limit(context);
    v1::WatchRunRequest request;
    request.set_run(id);
    auto reader = stub_->WatchRun(&context, request);
    v1::WatchRunResponse response;
    bool found = false;
    while (!found && reader->Read(&response)) found = condition(response.run());
    EXPECT_TRUE(found) << "last seen: " << response.run().ShortDebugString();
    context.TryCancel();
    (void)reader->Finish();
    return response.run();
  }

  /// The rank of an attempt, once it is launched.
  std::unique_ptr<FakeRank> Rank(const std::string& run, int attempt = 1, bool obeys = true) {
    const auto spec = launcher_.AwaitLaunch(run, attempt);
    EXPECT_TRUE(spec.has_value()) << "attempt " << attempt << " was not launched";
    if (!spec) return nullptr;
    auto rank = std::make_unique<FakeRank>(channel_, FakeRank::HelloOf(*spec), &launcher_, obeys);
    EXPECT_TRUE(rank->AwaitWelcome());
    return rank;
  }

  TemporaryFolder folder_;
  FakeLauncher launcher_;
  SupervisorOptions options_;
  int slots_ = 4;
  std::vector<std::string> allowed_roots_;
  ModelServerOptions models_;
  std::atomic<bool> shut_down_{false};
  std::unique_ptr<Supervisor> supervisor_;
  std::unique_ptr<ControlServiceImpl> control_;
  std::unique_ptr<RankServiceImpl> ranks_;
  std::unique_ptr<grpc::Server> server_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::ControlService::Stub> stub_;
};

}  // namespace lockstep::launch
