#include "launch/cli/log_stream.h"

#include <poll.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <mutex>
#include <thread>

#include "absl/strings/str_cat.h"
#include "launch/cli/client.h"
#include "launch/cli/follow.h"
#include "launch/cli/run_json.h"
#include "launch/cli/verbs.h"

namespace lockstep::cli {
namespace {

constexpr std::chrono::seconds kReconnectFor{300};

// A log stream may be silent for hours, so a reader that went away or a Ctrl-C cannot wait for its
// next byte: a thread of its own looks for both and cancels the call.
class Canceller {
 public:
  Canceller(Interrupts& interrupts, int out_fd)
      : interrupts_(interrupts),
        out_fd_(out_fd),
        thread_([this](const std::stop_token& stop) { Look(stop); }) {}

  void Enter(grpc::ClientContext* call) {
    std::lock_guard lock(mutex_);
    call_ = call;
    if (over()) call->TryCancel();
  }
  void Leave() {
    std::lock_guard lock(mutex_);
    call_ = nullptr;
  }
  int signal() const { return signal_; }
  bool reader_gone() const { return reader_gone_; }
  bool over() const { return signal_ != 0 || reader_gone_; }

 private:
  void Look(const std::stop_token& stop) {
    while (!stop.stop_requested() && !over()) {
      pollfd fds[] = {{interrupts_.fd(), POLLIN, 0}, {out_fd_, 0, 0}};
      poll(fds, std::size(fds), 100);
      if ((fds[1].revents & (POLLERR | POLLHUP)) != 0) reader_gone_ = true;
      if (const int signal = interrupts_.Take(); signal != 0) signal_ = signal;
    }
    std::lock_guard lock(mutex_);
    if (call_ != nullptr && over()) call_->TryCancel();
  }

  Interrupts& interrupts_;
  const int out_fd_;
  std::atomic<int> signal_ = 0;
  std::atomic<bool> reader_gone_ = false;
  std::mutex mutex_;
  grpc::ClientContext* call_ = nullptr;
  std::jthread thread_;
};

void WriteChunk(Context& context, const v1::StreamLogsResponse& chunk) {
  if (!context.json()) {
    context.out.Write(chunk.data());
    return;
  }
  context.out.Write(OneLine(Json{{"data", chunk.data()}, {"next_offset", chunk.next_offset()}}));
}

// One connection: reads until the stream ends. `request` is moved on behind what was read.
absl::Status ReadOnce(Context& context, Canceller& canceller, double first_answer_seconds,
                      v1::StreamLogsRequest& request, int& attempt, bool& connected) {
  auto stub = Connect(context.socket);
  if (!stub.ok()) return stub.status();
  grpc::ClientContext call;
  // Without --follow the whole file comes at once; a coordinator that hangs must not hang the
  // reader. Each call is one burst of the file, so its time is bounded by the file's size.
  if (!request.follow()) {
    call.set_deadline(std::chrono::system_clock::now() +
                      std::chrono::milliseconds(static_cast<int64_t>(first_answer_seconds * 1000)));
  }
  canceller.Enter(&call);
  auto reader = (*stub)->StreamLogs(&call, request);
  v1::StreamLogsResponse chunk;
  while (!context.out.broken() && reader->Read(&chunk)) {
    connected = true;
    WriteChunk(context, chunk);
    // An offset that falls is a log that begins: the newest attempt is another one now.
    if (chunk.next_offset() < request.offset()) ++attempt;
    request.set_offset(chunk.next_offset());
  }
  if (context.out.broken()) call.TryCancel();
  absl::Status status = FromGrpc(reader->Finish());
  canceller.Leave();
  return status;
}

}  // namespace

int PrintLogs(Context& context, const LogOptions& options) {
  Interrupts interrupts;
  // Also the answer to "is there such a run, and does the coordinator answer at all".
  auto run = FindRun(context, options.run);
  if (!run.ok()) return Fail(context, "logs", run.status());

  v1::StreamLogsRequest request;
  request.set_run(run->run_id());
  request.set_attempt(options.attempt);
  request.set_rank(options.mpirun ? -1 : options.rank);
  request.set_offset(-options.tail_bytes);
  request.set_follow(options.follow);
  int attempt = run->attempt();  // Whose bytes `offset` counts when the newest was asked for.
  Canceller canceller(interrupts, context.out.fd());
  auto lost_at = std::chrono::steady_clock::time_point::max();
  const double patience = context.timeout_seconds > 0 ? context.timeout_seconds : 60;
  while (true) {
    bool connected = false;
    const auto begun = std::chrono::steady_clock::now();
    const absl::Status status = ReadOnce(context, canceller, patience, request, attempt, connected);
    if (canceller.signal() != 0) return 128 + canceller.signal();
    if (canceller.reader_gone() || context.out.broken()) return Code(config::ExitCode::kOk);
    if (status.ok()) return Code(config::ExitCode::kOk);
    if (!options.follow || !IsTransportFailure(status)) return Fail(context, "logs", status);
    const auto now = std::chrono::steady_clock::now();
    // A call that was silent for a while was connected as well.
    connected = connected || now - begun > std::chrono::seconds(1);
    if (connected || lost_at == std::chrono::steady_clock::time_point::max()) {
      lost_at = now;
      context.Say(
          "the coordinator went away; the run goes on without it. Waiting for it to come "
          "back (Ctrl-C leaves)");
    } else if (now - lost_at > kReconnectFor) {
      return Fail(context, "logs", status);
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
    if (auto now_run = FindRun(context, request.run());
        options.attempt == 0 && now_run.ok() && now_run->attempt() > attempt) {
      attempt = now_run->attempt();
      request.set_offset(0);
    }
  }
}

}  // namespace lockstep::cli
