// Rank 0 of a run, for tests: holds an Attach stream, says what the test tells it to say, and
// carries out orders at once, as a trainer would. Thread-safe.
#pragma once

#include <grpcpp/grpcpp.h>

#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "config/exit_code.h"
#include "fake_launcher.h"
#include "lockstep/v1/rank.grpc.pb.h"

namespace lockstep::launch {

class FakeRank {
 public:
  /// `obeys`: answers orders by itself; otherwise they are only kept. `launcher` may be null (an
  /// external run).
  FakeRank(std::shared_ptr<grpc::Channel> channel, v1::Hello hello, FakeLauncher* launcher,
           bool obeys = true)
      : launcher_(launcher),
        obeys_(obeys),
        run_(hello.run_id()),
        attempt_(hello.attempt()),
        stub_(v1::RankService::NewStub(channel)),
        stream_(stub_->Attach(&context_)) {
    v1::AttachRequest request;
    *request.mutable_hello() = std::move(hello);
    Write(request);
    reader_ = std::thread([this] { Read(); });
  }
  ~FakeRank() {
    context_.TryCancel();
    reader_.join();
  }
  FakeRank(const FakeRank&) = delete;
  FakeRank& operator=(const FakeRank&) = delete;

  static v1::Hello HelloOf(const LaunchSpec& spec) {
    v1::Hello hello;
    hello.set_run_id(spec.run_id);
    hello.set_attempt(spec.attempt);
    hello.set_token(spec.token);
    hello.set_run_dir(spec.run_dir.string());
    hello.set_world_size(spec.ranks);
    return hello;
  }

  void Progress(int64_t step) {
    v1::AttachRequest request;
    *request.mutable_progress() = ProgressAt(step);
    Write(request);
  }
  void Write(const v1::AttachRequest& request) {
    const std::lock_guard lock(write_mutex_);
    stream_->Write(request);
  }
  void Checkpoint(int64_t step) {
    v1::AttachRequest request;
    *request.mutable_checkpoint() = CheckpointAt(step);
    Write(request);
  }
  /// Goodbye, and the end of the processes.
  void End(config::TrainerExit exit, const std::string& reason) {
    v1::AttachRequest request;
    request.mutable_goodbye()->set_exit_code(static_cast<int>(exit));
    request.mutable_goodbye()->set_reason(reason);
    *request.mutable_goodbye()->mutable_progress() = ProgressAt(step());
    Write(request);
    {
      const std::lock_guard lock(write_mutex_);
      stream_->WritesDone();
    }
    if (launcher_ != nullptr) launcher_->End(run_, attempt_, {static_cast<int>(exit), ""});
  }

  bool AwaitWelcome() {
    return Await([this] { return welcomed_; });
  }
  /// The id the coordinator knows the run by.
  std::string run() {
    const std::lock_guard lock(mutex_);
    return run_;
  }
  /// How the coordinator ended the stream.
  grpc::Status AwaitEnd() {
    Await([this] { return ended_; });
    const std::lock_guard lock(mutex_);
    return status_;
  }
  std::vector<v1::Order> AwaitOrders(size_t count) {
    Await([this, count] { return orders_.size() >= count; });
    const std::lock_guard lock(mutex_);
    return orders_;
  }
  int64_t step() {
    const std::lock_guard lock(mutex_);
    return step_;
  }

 private:
  v1::Progress ProgressAt(int64_t step) {
    const std::lock_guard lock(mutex_);
    step_ = std::max(step_, step);
    v1::Progress progress;
    progress.set_step(step);
    progress.set_steps(step);
    progress.set_samples(8 * step);
    progress.set_total_steps(100);
    progress.set_wall_seconds(0.001 * static_cast<double>(step) + 0.001);
    return progress;
  }
  static v1::CheckpointEvent CheckpointAt(int64_t step) {
    v1::CheckpointEvent event;
    event.set_step(step);
    event.set_bytes(1000);
    event.set_ok(true);
    return event;
  }

  template <typename Condition>
  bool Await(Condition condition) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, std::chrono::seconds(20), condition);
  }

  void Read() {
    v1::AttachResponse response;
    while (stream_->Read(&response)) {
      if (response.has_welcome()) {
        const std::lock_guard lock(mutex_);
        run_ = response.welcome().run_id();
        welcomed_ = true;
      } else {
        {
          const std::lock_guard lock(mutex_);
          orders_.push_back(response.order());
        }
        if (obeys_) Obey(response.order());
      }
      changed_.notify_all();
    }
    const grpc::Status status = stream_->Finish();
    {
      const std::lock_guard lock(mutex_);
      status_ = status;
      ended_ = true;
    }
    changed_.notify_all();
  }

  void Obey(const v1::Order& order) {
    using v1::Order;
    const int64_t at = step();
    v1::AttachRequest request;
    if (order.kind() == Order::KIND_HOLD || order.kind() == Order::KIND_RESUME) {
      request.mutable_hold()->set_held(order.kind() == Order::KIND_HOLD);
      request.mutable_hold()->set_step(at);
      Write(request);
    }
    v1::OrderDone* done = request.mutable_order_done();
    done->set_order_id(order.order_id());
    done->set_step(at);
    if (order.kind() != Order::KIND_RESUME) *done->mutable_checkpoint() = CheckpointAt(at);
    Write(request);
    if (order.kind() == Order::KIND_PAUSE) End(config::TrainerExit::kPaused, "paused by order");
    if (order.kind() == Order::KIND_STOP) End(config::TrainerExit::kStopped, "stopped by order");
  }

  FakeLauncher* const launcher_;
  const bool obeys_;
  std::mutex write_mutex_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::string run_;  // Guarded by mutex_, as are the next ones.
  const int attempt_;
  int64_t step_ = 0;
  bool welcomed_ = false;
  bool ended_ = false;
  grpc::Status status_;
  std::vector<v1::Order> orders_;

  grpc::ClientContext context_;
  std::unique_ptr<v1::RankService::Stub> stub_;
  std::unique_ptr<grpc::ClientReaderWriter<v1::AttachRequest, v1::AttachResponse>> stream_;
  std::thread reader_;
};

}  // namespace lockstep::launch
