// What people and ranks see of the daemon: every RPC, over an in-process channel.
#include <fstream>

#include "config/run_directory.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "service_fixture.h"

namespace lockstep::launch {
namespace {

using config::TrainerExit;
using grpc::StatusCode;

TEST_F(ServiceTest, ARunIsSubmittedRunsPausesResumesAndStops) {
  const std::string id = SubmitOk();
  EXPECT_EQ(id.rfind("demo-", 0), 0u);
  EXPECT_EQ(id.size(), 9u);
  auto first = Rank(id);
  first->Progress(7);
  AwaitRun(id, [](const v1::Run& run) { return run.progress().step() == 7; });
  EXPECT_EQ(Get(id).state(), v1::RUN_STATE_RUNNING);

  v1::PauseRunResponse paused;
  const grpc::Status status = Pause(id, false, "", &paused);
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(paused.run().state(), v1::RUN_STATE_PAUSED);
  EXPECT_EQ(paused.step(), 7);
  EXPECT_EQ(paused.run().last_checkpoint().step(), 7);
  EXPECT_EQ(supervisor_->overview().free_slots, slots_);
  EXPECT_TRUE(first->AwaitEnd().ok());

  v1::ResumeRunRequest resume;
  v1::ResumeRunResponse resumed;
  resume.mutable_limits()->set_max_energy_kwh(-1);
  EXPECT_EQ(Call(&v1::ControlService::Stub::ResumeRun, resume, id, resumed).error_code(),
            grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_TRUE(Resume(id).ok());
  auto second = Rank(id, 2);
  AwaitState(id, v1::RUN_STATE_RUNNING);
  EXPECT_TRUE(Stop(id).ok());
  EXPECT_EQ(Get(id).state(), v1::RUN_STATE_STOPPED);
  EXPECT_EQ(Get(id).submitted_by(), "ada");
}

TEST_F(ServiceTest, AHeldRunKeepsItsProcessesAndSlots) {
  const std::string id = SubmitOk();
  auto rank = Rank(id);
  rank->Progress(3);
  ASSERT_TRUE(Pause(id, true).ok());
  EXPECT_EQ(Get(id).state(), v1::RUN_STATE_PAUSED);
  EXPECT_TRUE(Get(id).progress().held());
  EXPECT_EQ(supervisor_->overview().free_slots, slots_ - 2);
  ASSERT_TRUE(Resume(id).ok());
  EXPECT_EQ(Get(id).state(), v1::RUN_STATE_RUNNING);
  EXPECT_EQ(launcher_.launches(), 1);
}

TEST_F(ServiceTest, CheckpointReturnsWithTheStepOnceItIsDone) {
  const std::string id = SubmitOk();
  auto rank = Rank(id);
  rank->Progress(5);
  v1::CheckpointRunResponse response;
  const auto status =
      Call(&v1::ControlService::Stub::CheckpointRun, v1::CheckpointRunRequest(), id, response);
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(response.checkpoint().step(), 5);
  EXPECT_EQ(response.run().state(), v1::RUN_STATE_RUNNING);
}

TEST_F(ServiceTest, KillEndsTheProcessesWithoutAnOrderToTheRanks) {
  const std::string id = SubmitOk();
  auto rank = Rank(id, 1, /*obeys=*/false);
  ASSERT_TRUE(Kill(id).ok());
  EXPECT_EQ(Get(id).state(), v1::RUN_STATE_STOPPED);
  EXPECT_EQ(launcher_.kills(), 1);
  EXPECT_TRUE(Kill(id).ok()) << "a repeated order is no error";
}

TEST_F(ServiceTest, ARepeatedSubmissionIsOneRun) {
  v1::Run first;
  ASSERT_TRUE(Submit(first, kYaml, "request-1").ok());
  for (int i = 0; i < 20; ++i) {
    v1::Run again;
    ASSERT_TRUE(Submit(again, kYaml, "request-1").ok());
    EXPECT_EQ(again.run_id(), first.run_id());
  }
  EXPECT_EQ(supervisor_->List().size(), 1u);
  v1::Run other;
  const grpc::Status misused = Submit(other, std::string(kYaml) + "seed: 3\n", "request-1");
  EXPECT_EQ(misused.error_code(), StatusCode::INVALID_ARGUMENT);
}

TEST_F(ServiceTest, ARepeatedPauseGetsTheFirstAnswerAlsoAfterARestart) {
  const std::string id = SubmitOk();
  auto rank = Rank(id);
  rank->Progress(9);
  v1::PauseRunResponse first;
  ASSERT_TRUE(Pause(id, false, "pause-1", &first).ok());
  ASSERT_TRUE(Resume(id).ok());
  auto second = Rank(id, 2);
  v1::PauseRunResponse again;
  ASSERT_TRUE(Pause(id, false, "pause-1", &again).ok());
  EXPECT_EQ(again.SerializeAsString(), first.SerializeAsString());
  EXPECT_NE(Get(id).state(), v1::RUN_STATE_PAUSED) << "it must not be done again";
  rank.reset();
  second.reset();
  StopDaemon();
  StartDaemon();
  v1::PauseRunResponse later;
  ASSERT_TRUE(Pause(id, false, "pause-1", &later).ok());
  EXPECT_EQ(later.SerializeAsString(), first.SerializeAsString());
}

TEST_F(ServiceTest, AWrongConfigIsRefusedWithEveryFieldInTheDetails) {
  v1::Run run;
  const grpc::Status status =
      Submit(run, "name: demo\nbogus: 1\ntraining: {duration: 10st, global_batch_size: -1}\n");
  EXPECT_EQ(status.error_code(), StatusCode::INVALID_ARGUMENT);
  EXPECT_NE(status.error_message().find("demo.yaml:2:"), std::string::npos)
      << status.error_message();
  google::rpc::Status details;
  ASSERT_TRUE(details.ParseFromString(status.error_details()));
  ASSERT_EQ(details.details_size(), 1);
  google::rpc::BadRequest bad_request;
  ASSERT_TRUE(details.details(0).UnpackTo(&bad_request));
  std::vector<std::string> fields;
  for (const auto& violation : bad_request.field_violations()) fields.push_back(violation.field());
  EXPECT_NE(std::find(fields.begin(), fields.end(), "bogus"), fields.end());
  EXPECT_NE(std::find(fields.begin(), fields.end(), "training.global_batch_size"), fields.end());
  EXPECT_TRUE(supervisor_->List().empty());
  EXPECT_FALSE(std::filesystem::exists(folder_.path() / "runs"));
}

TEST_F(ServiceTest, ARunLargerThanTheDaemonIsRefused) {
  v1::Run run;
  std::string yaml = kYaml;
  yaml.replace(yaml.find("ranks: 2"), 8, "ranks: 5");
  const grpc::Status status = Submit(run, yaml);
  EXPECT_EQ(status.error_code(), StatusCode::RESOURCE_EXHAUSTED) << status.error_message();
}

TEST_F(ServiceTest, TheResolvedConfigIsInTheRunDirectoryAndInTheAnswer) {
  const std::string id = SubmitOk();
  const v1::Run run = Get(id);
  const auto text = config::ReadFile(config::RunDirectory(run.run_dir()).run_yaml());
  ASSERT_TRUE(text.ok()) << text.status();
  EXPECT_EQ(*text, run.config_yaml());
  EXPECT_NE(run.config_yaml().find("ranks: 2"), std::string::npos);
  EXPECT_EQ(run.model(), "cnn");
  EXPECT_EQ(run.dataset(), "shapes");
}

TEST_F(ServiceTest, RunsAreFoundByIdPrefixAndName) {
  const std::string first = SubmitOk();
  const std::string second = SubmitOk();
  EXPECT_EQ(Get(first).run_id(), first);
  EXPECT_EQ(Get("demo").run_id(), second) << "the newest of that name";
  EXPECT_EQ(Get(first.substr(0, first.size() - 1)).run_id(),
            first.substr(0, 8) == second.substr(0, 8) ? second : first);
  v1::GetRunResponse response;
  EXPECT_EQ(
      Call(&v1::ControlService::Stub::GetRun, v1::GetRunRequest(), "demo-", response).error_code(),
      StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(
      Call(&v1::ControlService::Stub::GetRun, v1::GetRunRequest(), "other", response).error_code(),
      StatusCode::NOT_FOUND);
}

TEST_F(ServiceTest, PagesShowEveryRunOnceNewestFirst) {
  std::vector<std::string> submitted;
  for (int i = 0; i < 7; ++i) submitted.push_back(SubmitOk());
  std::vector<std::string> listed;
  std::string token;
  do {
    grpc::ClientContext context;
    v1::ListRunsRequest request;
    request.set_page_size(3);
    request.set_page_token(token);
    v1::ListRunsResponse response;
    ASSERT_TRUE(stub_->ListRuns(&context, request, &response).ok());
    EXPECT_LE(response.runs_size(), 3);
    for (const v1::Run& run : response.runs()) listed.push_back(run.run_id());
    token = response.next_page_token();
  } while (!token.empty());
  std::reverse(listed.begin(), listed.end());
  EXPECT_EQ(listed, submitted);

  grpc::ClientContext context;
  v1::ListRunsRequest request;
  request.add_states(v1::RUN_STATE_QUEUED);
  v1::ListRunsResponse response;
  ASSERT_TRUE(stub_->ListRuns(&context, request, &response).ok());
  EXPECT_EQ(response.runs_size(), 5) << "two of two ranks each run on four slots";
}

TEST_F(ServiceTest, AWatchShowsGrowingSequencesAndEndsWithTheRun) {
  const std::string id = SubmitOk();
  grpc::ClientContext context;
  Limit(context);
  v1::WatchRunRequest request;
  request.set_run(id);
  auto reader = stub_->WatchRun(&context, request);
  auto rank = Rank(id);
  for (int step = 1; step <= 50; ++step) rank->Progress(step);
  rank->End(TrainerExit::kCompleted, "trained");
  v1::WatchRunResponse response;
  int64_t last = 0;
  v1::Run run;
  while (reader->Read(&response)) {
    EXPECT_GT(response.run().sequence(), last);
    last = response.run().sequence();
    run = response.run();
  }
  EXPECT_TRUE(reader->Finish().ok());
  EXPECT_EQ(run.state(), v1::RUN_STATE_COMPLETED);
  EXPECT_EQ(run.progress().step(), 50);

  grpc::ClientContext later;
  Limit(later);
  request.set_after_sequence(last);
  auto nothing_new = stub_->WatchRun(&later, request);
  EXPECT_FALSE(nothing_new->Read(&response)) << "what was seen is not shown again";
  EXPECT_TRUE(nothing_new->Finish().ok());
}

TEST_F(ServiceTest, LogsAreReadByOffsetAndFollowedOverARestartUntilTheRunEnds) {
  const std::string id = SubmitOk();
  auto rank = Rank(id);
  const config::RunDirectory directory(Get(id).run_dir());
  const auto write = [&](int attempt, const std::string& text) {
    std::filesystem::create_directories(directory.attempt(attempt));
    std::ofstream(directory.rank_log(attempt, 0), std::ios::app) << text;
  };
  write(1, "hello world\n");
  grpc::ClientContext context;
  Limit(context);
  v1::StreamLogsRequest request;
  request.set_run(id);
  request.set_follow(true);
  request.set_offset(6);
  auto reader = stub_->StreamLogs(&context, request);
  v1::StreamLogsResponse response;
  ASSERT_TRUE(reader->Read(&response));
  EXPECT_EQ(response.data(), "world\n");
  EXPECT_EQ(response.next_offset(), 12);
  write(1, "more\n");
  ASSERT_TRUE(reader->Read(&response));
  EXPECT_EQ(response.data(), "more\n");

  launcher_.End(id, 1, {137, "rank 1 was killed by signal 9"});
  auto second = Rank(id, 2);
  write(2, "again\n");
  ASSERT_TRUE(reader->Read(&response));
  EXPECT_EQ(response.data(), "again\n");
  second->End(TrainerExit::kCompleted, "");
  EXPECT_FALSE(reader->Read(&response));
  EXPECT_TRUE(reader->Finish().ok());

  grpc::ClientContext tail;
  request.set_follow(false);
  request.set_attempt(1);
  request.set_offset(-5);
  auto end = stub_->StreamLogs(&tail, request);
  ASSERT_TRUE(end->Read(&response));
  EXPECT_EQ(response.data(), "more\n");
  grpc::ClientContext none;
  request.set_rank(7);
  EXPECT_EQ(stub_->StreamLogs(&none, request)->Finish().error_code(), StatusCode::INVALID_ARGUMENT);
}

TEST_F(ServiceTest, AStaleAttemptAndAWrongTokenAreRefused) {
  const std::string id = SubmitOk();
  const auto spec = launcher_.AwaitLaunch(id, 1);
  ASSERT_TRUE(spec);
  v1::Hello wrong = FakeRank::HelloOf(*spec);
  wrong.set_token("0123");
  FakeRank thief(channel_, wrong, nullptr);
  EXPECT_EQ(thief.AwaitEnd().error_code(), StatusCode::PERMISSION_DENIED);

  launcher_.End(id, 1, {137, "rank 0 was killed by signal 9"});
  auto current = Rank(id, 2);
  FakeRank stale(channel_, FakeRank::HelloOf(*spec), nullptr);
  const grpc::Status status = stale.AwaitEnd();
  EXPECT_EQ(status.error_code(), StatusCode::FAILED_PRECONDITION);
  EXPECT_NE(status.error_message().find("stale attempt"), std::string::npos);
  current->Progress(4);
  AwaitRun(id, [](const v1::Run& run) { return run.progress().step() == 4; });
}

TEST_F(ServiceTest, AnOrderIsSentAgainAfterAReconnect) {
  const std::string id = SubmitOk();
  const auto spec = launcher_.AwaitLaunch(id, 1);
  auto deaf = Rank(id, 1, /*obeys=*/false);
  std::thread caller([&] { EXPECT_TRUE(Stop(id).ok()); });
  const auto orders = deaf->AwaitOrders(1);
  ASSERT_EQ(orders.size(), 1u);
  EXPECT_EQ(orders[0].kind(), v1::Order::KIND_STOP);
  deaf.reset();
  FakeRank again(channel_, FakeRank::HelloOf(*spec), &launcher_);
  const auto repeated = again.AwaitOrders(1);
  ASSERT_EQ(repeated.size(), 1u);
  EXPECT_EQ(repeated[0].order_id(), orders[0].order_id());
  caller.join();
  EXPECT_EQ(Get(id).state(), v1::RUN_STATE_STOPPED);
}

TEST_F(ServiceTest, ARunStartedByHandRegistersObeysAndIsNotRestarted) {
  v1::Hello hello;
  hello.set_run_dir("/tmp/by-hand");
  hello.set_world_size(1);
  hello.add_pids(getpid());
  hello.add_hosts("here");
  hello.set_config_yaml(kYaml);
  std::string id;
  {
    FakeRank rank(channel_, hello, nullptr);
    ASSERT_TRUE(rank.AwaitWelcome());
    id = rank.run();
    rank.Progress(2);
    AwaitRun(id, [](const v1::Run& run) { return run.progress().step() == 2; });
    EXPECT_TRUE(Get(id).external());
    EXPECT_EQ(supervisor_->overview().free_slots, slots_) << "the daemon did not give it slots";
  }
  FakeRank again(channel_, hello, nullptr);
  ASSERT_TRUE(again.AwaitWelcome());
  EXPECT_EQ(again.run(), id) << "the same processes are the same run";
  EXPECT_TRUE(Stop(id).ok());
  EXPECT_EQ(Get(id).state(), v1::RUN_STATE_STOPPED);
  EXPECT_EQ(launcher_.launches(), 0);
}

TEST_F(ServiceTest, ARestartedDaemonFindsItsRunsAgain) {
  const std::string running = SubmitOk();
  const std::string other = SubmitOk();
  const std::string queued = SubmitOk();
  auto rank = Rank(running);
  auto second = Rank(other);
  rank->Progress(11);
  AwaitRun(running, [](const v1::Run& run) { return run.progress().step() == 11; });
  const int64_t sequence = Get(running).sequence();
  rank.reset();
  second.reset();
  StopDaemon();
  launcher_.End(other, 1, {137, "rank 1 was killed by signal 9"});

  StartDaemon();
  EXPECT_EQ(Get(running).state(), v1::RUN_STATE_RUNNING);
  EXPECT_EQ(Get(running).progress().step(), 11);
  EXPECT_GT(Get(running).sequence(), sequence);
  EXPECT_EQ(Get(queued).state(), v1::RUN_STATE_QUEUED);
  const auto spec = launcher_.AwaitLaunch(running, 1);
  FakeRank again(channel_, FakeRank::HelloOf(*spec), &launcher_);
  ASSERT_TRUE(again.AwaitWelcome());
  again.Progress(12);
  AwaitRun(running, [](const v1::Run& run) { return run.progress().step() == 12; });
  auto recovered = Rank(other, 2);
  AwaitState(other, v1::RUN_STATE_RUNNING);
  EXPECT_EQ(Get(other).restarts(), 1);
  EXPECT_EQ(launcher_.launches(), 3) << "nothing is launched twice";
}

TEST_F(ServiceTest, ShutdownWithStopRunsStopsThemFirst) {
  const std::string id = SubmitOk();
  auto rank = Rank(id);
  grpc::ClientContext context;
  Limit(context);
  v1::ShutdownRequest request;
  request.set_stop_runs(true);
  v1::ShutdownResponse response;
  ASSERT_TRUE(stub_->Shutdown(&context, request, &response).ok());
  EXPECT_TRUE(shut_down_);
  EXPECT_EQ(Get(id).state(), v1::RUN_STATE_STOPPED);
}

TEST_F(ServiceTest, ShutdownAnswersWhoeverWaitsAndEndsEveryStream) {
  const std::string id = SubmitOk();
  auto deaf = Rank(id, 1, /*obeys=*/false);
  std::thread stopper([&] { EXPECT_EQ(Stop(id).error_code(), StatusCode::UNAVAILABLE); });
  deaf->AwaitOrders(1);
  grpc::ClientContext watch_context;
  v1::WatchRunRequest watch;
  watch.set_run(id);
  auto watcher = stub_->WatchRun(&watch_context, watch);
  v1::WatchRunResponse seen;
  ASSERT_TRUE(watcher->Read(&seen));
  grpc::ClientContext log_context;
  v1::StreamLogsRequest logs;
  logs.set_run(id);
  logs.set_follow(true);
  auto follower = stub_->StreamLogs(&log_context, logs);
  const auto began = std::chrono::steady_clock::now();
  StopDaemon();
  EXPECT_LT(std::chrono::steady_clock::now() - began, std::chrono::seconds(2));
  stopper.join();
  while (watcher->Read(&seen)) {
  }
  EXPECT_EQ(watcher->Finish().error_code(), StatusCode::UNAVAILABLE);
  EXPECT_FALSE(follower->Finish().ok());
  EXPECT_EQ(deaf->AwaitEnd().error_code(), StatusCode::UNAVAILABLE);
}

}  // namespace
}  // namespace lockstep::launch
