#include "launch/cli/run_stream.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <utility>

#include "launch/cli/client.h"
#include "launch/cli/progress.h"

namespace lockstep::cli {
namespace {

constexpr size_t kQueueLimit = 256;
constexpr std::chrono::milliseconds kReconnectPause{200};

}  // namespace

EventQueue::EventQueue() : fd_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {}
EventQueue::~EventQueue() {
  close(fd_);
}

void EventQueue::Push(StreamEvent event) {
  std::unique_lock lock(mutex_);
  room_.wait(lock, [&] { return closed_ || events_.size() < kQueueLimit; });
  if (closed_) return;
  events_.push_back(std::move(event));
  eventfd_write(fd_, 1);
}

bool EventQueue::TryPop(StreamEvent& event) {
  std::lock_guard lock(mutex_);
  if (events_.empty()) {
    eventfd_t count;
    eventfd_read(fd_, &count);
    return false;
  }
  event = std::move(events_.front());
  events_.pop_front();
  room_.notify_one();
  return true;
}

void EventQueue::Close() {
  std::lock_guard lock(mutex_);
  closed_ = true;
  room_.notify_all();
}

RunStream::RunStream(Options options, EventQueue& queue)
    : options_(std::move(options)),
      queue_(queue),
      sequence_(options_.after_sequence),
      thread_([this] { Listen(); }) {}

RunStream::~RunStream() {
  std::lock_guard lock(mutex_);
  stopping_ = true;
  if (call_ != nullptr) call_->TryCancel();
  wake_.notify_all();
}

bool RunStream::Stopping() {
  std::lock_guard lock(mutex_);
  return stopping_;
}

void RunStream::Emit(StreamEvent::Kind kind, absl::Status status) {
  queue_.Push({kind, options_.run_id, {}, std::move(status)});
}

void RunStream::Listen() {
  bool lost = false;
  auto lost_at = std::chrono::steady_clock::now();
  while (!Stopping()) {
    const bool was_lost = lost;
    if (ListenOnce(lost)) return;
    const auto now = std::chrono::steady_clock::now();
    // ListenOnce clears `lost` when it was connected in between; every break starts the clock.
    if (!was_lost || !lost) lost_at = now;
    if (!lost) {
      lost = true;
      Emit(StreamEvent::Kind::kLost);
    }
    if (now - lost_at > options_.reconnect_for) {
      Emit(StreamEvent::Kind::kError,
           absl::UnavailableError("the coordinator went away and did not come back"));
      return;
    }
    std::unique_lock lock(mutex_);
    wake_.wait_for(lock, kReconnectPause, [&] { return stopping_; });
  }
}

bool RunStream::ListenOnce(bool& lost) {
  auto stub = Connect(options_.socket);
  if (!stub.ok()) {
    if (heard_ && IsTransportFailure(stub.status())) return false;
    Emit(StreamEvent::Kind::kError, stub.status());
    return true;
  }
  grpc::ClientContext call;
  {
    std::lock_guard lock(mutex_);
    if (stopping_) return true;
    call_ = &call;
  }
  v1::WatchRunRequest request;
  request.set_run(options_.run_id);
  request.set_after_sequence(sequence_);
  auto reader = (*stub)->WatchRun(&call, request);
  v1::WatchRunResponse response;
  bool final = false;
  while (!final && reader->Read(&response)) {
    if (lost) {
      lost = false;
      Emit(StreamEvent::Kind::kBack);
    }
    sequence_ = response.run().sequence();
    final = IsOver(response.run());
    queue_.Push({StreamEvent::Kind::kRun, options_.run_id, response.run(), absl::OkStatus()});
  }
  if (final) call.TryCancel();
  const absl::Status status = FromGrpc(reader->Finish());
  {
    std::lock_guard lock(mutex_);
    call_ = nullptr;
    if (stopping_) return true;
  }
  heard_ = true;
  if (final) {
    Emit(StreamEvent::Kind::kEnd);
    return true;
  }
  // A stream that ends well before the run does is a coordinator that shuts down.
  if (status.ok() || IsTransportFailure(status)) return false;
  Emit(StreamEvent::Kind::kError, status);
  return true;
}

}  // namespace lockstep::cli
