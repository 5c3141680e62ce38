// A RankService on a Unix socket that notes what it is told and says what the test wants. It can
// refuse, and it can stop reading.
#pragma once

#include <grpcpp/grpcpp.h>
#include <unistd.h>

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "lockstep/v1/rank.grpc.pb.h"

namespace lockstep::trainer {

class FakeCoordinator : public v1::RankService::Service {
 public:
  explicit FakeCoordinator(const std::string& socket) {
    unlink(socket.c_str());  // Of one that was "killed".
    grpc::ServerBuilder builder;
    builder.AddListeningPort("unix:" + socket, grpc::InsecureServerCredentials());
    builder.RegisterService(this);
    server_ = builder.BuildAndStart();
  }
  ~FakeCoordinator() override { Stop(); }

  // Ends every stream at once, as a crash would.
  void Stop() {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
      changed_.notify_all();
    }
    server_->Shutdown(std::chrono::system_clock::now());
    server_->Wait();
  }

  void Refuse(grpc::Status status) {
    const std::lock_guard lock(mutex_);
    refusal_ = std::move(status);
  }
  void StopReading() {
    const std::lock_guard lock(mutex_);
    deaf_ = true;
  }

  // Sends to the stream that is open now.
  void Send(const v1::AttachResponse& message) {
    const std::lock_guard lock(mutex_);
    ASSERT_NE(stream_, nullptr);
    stream_->Write(message);
  }
  void SendOrder(const std::string& id, v1::Order::Kind kind) {
    v1::AttachResponse message;
    message.mutable_order()->set_order_id(id);
    message.mutable_order()->set_kind(kind);
    message.mutable_order()->set_reason("because");
    Send(message);
  }

  // Waits until something that was told so far fulfils `wanted`.
  std::optional<v1::AttachRequest> Await(
      const std::function<bool(const v1::AttachRequest&)>& wanted) {
    std::unique_lock lock(mutex_);
    std::optional<v1::AttachRequest> found;
    changed_.wait_for(lock, std::chrono::seconds(20), [&] {
      for (const v1::AttachRequest& message : told_) {
        if (wanted(message)) found = message;
      }
      return found.has_value();
    });
    return found;
  }

  std::vector<v1::AttachRequest> told() {
    const std::lock_guard lock(mutex_);
    return told_;
  }

 private:
  using Stream = grpc::ServerReaderWriter<v1::AttachResponse, v1::AttachRequest>;

  grpc::Status Attach(grpc::ServerContext* context, Stream* stream) override {
    v1::AttachRequest request;
    while (stream->Read(&request)) {
      std::unique_lock lock(mutex_);
      told_.push_back(request);
      changed_.notify_all();
      if (request.has_hello()) {
        if (!refusal_.ok()) return refusal_;
        stream_ = stream;
        v1::AttachResponse welcome;
        const std::string& id = request.hello().run_id();
        welcome.mutable_welcome()->set_run_id(id.empty() ? "given" : id);
        stream->Write(welcome);
      }
      if (request.has_goodbye()) break;
      changed_.wait(lock, [this] { return !deaf_ || stopping_; });
    }
    const std::lock_guard lock(mutex_);
    stream_ = nullptr;
    return grpc::Status::OK;
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<v1::AttachRequest> told_;
  grpc::Status refusal_;
  Stream* stream_ = nullptr;
  bool deaf_ = false;
  bool stopping_ = false;
  std::unique_ptr<grpc::Server> server_;
};

}  // namespace lockstep::trainer
