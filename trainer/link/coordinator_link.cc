#include "trainer/link/coordinator_link.h"

#include <grpcpp/grpcpp.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <thread>
#include <utility>

#include "config/coordinator_config.h"
#include "lockstep/v1/rank.grpc.pb.h"
#include "spdlog/spdlog.h"
#include "trainer/link/mailbox.h"
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

bool SocketIsThere(const std::string& path) {
  struct stat info {};
  return path.size() < sizeof(sockaddr_un::sun_path) && stat(path.c_str(), &info) == 0 &&
         S_ISSOCK(info.st_mode);
}

bool IsRefusal(const grpc::Status& status) {
  return status.error_code() == grpc::StatusCode::FAILED_PRECONDITION ||
         status.error_code() == grpc::StatusCode::PERMISSION_DENIED;
}

// One stream, from connecting to its end. Asynchronous operations on a queue that one thread
// drives, so that reading and writing never wait for each other and all can be cancelled.
class Stream {
 public:
  Stream(const std::string& socket, Mailbox& mailbox) : socket_(socket), mailbox_(mailbox) {}

  /// Returns when the stream has ended; soon after a request to stop.
  void Run(const std::stop_token& stop);

  bool welcomed() const { return welcomed_; }
  const grpc::Status& status() const { return status_; }
  bool goodbye_taken() const { return said_goodbye_ && status_.ok(); }

 private:
  enum Tag { kStart, kRead, kWrite, kWritesDone, kFinish, kTagCount };
  // gRPC knows an operation by an address.
  void* Begin(Tag tag) {
    ++pending_;
    return &addresses_[tag];
  }
  Tag TagAt(const void* address) const {
    return static_cast<Tag>(static_cast<const char*>(address) - addresses_.data());
  }

  void Connect();
  void Handle(Tag tag, bool ok);
  void Receive();
  void WriteNext();
  void Write(const v1::AttachRequest& message);
  void Close();

  const std::string& socket_;
  Mailbox& mailbox_;
  const steady_clock::time_point began_ = steady_clock::now();
  steady_clock::time_point last_progress_{};
  std::array<char, kTagCount> addresses_{};
  int pending_ = 0;  // Operations that the queue still owes an answer for.
  bool writing_ = false;
  bool welcomed_ = false;
  bool closing_ = false;       // Nothing more is read or written.
  bool said_goodbye_ = false;  // Goodbye is written or being written.
  grpc::Status status_;
  grpc::ClientContext context_;
  grpc::CompletionQueue queue_;
  v1::AttachResponse incoming_;
  std::unique_ptr<v1::RankService::Stub> stub_;
  std::unique_ptr<grpc::ClientAsyncReaderWriter<v1::AttachRequest, v1::AttachResponse>> call_;
};

void Stream::Connect() {
  grpc::ChannelArguments arguments;
  // A channel of its own for each try: the waiting between tries is ours, not the channel's.
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  arguments.SetInt(GRPC_ARG_ENABLE_RETRIES, 0);
  stub_ = v1::RankService::NewStub(
      grpc::CreateCustomChannel("unix:" + socket_, grpc::InsecureChannelCredentials(), arguments));
  call_ = stub_->PrepareAsyncAttach(&context_, &queue_);
  call_->StartCall(Begin(kStart));
}

void Stream::Run(const std::stop_token& stop) {
  Connect();
  bool cancelled = false;
  while (pending_ > 0) {
    void* tag = nullptr;
    bool ok = false;
    const auto next = queue_.AsyncNext(&tag, &ok, std::chrono::system_clock::now() + kLook);
    if (next == grpc::CompletionQueue::GOT_EVENT) {
      Handle(TagAt(tag), ok);
    }
    const bool unanswered = !welcomed_ && steady_clock::now() - began_ > kWelcomeDeadline;
    if (!cancelled && (stop.stop_requested() || unanswered)) {
      cancelled = true;
      context_.TryCancel();
    }
    WriteNext();
  }
  queue_.Shutdown();
  void* tag = nullptr;
  bool ok = false;
  while (queue_.Next(&tag, &ok)) {
  }
}

void Stream::Handle(Tag tag, bool ok) {
  --pending_;
  if (tag == kWrite) writing_ = false;
  if (tag == kFinish || tag == kWritesDone) return;
  if (!ok) {
    Close();
    return;
  }
  switch (tag) {
    case kStart:
      call_->Read(&incoming_, Begin(kRead));
      Write(mailbox_.Hello());
      break;
    case kRead:
      Receive();
      call_->Read(&incoming_, Begin(kRead));
      break;
    default:  // kWrite
      if (said_goodbye_ && !closing_) call_->WritesDone(Begin(kWritesDone));
  }
}

void Stream::Receive() {
  if (incoming_.has_order()) {
    mailbox_.Receive(incoming_.order());
  } else if (incoming_.has_welcome()) {
    welcomed_ = true;
    mailbox_.Welcomed(incoming_.welcome().run_id());
    spdlog::info("the coordinator at {} has taken this run in as {}", socket_, mailbox_.run_id());
  }
}

// One message at a time, and none before the welcome: who is refused should say nothing more.
void Stream::WriteNext() {
  if (!welcomed_ || writing_ || closing_ || said_goodbye_) return;
  const steady_clock::time_point now = steady_clock::now();
  const std::optional<v1::AttachRequest> message =
      mailbox_.Next(now - last_progress_ >= kProgressInterval, now);
  if (!message) return;
  if (message->has_progress()) last_progress_ = now;
  said_goodbye_ = message->has_goodbye();
  Write(*message);
}

void Stream::Write(const v1::AttachRequest& message) {
  writing_ = true;
  call_->Write(message, Begin(kWrite));
}

void Stream::Close() {
  if (closing_) return;
  closing_ = true;
  call_->Finish(&status_, Begin(kFinish));
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
  explicit Impl(LinkOptions options)
      : socket_(options.socket.empty() ? config::DefaultSocket().string() : options.socket),
        may_be_rejected_(!options.run_id.empty()),
        mailbox_(std::move(options)) {
    const BlockSignals block;
    thread_ = std::jthread([this](const std::stop_token& stop) { Run(stop); });
  }

  Mailbox& mailbox() { return mailbox_; }

 private:
  void Run(const std::stop_token& stop);
  bool AfterStream(const Stream& stream);

  const std::string socket_;
  const bool may_be_rejected_;
  Mailbox mailbox_;
  std::jthread thread_;  // Last: it uses the others.
};

void CoordinatorLink::Impl::Run(const std::stop_token& stop) {
  milliseconds backoff = kFirstBackoff;
  bool over = false;
  while (!over && !stop.stop_requested()) {
    // A goodbye that is there when a stream is tried has that one chance.
    const bool last_try = mailbox_.goodbye_wanted();
    milliseconds wait = backoff;
    backoff = std::min(backoff * 2, kLastBackoff);
    if (SocketIsThere(socket_)) {
      Stream stream(socket_, mailbox_);
      stream.Run(stop);
      over = AfterStream(stream);
      if (stream.welcomed()) wait = backoff = kFirstBackoff;
      if (IsRefusal(stream.status())) wait = kRefusedBackoff;
    }
    if (last_try || over) break;
    mailbox_.Wait(stop, wait);
  }
  if (!over) mailbox_.EndGoodbye(false);
}

// True when the link's work is over.
bool CoordinatorLink::Impl::AfterStream(const Stream& stream) {
  const bool was_connected = mailbox_.StreamBroke(steady_clock::now());
  if (stream.goodbye_taken()) {
    mailbox_.EndGoodbye(true);
    return true;
  }
  if (was_connected) {
    spdlog::warn("the link to the coordinator is lost ({}); training goes on",
                 stream.status().error_message());
  }
  if (may_be_rejected_ && IsRefusal(stream.status())) {
    mailbox_.Reject(stream.status().error_message());
    mailbox_.EndGoodbye(false);
    return true;
  }
  return false;
}

CoordinatorLink::CoordinatorLink(LinkOptions options)
    : impl_(std::make_unique<Impl>(std::move(options))) {}

CoordinatorLink::~CoordinatorLink() = default;

void CoordinatorLink::Report(const ProgressReport& progress) {
  impl_->mailbox().SetProgress(progress);
}

void CoordinatorLink::Report(const EvaluationReport& evaluation) {
  v1::AttachRequest message;
  *message.mutable_evaluation() = ToWire(evaluation);
  impl_->mailbox().Queue(std::move(message));
}

void CoordinatorLink::Report(const CheckpointReport& checkpoint) {
  v1::AttachRequest message;
  *message.mutable_checkpoint() = ToWire(checkpoint);
  impl_->mailbox().Queue(std::move(message));
}

std::vector<Order> CoordinatorLink::TakeOrders() {
  return impl_->mailbox().TakeOrders();
}

void CoordinatorLink::OrderDone(const std::string& order_id, int64_t step, const std::string& error,
                                const std::optional<CheckpointReport>& checkpoint) {
  v1::AttachRequest message;
  v1::OrderDone* done = message.mutable_order_done();
  done->set_order_id(order_id);
  done->set_step(step);
  done->set_error(error);
  if (checkpoint) *done->mutable_checkpoint() = ToWire(*checkpoint);
  impl_->mailbox().OrderDone(order_id, std::move(message));
}

void CoordinatorLink::Hold(bool held, int64_t step, const std::string& reason) {
  v1::AttachRequest message;
  message.mutable_hold()->set_held(held);
  message.mutable_hold()->set_step(step);
  message.mutable_hold()->set_reason(reason);
  impl_->mailbox().Queue(std::move(message));
}

std::string CoordinatorLink::rejected() const {
  return impl_->mailbox().rejected();
}
bool CoordinatorLink::connected() const {
  return impl_->mailbox().connected();
}
std::string CoordinatorLink::run_id() const {
  return impl_->mailbox().run_id();
}

bool CoordinatorLink::Goodbye(int exit_code, const std::string& reason,
                              const ProgressReport& progress, std::chrono::milliseconds timeout) {
  v1::AttachRequest message;
  v1::Goodbye* goodbye = message.mutable_goodbye();
  goodbye->set_exit_code(exit_code);
  goodbye->set_reason(reason);
  *goodbye->mutable_progress() = ToWire(progress);
  return impl_->mailbox().Goodbye(std::move(message), timeout);
}

}  // namespace lockstep::trainer
