#include "trainer/link/coordinator_link.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <thread>

#include "tests/trainer/link/fake_coordinator.h"
#include "trainer/link/wire.h"

namespace lockstep::trainer {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using std::chrono::steady_clock;
using testing::SizeIs;

bool Eventually(const std::function<bool()>& condition) {
  const auto deadline = steady_clock::now() + seconds(20);
  while (!condition()) {
    if (steady_clock::now() > deadline) return false;
    std::this_thread::sleep_for(milliseconds(5));
  }
  return true;
}

class CoordinatorLinkTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string path = testing::TempDir() + "link-XXXXXX";
    ASSERT_NE(mkdtemp(path.data()), nullptr);
    folder_ = path;
    options_.socket = path + "/s";
    options_.run_id = "run-1";
    options_.attempt = 3;
    options_.token = "secret";
    options_.run_dir = "/runs/1";
    options_.world_size = 2;
    options_.pids = {11, 12};
    options_.hosts = {"a", "b"};
    options_.devices = {{"NVIDIA H200", "GPU-1"}, {}};
    options_.config_yaml = "name: x\n";
    options_.mpirun_pid = 10;
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  void StartCoordinator() { coordinator_ = std::make_unique<FakeCoordinator>(options_.socket); }

  std::string folder_;
  LinkOptions options_;
  std::unique_ptr<FakeCoordinator> coordinator_;
};

ProgressReport AtStep(int64_t step) {
  ProgressReport progress;
  progress.step = step;
  return progress;
}

bool IsHello(const v1::AttachRequest& message) {
  return message.has_hello();
}

TEST_F(CoordinatorLinkTest, HelloSaysWhoIsThereAndHowFar) {
  StartCoordinator();
  CoordinatorLink link(options_);
  const auto message = coordinator_->Await(IsHello);
  ASSERT_TRUE(message.has_value());
  const v1::Hello& hello = message->hello();
  EXPECT_EQ(hello.run_id(), "run-1");
  EXPECT_EQ(hello.attempt(), 3);
  EXPECT_EQ(hello.token(), "secret");
  EXPECT_EQ(hello.run_dir(), "/runs/1");
  EXPECT_EQ(hello.world_size(), 2);
  EXPECT_THAT(hello.pids(), testing::ElementsAre(11, 12));
  EXPECT_THAT(hello.hosts(), testing::ElementsAre("a", "b"));
  ASSERT_EQ(hello.devices_size(), 2);
  EXPECT_EQ(hello.devices(0).name(), "NVIDIA H200");
  EXPECT_EQ(hello.devices(0).uuid(), "GPU-1");
  EXPECT_EQ(hello.devices(1).uuid(), "") << "the CPU";
  EXPECT_EQ(hello.config_yaml(), "name: x\n");
  EXPECT_EQ(hello.mpirun_pid(), 10);
  EXPECT_TRUE(Eventually([&] { return link.connected(); }));
}

TEST_F(CoordinatorLinkTest, TheNewestProgressArrives) {
  StartCoordinator();
  CoordinatorLink link(options_);
  for (int64_t step = 1; step <= 10000; ++step) link.Report(AtStep(step));
  ASSERT_TRUE(coordinator_->Await([](const v1::AttachRequest& message) {
    return message.progress().step() == 10000 || message.hello().progress().step() == 10000;
  }));
  EXPECT_LT(coordinator_->told().size(), 100U);  // Not one message for each.
}

TEST_F(CoordinatorLinkTest, ProgressIsSentAtMostEvery100Milliseconds) {
  StartCoordinator();
  CoordinatorLink link(options_);
  ASSERT_TRUE(Eventually([&] { return link.connected(); }));
  const auto begin = steady_clock::now();
  for (int64_t step = 1; steady_clock::now() - begin < milliseconds(500); ++step) {
    link.Report(AtStep(step));
  }
  const auto took = steady_clock::now() - begin;
  EXPECT_LE(coordinator_->told().size(), 2 + static_cast<size_t>(took / milliseconds(100)) + 1);
}

TEST_F(CoordinatorLinkTest, EveryFieldOfProgressArrives) {
  StartCoordinator();
  CoordinatorLink link(options_);
  ASSERT_TRUE(Eventually([&] { return link.connected(); }));
  ProgressReport progress = AtStep(120);
  progress.phase_seconds[3] = 2.5;
  progress.step_duration = {{1, 2, 3}, 0.75};
  progress.ranks = {{0, 0.5, 7}, {1, 0.25, 9}};
  progress.best_evaluation = EvaluationReport{100, 2.0, 0.3, {{"top1", 0.9}}, 1000, 1.5};
  progress.eta_seconds = 60;
  progress.held = true;
  link.Report(progress);
  const auto message = coordinator_->Await(
      [](const v1::AttachRequest& request) { return request.progress().step() == 120; });
  ASSERT_TRUE(message.has_value());
  EXPECT_EQ(message->progress().SerializeAsString(), ToWire(progress).SerializeAsString());
  EXPECT_EQ(message->progress().phase_seconds_size(), config::kPhaseCount);
  EXPECT_EQ(message->progress().phase_seconds(3), 2.5);
  EXPECT_EQ(message->progress().step_duration().counts(2), 3U);
  EXPECT_EQ(message->progress().ranks(1).slowest_steps(), 9);
  EXPECT_FALSE(message->progress().has_last_evaluation());
  EXPECT_EQ(message->progress().best_evaluation().scores(0).value(), 0.9);
  EXPECT_TRUE(message->progress().held());
}

TEST_F(CoordinatorLinkTest, EventsArriveInOrder) {
  StartCoordinator();
  CoordinatorLink link(options_);
  for (int64_t step = 0; step < 200; ++step) {
    EvaluationReport evaluation;
    evaluation.step = step;
    link.Report(evaluation);
  }
  CheckpointReport checkpoint;
  checkpoint.ok = true;
  link.Report(checkpoint);
  ASSERT_TRUE(coordinator_->Await(
      [](const v1::AttachRequest& message) { return message.has_checkpoint(); }));
  int64_t next = 0;
  for (const v1::AttachRequest& message : coordinator_->told()) {
    if (message.has_evaluation()) {
      EXPECT_EQ(message.evaluation().step(), next++);
    }
  }
  EXPECT_EQ(next, 200);
}

TEST_F(CoordinatorLinkTest, AnOrderComesAndIsAnswered) {
  StartCoordinator();
  CoordinatorLink link(options_);
  ASSERT_TRUE(Eventually([&] { return link.connected(); }));
  EXPECT_THAT(link.TakeOrders(), SizeIs(0));
  coordinator_->SendOrder("o1", v1::Order::KIND_PAUSE);
  std::vector<Order> orders;
  ASSERT_TRUE(Eventually([&] { return !(orders = link.TakeOrders()).empty(); }));
  ASSERT_THAT(orders, SizeIs(1));
  EXPECT_EQ(orders[0].id, "o1");
  EXPECT_EQ(orders[0].kind, Order::kPause);
  EXPECT_EQ(orders[0].reason, "because");
  CheckpointReport checkpoint;
  checkpoint.step = 40;
  link.OrderDone("o1", 40, "", checkpoint);
  const auto done = coordinator_->Await(
      [](const v1::AttachRequest& message) { return message.has_order_done(); });
  ASSERT_TRUE(done.has_value());
  EXPECT_EQ(done->order_done().order_id(), "o1");
  EXPECT_EQ(done->order_done().checkpoint().step(), 40);
}

TEST_F(CoordinatorLinkTest, ARepeatedOrderIsHandedOutOnceAndAnsweredAgain) {
  StartCoordinator();
  CoordinatorLink link(options_);
  ASSERT_TRUE(Eventually([&] { return link.connected(); }));
  coordinator_->SendOrder("o1", v1::Order::KIND_CHECKPOINT);
  coordinator_->SendOrder("o1", v1::Order::KIND_CHECKPOINT);
  coordinator_->SendOrder("o2", v1::Order::KIND_STOP);
  std::vector<std::string> ids;
  ASSERT_TRUE(Eventually([&] {
    for (const Order& order : link.TakeOrders()) ids.push_back(order.id);
    return !ids.empty() && ids.back() == "o2";
  }));
  EXPECT_THAT(ids, testing::ElementsAre("o1", "o2"));
  link.OrderDone("o1", 7);
  ASSERT_TRUE(coordinator_->Await(
      [](const v1::AttachRequest& message) { return message.order_done().step() == 7; }));

  coordinator_->Stop();
  StartCoordinator();
  ASSERT_TRUE(coordinator_->Await(IsHello));
  ASSERT_TRUE(Eventually([&] { return link.connected(); }));
  coordinator_->SendOrder("o1", v1::Order::KIND_CHECKPOINT);
  ASSERT_TRUE(coordinator_->Await([](const v1::AttachRequest& message) {
    return message.order_done().order_id() == "o1" && message.order_done().step() == 7;
  }));
  EXPECT_THAT(link.TakeOrders(), SizeIs(0));
}

TEST_F(CoordinatorLinkTest, AnOrderOfAnUnknownKindIsAnsweredWithAnError) {
  StartCoordinator();
  CoordinatorLink link(options_);
  ASSERT_TRUE(Eventually([&] { return link.connected(); }));
  coordinator_->SendOrder("o9", static_cast<v1::Order::Kind>(77));
  const auto done = coordinator_->Await(
      [](const v1::AttachRequest& message) { return message.has_order_done(); });
  ASSERT_TRUE(done.has_value());
  EXPECT_FALSE(done->order_done().error().empty());
  EXPECT_THAT(link.TakeOrders(), SizeIs(0));
}

TEST_F(CoordinatorLinkTest, ACoordinatorThatComesLaterIsFound) {
  CoordinatorLink link(options_);
  link.Report(AtStep(5));
  CheckpointReport checkpoint;
  checkpoint.step = 4;
  link.Report(checkpoint);
  EXPECT_FALSE(link.connected());
  StartCoordinator();
  const auto hello = coordinator_->Await(IsHello);
  ASSERT_TRUE(hello.has_value());
  EXPECT_EQ(hello->hello().progress().step(), 5);
  EXPECT_TRUE(coordinator_->Await(
      [](const v1::AttachRequest& message) { return message.checkpoint().step() == 4; }));
}

TEST_F(CoordinatorLinkTest, WhatTheOldOneWasToldLastTheNewOneHears) {
  StartCoordinator();
  CoordinatorLink link(options_);
  ASSERT_TRUE(Eventually([&] { return link.connected(); }));
  link.Hold(true, 9, "disk full");
  ASSERT_TRUE(
      coordinator_->Await([](const v1::AttachRequest& message) { return message.has_hold(); }));
  coordinator_->Stop();
  EXPECT_TRUE(Eventually([&] { return !link.connected(); }));
  link.Report(AtStep(77));
  StartCoordinator();
  ASSERT_TRUE(coordinator_->Await(
      [](const v1::AttachRequest& message) { return message.hello().progress().step() == 77; }));
  EXPECT_TRUE(coordinator_->Await([](const v1::AttachRequest& message) {
    return message.hold().held() && message.hold().step() == 9 &&
           message.hold().reason() == "disk full";
  }));
}

TEST_F(CoordinatorLinkTest, AStaleAttemptIsTold) {
  StartCoordinator();
  coordinator_->Refuse({grpc::StatusCode::FAILED_PRECONDITION, "stale attempt"});
  CoordinatorLink link(options_);
  ASSERT_TRUE(Eventually([&] { return !link.rejected().empty(); }));
  EXPECT_EQ(link.rejected(), "stale attempt");
  EXPECT_FALSE(link.Goodbye(26, "stale", {}, seconds(10)));
}

TEST_F(CoordinatorLinkTest, AWrongTokenIsTold) {
  StartCoordinator();
  coordinator_->Refuse({grpc::StatusCode::PERMISSION_DENIED, ""});
  CoordinatorLink link(options_);
  EXPECT_TRUE(Eventually([&] { return !link.rejected().empty(); }));
}

TEST_F(CoordinatorLinkTest, ARunOfTheUsersOwnIsNeverRejected) {
  options_.run_id.clear();
  StartCoordinator();
  coordinator_->Refuse({grpc::StatusCode::PERMISSION_DENIED, "not yours"});
  CoordinatorLink link(options_);
  ASSERT_TRUE(coordinator_->Await(IsHello));
  EXPECT_FALSE(link.Goodbye(0, "done", {}, seconds(10)));
  EXPECT_EQ(link.rejected(), "");
}

TEST_F(CoordinatorLinkTest, ARunOfTheUsersOwnIsGivenAnId) {
  options_.run_id.clear();
  StartCoordinator();
  CoordinatorLink link(options_);
  ASSERT_TRUE(Eventually([&] { return link.connected(); }));
  EXPECT_EQ(link.run_id(), "given");
}

TEST_F(CoordinatorLinkTest, GoodbyeIsTheLastAndIsTaken) {
  StartCoordinator();
  CoordinatorLink link(options_);
  for (int i = 0; i < 50; ++i) link.Report(EvaluationReport{});
  EXPECT_TRUE(link.Goodbye(10, "paused", AtStep(99), seconds(20)));
  const std::vector<v1::AttachRequest> told = coordinator_->told();
  ASSERT_TRUE(told.back().has_goodbye());
  EXPECT_EQ(told.back().goodbye().exit_code(), 10);
  EXPECT_EQ(told.back().goodbye().reason(), "paused");
  EXPECT_EQ(told.back().goodbye().progress().step(), 99);
  EXPECT_THAT(told, SizeIs(testing::Ge(52U)));
}

TEST_F(CoordinatorLinkTest, AGoodbyeThatKnowsNoProgressTakesNoneBack) {
  StartCoordinator();
  CoordinatorLink link(options_);
  link.Report(AtStep(60));
  ASSERT_TRUE(link.Goodbye(1, "failed", ProgressReport{}, seconds(20)));
  EXPECT_EQ(coordinator_->told().back().goodbye().progress().step(), 60);
}

TEST_F(CoordinatorLinkTest, WithoutACoordinatorGoodbyeDoesNotWait) {
  CoordinatorLink link(options_);
  const auto begin = steady_clock::now();
  EXPECT_FALSE(link.Goodbye(0, "done", {}, seconds(30)));
  EXPECT_LT(steady_clock::now() - begin, seconds(3));
}

TEST_F(CoordinatorLinkTest, ASocketNobodyServesIsNoReasonToWait) {
  StartCoordinator();
  std::filesystem::create_hard_link(options_.socket, folder_ + "/kept");
  coordinator_->Stop();  // Removes its name of the socket; the other one stays, without a listener.
  options_.socket = folder_ + "/kept";
  CoordinatorLink link(options_);
  const auto begin = steady_clock::now();
  EXPECT_FALSE(link.Goodbye(0, "done", {}, seconds(30)));
  EXPECT_LT(steady_clock::now() - begin, seconds(5));
}

TEST_F(CoordinatorLinkTest, ACoordinatorThatDoesNotReadHoldsNobodyUp) {
  StartCoordinator();
  coordinator_->StopReading();
  auto link = std::make_unique<CoordinatorLink>(options_);
  ASSERT_TRUE(Eventually([&] { return link->connected(); }));
  CheckpointReport big;
  big.error = std::string(100000, 'x');
  const auto begin = steady_clock::now();
  for (int i = 0; i < 2000; ++i) {
    link->Report(big);
    link->Report(AtStep(i));
    link->TakeOrders();
  }
  EXPECT_LT(steady_clock::now() - begin, seconds(5));
  const auto goodbye = steady_clock::now();
  EXPECT_FALSE(link->Goodbye(0, "done", {}, milliseconds(200)));
  EXPECT_LT(steady_clock::now() - goodbye, seconds(2));
  const auto end = steady_clock::now();
  link.reset();
  EXPECT_LT(steady_clock::now() - end, seconds(2));
}

}  // namespace
}  // namespace lockstep::trainer
