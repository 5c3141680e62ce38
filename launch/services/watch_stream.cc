#include "launch/services/watch_stream.h"

#include <memory>
#include <mutex>
#include <optional>

#include "launch/services/rpc_status.h"

namespace lockstep::launch {
namespace {

class WatchReactor;

// What the supervisor holds; may outlive the reactor.
class Watcher : public RunWatcher {
 public:
  explicit Watcher(WatchReactor* reactor) : reactor_(reactor) {}
  void Changed(const std::shared_ptr<const v1::Run>& run) override;
  void Close(const absl::Status& status) override;

  std::mutex mutex;
  WatchReactor* reactor_;  // Guarded by mutex; null once the stream is done.
};

class WatchReactor : public grpc::ServerWriteReactor<v1::WatchRunResponse> {
 public:
  WatchReactor(Supervisor& supervisor, std::string run_id)
      : supervisor_(supervisor),
        run_id_(std::move(run_id)),
        watcher_(std::make_shared<Watcher>(this)) {}

  void Begin(int64_t after_sequence) {
    // A stream may end, and this object with it, before AddWatcher returns.
    const std::shared_ptr<Watcher> watcher = watcher_;
    supervisor_.AddWatcher(run_id_, after_sequence, watcher);
  }

  void OnWriteDone(bool ok) override {
    const std::lock_guard lock(watcher_->mutex);
    writing_ = false;
    if (!ok) {
      newest_.reset();
      if (!end_) end_ = grpc::Status::CANCELLED;
    }
    Continue();
  }

  void OnCancel() override {
    supervisor_.RemoveWatcher(run_id_, watcher_.get());
    const std::lock_guard lock(watcher_->mutex);
    EndLocked(grpc::Status::CANCELLED);
  }

  void OnDone() override {
    supervisor_.RemoveWatcher(run_id_, watcher_.get());
    {
      const std::lock_guard lock(watcher_->mutex);
      watcher_->reactor_ = nullptr;
    }
    delete this;
  }

  // Called with the watcher's mutex held.
  void ShowLocked(const std::shared_ptr<const v1::Run>& run) {
    if (end_ || run->sequence() <= shown_) return;
    newest_ = run;
    Continue();
  }
  void EndLocked(const grpc::Status& status) {
    if (!end_) end_ = status;
    Continue();
  }

 private:
  void Continue() {
    if (writing_ || finished_) return;
    if (newest_) {
      writing_ = true;
      *response_.mutable_run() = *newest_;
      shown_ = newest_->sequence();
      newest_.reset();
      StartWrite(&response_);
    } else if (end_) {
      finished_ = true;
      Finish(*end_);
    }
  }

  Supervisor& supervisor_;
  const std::string run_id_;
  const std::shared_ptr<Watcher> watcher_;

  // Guarded by the watcher's mutex.
  std::shared_ptr<const v1::Run> newest_;
  v1::WatchRunResponse response_;
  int64_t shown_ = 0;
  bool writing_ = false;
  bool finished_ = false;
  std::optional<grpc::Status> end_;
};

void Watcher::Changed(const std::shared_ptr<const v1::Run>& run) {
  const std::lock_guard lock(mutex);
  if (reactor_ != nullptr) reactor_->ShowLocked(run);
}

void Watcher::Close(const absl::Status& status) {
  const std::lock_guard lock(mutex);
  if (reactor_ != nullptr) reactor_->EndLocked(ToGrpc(status));
}

class EndedReactor : public grpc::ServerWriteReactor<v1::WatchRunResponse> {
 public:
  explicit EndedReactor(const grpc::Status& status) { Finish(status); }
  void OnDone() override { delete this; }
};

}  // namespace

grpc::ServerWriteReactor<v1::WatchRunResponse>* StartWatch(Supervisor& supervisor,
                                                           const std::string& run_id,
                                                           int64_t after_sequence) {
  auto* reactor = new WatchReactor(supervisor, run_id);
  reactor->Begin(after_sequence);
  return reactor;
}

grpc::ServerWriteReactor<v1::WatchRunResponse>* EndedWatch(const grpc::Status& status) {
  return new EndedReactor(status);
}

}  // namespace lockstep::launch
