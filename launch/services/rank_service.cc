#include "launch/services/rank_service.h"

#include <deque>
#include <memory>
#include <mutex>
#include <optional>

#include "launch/services/rpc_status.h"
#include "launch/services/submission.h"

namespace lockstep::launch {
namespace {

// Orders to one run that its rank 0 does not read: it is gone or stopped, and will get them again.
constexpr size_t kMaxUnsent = 64;

class AttachReactor;

// The part of a stream that the supervisor holds; may outlive the reactor.
class StreamHandle : public RankStream {
 public:
  explicit StreamHandle(AttachReactor* reactor) : reactor_(reactor) {}
  void Welcome(const std::string& run_id) override;
  void Send(const v1::Order& order) override;
  void Close(const absl::Status& status) override;

  std::mutex mutex;
  AttachReactor* reactor_;  // Guarded by mutex; null once the stream is done.
};

class AttachReactor : public grpc::ServerBidiReactor<v1::AttachRequest, v1::AttachResponse> {
 public:
  AttachReactor(Supervisor& supervisor, std::string user)
      : supervisor_(supervisor),
        user_(std::move(user)),
        handle_(std::make_shared<StreamHandle>(this)) {
    StartRead(&request_);
  }

  void OnReadDone(bool ok) override {
    if (!ok) {
      supervisor_.Detach(handle_);
      End(grpc::Status::OK);
      return;
    }
    if (!greeted_) {
      if (!request_.has_hello()) {
        End({grpc::StatusCode::INVALID_ARGUMENT, "the first message must be a hello"});
        return;
      }
      greeted_ = true;
      const v1::Hello& hello = request_.hello();
      // Also for a run that names an id: an external one does so when it attaches again.
      RunSpec external = hello.token().empty() ? ExternalSpec(hello) : RunSpec();
      external.submitted_by = user_;
      supervisor_.Attach(hello, std::move(external), handle_);
    } else {
      supervisor_.FromRank(handle_, std::move(request_));
    }
    request_.Clear();
    StartRead(&request_);
  }

  void OnWriteDone(bool ok) override {
    const std::lock_guard lock(handle_->mutex);
    writing_ = false;
    if (!ok) unsent_.clear();
    Continue();
  }

  void OnCancel() override {
    supervisor_.Detach(handle_);
    End(grpc::Status::CANCELLED);
  }

  void OnDone() override {
    {
      const std::lock_guard lock(handle_->mutex);
      handle_->reactor_ = nullptr;
    }
    delete this;
  }

  // The rest is called with the handle's mutex held.
  void Queue(v1::AttachResponse response) {
    if (end_ || unsent_.size() >= kMaxUnsent) return;
    unsent_.push_back(std::move(response));
    Continue();
  }
  void EndLocked(const grpc::Status& status) {
    if (end_) return;
    end_ = status;
    Continue();
  }

 private:
  void End(const grpc::Status& status) {
    const std::lock_guard lock(handle_->mutex);
    EndLocked(status);
  }

  void Continue() {
    if (writing_ || finished_) return;
    if (!unsent_.empty()) {
      writing_ = true;
      response_ = std::move(unsent_.front());
      unsent_.pop_front();
      StartWrite(&response_);
    } else if (end_) {
      finished_ = true;
      Finish(*end_);
    }
  }

  Supervisor& supervisor_;
  const std::string user_;
  const std::shared_ptr<StreamHandle> handle_;
  v1::AttachRequest request_;
  bool greeted_ = false;

  // Guarded by the handle's mutex.
  std::deque<v1::AttachResponse> unsent_;
  v1::AttachResponse response_;
  bool writing_ = false;
  bool finished_ = false;
  std::optional<grpc::Status> end_;
};

void StreamHandle::Welcome(const std::string& run_id) {
  v1::AttachResponse response;
  response.mutable_welcome()->set_run_id(run_id);
  const std::lock_guard lock(mutex);
  if (reactor_ != nullptr) reactor_->Queue(std::move(response));
}

void StreamHandle::Send(const v1::Order& order) {
  v1::AttachResponse response;
  *response.mutable_order() = order;
  const std::lock_guard lock(mutex);
  if (reactor_ != nullptr) reactor_->Queue(std::move(response));
}

void StreamHandle::Close(const absl::Status& status) {
  const std::lock_guard lock(mutex);
  if (reactor_ != nullptr) reactor_->EndLocked(ToGrpc(status));
}

}  // namespace

grpc::ServerBidiReactor<v1::AttachRequest, v1::AttachResponse>* RankServiceImpl::Attach(
    grpc::CallbackServerContext* context) {
  return new AttachReactor(supervisor_, user_of_ ? user_of_(context->peer()) : std::string());
}

}  // namespace lockstep::launch
