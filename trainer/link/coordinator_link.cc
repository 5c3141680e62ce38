#include "trainer/link/coordinator_link.h"

#include <grpcpp/grpcpp.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <algorithm>
#include <condition_variable>
#include <csignal>
#include <deque>
#include <map>
#include <mutex>
#include <set>
#include <thread>
#include <utility>

#include "config/coordinator_config.h"
#include "lockstep/v1/rank.grpc.pb.h"
#include "spdlog/spdlog.h"
#include "trainer/link/wire.h"

namespace lockstep::trainer {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr milliseconds kLook{50};               // Longest wait for an event of the stream.
constexpr milliseconds kProgressInterval{100};  // At most ten progress reports a second.
constexpr milliseconds kFirstBackoff{200};
constexpr milliseconds kLastBackoff{2000};
constexpr milliseconds kRefusedBackoff{10000};  // A coordinator that will not have us.
constexpr milliseconds kWelcomeDeadline{10000};
constexpr milliseconds kUnsure{1000};  // What was written so shortly before a break may be lost.
constexpr size_t kMaxQueued = 1000;
constexpr size_t kMaxOrders = 4096;  // Remembered ids; a run sees a handful.

bool SocketIsThere(const std::string& path) {
  struct stat info {};
  return path.size() < sizeof(sockaddr_un::sun_path) && stat(path.c_str(), &info) == 0 &&
         S_ISSOCK(info.st_mode);
}

// Threads started in its scope (gRPC's too) take no signals: those are the step loop's.
class BlockSignals {
 public:
  BlockSignals() {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before_);
  }
  ~BlockSignals() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
  BlockSignals(const BlockSignals&) = delete;
  BlockSignals& operator=(const BlockSignals&) = delete;

 private:
  sigset_t before_{};
};

}  // namespace

class CoordinatorLink::Impl {
 public:
  explicit Impl(LinkOptions options) : options_(std::move(options)) {
    if (options_.socket.empty()) options_.socket = config::DefaultSocket().string();
    run_id_ = options_.run_id;
    const BlockSignals block;
    thread_ = std::jthread([this](const std::stop_token& stop) { Run(stop); });
  }

  void SetProgress(const ProgressReport& progress) {
    const std::lock_guard lock(mutex_);
    progress_ = progress;
    progress_is_new_ = true;
  }

  void Queue(v1::AttachRequest message) {
    const std::lock_guard lock(mutex_);
    QueueLocked(std::move(message));
  }

  std::vector<Order> TakeOrders() {
    const std::lock_guard lock(mutex_);
    return std::exchange(orders_, {});
  }

  void OrderDone(const std::string& order_id, v1::AttachRequest message) {
    const std::lock_guard lock(mutex_);
    if (done_.size() < kMaxOrders) done_[order_id] = message;
    QueueLocked(std::move(message));
  }

  std::string rejected() const {
    const std::lock_guard lock(mutex_);
    return rejected_;
  }
  bool connected() const {
    const std::lock_guard lock(mutex_);
    return connected_;
  }
  std::string run_id() const {
    const std::lock_guard lock(mutex_);
    return run_id_;
  }

  bool Goodbye(v1::AttachRequest message, milliseconds timeout) {
    std::unique_lock lock(mutex_);
    if (goodbye_ || !rejected_.empty()) return false;
    goodbye_ = std::move(message);
    // Who fails in the middle of something may not know how far the run was.
    if (progress_ && goodbye_->goodbye().progress().step() < progress_->step) {
      *goodbye_->mutable_goodbye()->mutable_progress() = ToWire(*progress_);
    }
    changed_.notify_all();
    changed_.wait_for(lock, timeout, [this] { return goodbye_over_; });
    return goodbye_taken_;
  }

 private:
  // One stream from connecting to its end; used only by the link's thread.
  struct Stream {
    grpc::ClientContext context;
    grpc::CompletionQueue queue;
    std::unique_ptr<v1::RankService::Stub> stub;
    std::unique_ptr<grpc::ClientAsyncReaderWriter<v1::AttachRequest, v1::AttachResponse>> call;
    v1::AttachResponse incoming;
    grpc::Status status;
    int pending = 0;  // Operations the queue still owes an answer for.
    bool started = false;
    bool writing = false;
    bool welcomed = false;
    bool closing = false;       // Nothing more is written or read.
    bool finishing = false;     // Finish was asked for.
    bool said_goodbye = false;  // Goodbye is written or being written.
    steady_clock::time_point began = steady_clock::now();
    steady_clock::time_point last_progress{};
  };
  enum Tag : intptr_t { kStart = 1, kRead, kWrite, kWritesDone, kFinish };
  static void* AsTag(Tag tag) { return reinterpret_cast<void*>(tag); }

  struct Written {
    steady_clock::time_point when;
    v1::AttachRequest message;
  };

  void QueueLocked(v1::AttachRequest message) {
    if (goodbye_ || !rejected_.empty()) return;
    if (queued_.size() >= kMaxQueued) queued_.pop_front();
    queued_.push_back(std::move(message));
  }

  void Run(const std::stop_token& stop);
  void RunStream(const std::stop_token& stop, Stream& stream);
  void Handle(Stream& stream, Tag tag, bool ok);
  void HandleIncoming(Stream& stream);
  void WriteNext(Stream& stream);
  void Write(Stream& stream, const v1::AttachRequest& message);
  void Close(Stream& stream);
  bool AfterStream(const Stream& stream, bool goodbye_was_set);
  bool EndGoodbye(bool taken);

  LinkOptions options_;

  mutable std::mutex mutex_;
  std::condition_variable_any changed_;
  // Guarded by mutex_.
  std::optional<ProgressReport> progress_;
  bool progress_is_new_ = false;
  std::deque<v1::AttachRequest> queued_;
  std::deque<Written> unsure_;
  std::vector<Order> orders_;
  std::set<std::string> seen_orders_;
  std::map<std::string, v1::AttachRequest> done_;
  std::optional<v1::AttachRequest> goodbye_;
  bool goodbye_over_ = false;
  bool goodbye_taken_ = false;
  bool connected_ = false;
  std::string rejected_;
  std::string run_id_;

  std::jthread thread_;  // Last: it uses all of the above.
};

void CoordinatorLink::Impl::Run(const std::stop_token& stop) {
  milliseconds backoff = kFirstBackoff;
  while (!stop.stop_requested()) {
    bool goodbye_was_set = false;
    {
      const std::lock_guard lock(mutex_);
      goodbye_was_set = goodbye_.has_value();
    }
    milliseconds wait = backoff;
    if (SocketIsThere(options_.socket)) {
      Stream stream;
      RunStream(stop, stream);
      if (AfterStream(stream, goodbye_was_set)) return;
      if (stream.welcomed) backoff = kFirstBackoff;
      const bool refused = stream.status.error_code() == grpc::StatusCode::FAILED_PRECONDITION ||
                           stream.status.error_code() == grpc::StatusCode::PERMISSION_DENIED;
      wait = refused ? kRefusedBackoff : backoff;
    } else if (goodbye_was_set && EndGoodbye(false)) {
      return;
    }
    backoff = std::min(backoff * 2, kLastBackoff);
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, stop, wait, [this] { return goodbye_.has_value(); });
  }
  EndGoodbye(false);
}

void CoordinatorLink::Impl::RunStream(const std::stop_token& stop, Stream& stream) {
  grpc::ChannelArguments arguments;
  // A channel of its own for each try: the waiting between tries is ours, not the channel's.
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  arguments.SetInt(GRPC_ARG_ENABLE_RETRIES, 0);
  stream.stub = v1::RankService::NewStub(grpc::CreateCustomChannel(
      "unix:" + options_.socket, grpc::InsecureChannelCredentials(), arguments));
  stream.call = stream.stub->PrepareAsyncAttach(&stream.context, &stream.queue);
  stream.call->StartCall(AsTag(kStart));
  stream.pending = 1;
  bool cancelled = false;
  while (stream.pending > 0) {
    void* tag = nullptr;
    bool ok = false;
    const auto next = stream.queue.AsyncNext(&tag, &ok, std::chrono::system_clock::now() + kLook);
    if (next == grpc::CompletionQueue::GOT_EVENT) {
      Handle(stream, static_cast<Tag>(reinterpret_cast<intptr_t>(tag)), ok);
    }
    const bool unanswered =
        !stream.welcomed && steady_clock::now() - stream.began > kWelcomeDeadline;
    if (!cancelled && (stop.stop_requested() || unanswered)) {
      cancelled = true;
      stream.context.TryCancel();
    }
    WriteNext(stream);
  }
  stream.queue.Shutdown();
  void* tag = nullptr;
  bool ok = false;
  while (stream.queue.Next(&tag, &ok)) {
  }
}

void CoordinatorLink::Impl::Handle(Stream& stream, Tag tag, bool ok) {
  --stream.pending;
  switch (tag) {
    case kStart:
      stream.started = true;
      if (!ok) {
        Close(stream);
        break;
      }
      ++stream.pending;
      stream.call->Read(&stream.incoming, AsTag(kRead));
      {
        v1::AttachRequest hello;
        const std::lock_guard lock(mutex_);
        *hello.mutable_hello() = ToWire(options_, progress_);
        Write(stream, hello);
      }
      break;
    case kRead:
      if (!ok) {
        Close(stream);
        break;
      }
      HandleIncoming(stream);
      ++stream.pending;
      stream.call->Read(&stream.incoming, AsTag(kRead));
      break;
    case kWrite:
      stream.writing = false;
      if (!ok) {
        Close(stream);
      } else if (stream.said_goodbye && !stream.closing) {
        ++stream.pending;
        stream.call->WritesDone(AsTag(kWritesDone));
      }
      break;
    case kWritesDone:
    case kFinish:
      break;
  }
}

void CoordinatorLink::Impl::HandleIncoming(Stream& stream) {
  const std::lock_guard lock(mutex_);
  if (stream.incoming.has_welcome()) {
    stream.welcomed = true;
    connected_ = true;
    if (!stream.incoming.welcome().run_id().empty()) {
      run_id_ = stream.incoming.welcome().run_id();
    }
    spdlog::info("the coordinator at {} has taken this run in as {}", options_.socket, run_id_);
    return;
  }
  if (!stream.incoming.has_order()) return;
  const v1::Order& message = stream.incoming.order();
  if (const auto done = done_.find(message.order_id()); done != done_.end()) {
    QueueLocked(done->second);
    return;
  }
  if (seen_orders_.size() >= kMaxOrders || !seen_orders_.insert(message.order_id()).second) return;
  if (const std::optional<Order> order = FromWire(message)) {
    orders_.push_back(*order);
  } else {
    v1::AttachRequest answer;
    answer.mutable_order_done()->set_order_id(message.order_id());
    answer.mutable_order_done()->set_error("this trainer does not know this kind of order");
    done_[message.order_id()] = answer;
    QueueLocked(std::move(answer));
  }
}

// Puts the next message on the stream when it has room for one: queued ones in order, then
// progress, and goodbye once nothing else is left.
void CoordinatorLink::Impl::WriteNext(Stream& stream) {
  if (!stream.welcomed || stream.writing || stream.closing || stream.said_goodbye) return;
  const steady_clock::time_point now = steady_clock::now();
  const std::lock_guard lock(mutex_);
  while (!unsure_.empty() && now - unsure_.front().when > kUnsure) unsure_.pop_front();
  if (!queued_.empty()) {
    Write(stream, queued_.front());
    unsure_.push_back({now, std::move(queued_.front())});
    queued_.pop_front();
  } else if (goodbye_) {
    stream.said_goodbye = true;
    Write(stream, *goodbye_);
  } else if (progress_is_new_ && now - stream.last_progress >= kProgressInterval) {
    v1::AttachRequest message;
    *message.mutable_progress() = ToWire(*progress_);
    progress_is_new_ = false;
    stream.last_progress = now;
    Write(stream, message);
  }
}

void CoordinatorLink::Impl::Write(Stream& stream, const v1::AttachRequest& message) {
  stream.writing = true;
  ++stream.pending;
  stream.call->Write(message, AsTag(kWrite));
}

void CoordinatorLink::Impl::Close(Stream& stream) {
  stream.closing = true;
  if (stream.finishing) return;
  stream.finishing = true;
  ++stream.pending;
  stream.call->Finish(&stream.status, AsTag(kFinish));
}

// True when the link's work is over.
bool CoordinatorLink::Impl::AfterStream(const Stream& stream, bool goodbye_was_set) {
  const bool taken = stream.said_goodbye && stream.status.ok();
  bool over = false;
  {
    const std::lock_guard lock(mutex_);
    if (connected_ && !taken) {
      spdlog::warn("the link to the coordinator is lost ({}); training goes on",
                   stream.status.error_message());
    }
    connected_ = false;
    // What may not have arrived goes again, before what is waiting.
    const steady_clock::time_point now = steady_clock::now();
    while (!unsure_.empty()) {
      if (now - unsure_.back().when <= kUnsure && queued_.size() < kMaxQueued) {
        queued_.push_front(std::move(unsure_.back().message));
      }
      unsure_.pop_back();
    }
    const grpc::StatusCode code = stream.status.error_code();
    if (!options_.run_id.empty() && (code == grpc::StatusCode::FAILED_PRECONDITION ||
                                     code == grpc::StatusCode::PERMISSION_DENIED)) {
      rejected_ = stream.status.error_message();
      if (rejected_.empty()) rejected_ = "the coordinator refused this attempt";
      over = true;
    }
  }
  // A goodbye that was there when this stream was tried has had its chance.
  if (taken || over || goodbye_was_set) over = EndGoodbye(taken) || over;
  return over;
}

// True when a goodbye had been asked for.
bool CoordinatorLink::Impl::EndGoodbye(bool taken) {
  const std::lock_guard lock(mutex_);
  goodbye_over_ = true;
  goodbye_taken_ = taken;
  changed_.notify_all();
  return goodbye_.has_value();
}

CoordinatorLink::CoordinatorLink(LinkOptions options)
    : impl_(std::make_unique<Impl>(std::move(options))) {}

CoordinatorLink::~CoordinatorLink() = default;

void CoordinatorLink::Report(const ProgressReport& progress) {
  impl_->SetProgress(progress);
}

void CoordinatorLink::Report(const EvaluationReport& evaluation) {
  v1::AttachRequest message;
  *message.mutable_evaluation() = ToWire(evaluation);
  impl_->Queue(std::move(message));
}

void CoordinatorLink::Report(const CheckpointReport& checkpoint) {
  v1::AttachRequest message;
  *message.mutable_checkpoint() = ToWire(checkpoint);
  impl_->Queue(std::move(message));
}

std::vector<Order> CoordinatorLink::TakeOrders() {
  return impl_->TakeOrders();
}

void CoordinatorLink::OrderDone(const std::string& order_id, int64_t step, const std::string& error,
                                const std::optional<CheckpointReport>& checkpoint) {
  v1::AttachRequest message;
  v1::OrderDone* done = message.mutable_order_done();
  done->set_order_id(order_id);
  done->set_step(step);
  done->set_error(error);
  if (checkpoint) *done->mutable_checkpoint() = ToWire(*checkpoint);
  impl_->OrderDone(order_id, std::move(message));
}

void CoordinatorLink::Hold(bool held, int64_t step, const std::string& reason) {
  v1::AttachRequest message;
  message.mutable_hold()->set_held(held);
  message.mutable_hold()->set_step(step);
  message.mutable_hold()->set_reason(reason);
  impl_->Queue(std::move(message));
}

std::string CoordinatorLink::rejected() const {
  return impl_->rejected();
}
bool CoordinatorLink::connected() const {
  return impl_->connected();
}
std::string CoordinatorLink::run_id() const {
  return impl_->run_id();
}

bool CoordinatorLink::Goodbye(int exit_code, const std::string& reason,
                              const ProgressReport& progress, std::chrono::milliseconds timeout) {
  v1::AttachRequest message;
  v1::Goodbye* goodbye = message.mutable_goodbye();
  goodbye->set_exit_code(exit_code);
  goodbye->set_reason(reason);
  *goodbye->mutable_progress() = ToWire(progress);
  return impl_->Goodbye(std::move(message), timeout);
}

}  // namespace lockstep::trainer
