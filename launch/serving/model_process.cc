#include "launch/serving/model_process.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <system_error>
#include <thread>

#include "absl/strings/str_cat.h"

namespace lockstep::launch {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr int kProtocolVersion = 1;
constexpr size_t kMaxAnswerBytes = 8u << 20;
constexpr int kChildSocket = 3;
constexpr uintmax_t kMaxLogBytes = 1u << 20;  // Larger, it begins anew with the next process.
constexpr milliseconds kEndPatience{200};
constexpr milliseconds kSlice{100};
constexpr milliseconds kWriteTimeout{5'000};  // To a process that waits for a question.

std::vector<char*> Pointers(const std::vector<std::string>& strings) {
  std::vector<char*> pointers;
  pointers.reserve(strings.size() + 1);
  for (const std::string& string : strings) pointers.push_back(const_cast<char*>(string.c_str()));
  pointers.push_back(nullptr);
  return pointers;
}

absl::StatusOr<pid_t> Spawn(const ModelProcessOptions& options, const std::string& checkpoint,
                            int socket) {
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
  std::error_code unknown;
  const bool full = std::filesystem::file_size(options.log, unknown) > kMaxLogBytes && !unknown;
  posix_spawn_file_actions_addopen(
      &actions, 1, options.log.c_str(),
      O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW | (full ? O_TRUNC : 0), 0640);
  posix_spawn_file_actions_adddup2(&actions, 1, 2);
  posix_spawn_file_actions_adddup2(&actions, socket, kChildSocket);
  posix_spawn_file_actions_addclosefrom_np(&actions, kChildSocket + 1);
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  posix_spawnattr_setflags(&attributes,
                           POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  sigset_t none;
  sigset_t all;
  sigemptyset(&none);
  sigfillset(&all);
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setsigdefault(&attributes, &all);
  const std::vector<std::string> arguments = {
      options.trainer, "serve", "--socket-fd", std::to_string(kChildSocket), "--", checkpoint};
  pid_t pid = 0;
  const int error = posix_spawn(&pid, options.trainer.c_str(), &actions, &attributes,
                                Pointers(arguments).data(), Pointers(options.environment).data());
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&actions);
  if (error != 0) {
    return absl::UnavailableError(
        absl::StrCat("cannot start ", options.trainer, ": ", strerror(error)));
  }
  return pid;
}

}  // namespace

ModelProcess::ModelProcess(pid_t pid, int socket, const ModelProcessOptions& options)
    : options_(options), pid_(pid), socket_(socket), reader_(socket, kMaxAnswerBytes) {}

absl::StatusOr<std::unique_ptr<ModelProcess>> ModelProcess::Start(
    const ModelProcessOptions& options, const std::string& checkpoint) {
  if (options.trainer.empty()) {
    return absl::UnavailableError(
        "no lockstep-trainer found to hold the model; set `trainer` in lockstepd.yaml");
  }
  int sockets[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets) != 0) {
    return absl::UnavailableError(absl::StrCat("socketpair: ", strerror(errno)));
  }
  // A child's end that has the child's number already would stay close-on-exec.
  if (sockets[1] == kChildSocket) sockets[1] = fcntl(kChildSocket, F_DUPFD_CLOEXEC, 4);
  const auto pid = Spawn(options, checkpoint, sockets[1]);
  close(sockets[1]);
  if (!pid.ok()) {
    close(sockets[0]);
    return pid.status();
  }
  std::unique_ptr<ModelProcess> process(new ModelProcess(*pid, sockets[0], options));
  if (absl::Status greeted = process->Greet(); !greeted.ok()) return greeted;
  return process;
}

ModelProcess::~ModelProcess() {
  close(socket_);
  if (pid_ > 0 && Reap(kEndPatience) < 0) {
    kill(pid_, SIGKILL);
    while (waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
    }
  }
}

// The wait status once it has ended; -1 = it runs on.
int ModelProcess::Reap(milliseconds patience) {
  const auto end = steady_clock::now() + patience;
  for (;;) {
    int status = 0;
    const pid_t reaped = waitpid(pid_, &status, WNOHANG);
    if (reaped == pid_) {
      pid_ = 0;
      return status;
    }
    if (steady_clock::now() >= end) return -1;
    std::this_thread::sleep_for(milliseconds(5));
  }
}

absl::Status ModelProcess::Died(const absl::Status& how) {
  broken_ = true;
  const int status = pid_ > 0 ? Reap(kEndPatience) : -1;
  std::string end = std::string(how.message());
  if (status >= 0 && WIFSIGNALED(status)) {
    end = absl::StrCat("signal ", WTERMSIG(status));
  } else if (status >= 0) {
    end = absl::StrCat("exit code ", WEXITSTATUS(status));
  }
  return absl::UnavailableError(absl::StrCat("the process that holds the model ended (", end, "); ",
                                             options_.log.string(), " may say why"));
}

// The next frame; gives up early when everything ends.
absl::StatusOr<std::string> ModelProcess::Await(config::FrameDeadline deadline) {
  for (;;) {
    auto frame = reader_.Read(std::min(deadline, steady_clock::now() + kSlice));
    if (!absl::IsDeadlineExceeded(frame.status())) return frame;
    if (options_.stopping && options_.stopping()) {
      broken_ = true;
      return absl::UnavailableError("the daemon is ending");
    }
    if (steady_clock::now() >= deadline) return frame;
  }
}

absl::Status ModelProcess::Greet() {
  const auto frame = Await(steady_clock::now() + options_.start_timeout);
  if (absl::IsDeadlineExceeded(frame.status())) {
    broken_ = true;
    return absl::DeadlineExceededError(absl::StrCat("the model was not in memory after ",
                                                    options_.start_timeout.count() / 1000, " s; ",
                                                    options_.log.string(), " may say why"));
  }
  if (!frame.ok()) return Died(frame.status());
  if (!hello_.ParseFromString(*frame) || hello_.protocol_version() != kProtocolVersion) {
    broken_ = true;
    return absl::UnavailableError(absl::StrCat(
        options_.trainer, " speaks another language than this daemon; install both together"));
  }
  if (hello_.code() != 0) {
    broken_ = true;
    return {static_cast<absl::StatusCode>(hello_.code()), hello_.error()};
  }
  return absl::OkStatus();
}

// Takes the answer that an earlier caller did not wait for.
absl::Status ModelProcess::Drain(config::FrameDeadline deadline) {
  if (!owed_) return absl::OkStatus();
  const auto frame = Await(std::min(deadline, owed_by_));
  if (absl::IsDeadlineExceeded(frame.status()) && steady_clock::now() < owed_by_) {
    return absl::DeadlineExceededError("the model is busy with an earlier picture");
  }
  if (!frame.ok()) return Died(frame.status());
  owed_ = false;
  return absl::OkStatus();
}

absl::StatusOr<v1::ServeResponse> ModelProcess::Ask(const v1::PredictRequest& request,
                                                    config::FrameDeadline deadline) {
  if (absl::Status drained = Drain(deadline); !drained.ok()) return drained;
  v1::ServeRequest question;
  question.set_id(++last_id_);
  question.set_picture(request.picture());
  question.set_picture_name(request.picture_name());
  question.set_top_k(request.top_k());
  const auto now = steady_clock::now();
  // A question half written is of no use, so the caller's deadline does not end the writing.
  if (absl::Status written =
          config::WriteFrame(socket_, question.SerializeAsString(), now + kWriteTimeout);
      !written.ok()) {
    return Died(written);
  }
  owed_by_ = now + options_.answer_timeout;
  const auto frame = Await(std::min(deadline, owed_by_));
  if (absl::IsDeadlineExceeded(frame.status()) && steady_clock::now() < owed_by_) {
    owed_ = true;
    return absl::DeadlineExceededError("the model did not answer in time");
  }
  if (!frame.ok()) return Died(frame.status());
  v1::ServeResponse response;
  if (!response.ParseFromString(*frame) || response.id() != question.id()) {
    return Died(absl::DataLossError("a message is damaged"));
  }
  if (response.code() != 0) {
    return absl::Status(static_cast<absl::StatusCode>(response.code()), response.error());
  }
  return response;
}

}  // namespace lockstep::launch
