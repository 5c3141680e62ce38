#include "launch/cli/client.h"

#include <fcntl.h>
#include <grpcpp/create_channel.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <iterator>
#include <thread>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"

namespace lockstep::cli {
namespace {

using Clock = std::chrono::steady_clock;

absl::Status Probe(const std::string& socket_path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (socket_path.empty() || socket_path.size() >= sizeof address.sun_path) {
    return absl::InvalidArgumentError(
        absl::StrFormat("the socket path '%s' must have 1 to %d characters", socket_path,
                        sizeof address.sun_path - 1));
  }
  memcpy(address.sun_path, socket_path.data(), socket_path.size());
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) {
    return absl::InternalError(absl::StrCat("cannot make a socket: ", strerror(errno)));
  }
  const int result = connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address);
  const int error = result == 0 ? 0 : errno;
  close(fd);
  switch (error) {
    case 0:
    case EAGAIN:  // Somebody listens but has not accepted the earlier ones: let the call find out.
    case EINPROGRESS:
      return absl::OkStatus();
    case ENOENT:
      return absl::UnavailableError(
          absl::StrCat("no coordinator is running: there is no socket ", socket_path));
    case ECONNREFUSED:
      return absl::UnavailableError(
          absl::StrCat("no coordinator is running: nobody listens on ", socket_path));
    case EACCES:
    case EPERM:
      return absl::PermissionDeniedError(
          absl::StrCat("you may not use the coordinator's socket ", socket_path));
    default:
      return absl::UnavailableError(
          absl::StrCat("cannot reach a coordinator on ", socket_path, ": ", strerror(error)));
  }
}

}  // namespace

absl::StatusOr<std::unique_ptr<ControlStub>> Connect(const std::string& socket) {
  if (absl::Status status = Probe(socket); !status.ok()) return status;
  grpc::ChannelArguments arguments;
  // A subchannel of its own: a shared one would still be in the back-off of the broken one before.
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  arguments.SetMaxReceiveMessageSize(64 << 20);
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  return v1::ControlService::NewStub(grpc::CreateCustomChannel(
      absl::StrCat("unix:", socket), grpc::InsecureChannelCredentials(), arguments));
}

absl::Status FromGrpc(const grpc::Status& status) {
  if (status.ok()) return absl::OkStatus();
  std::string message = status.error_message();
  // Each wrong field of a request, unless the message names it already.
  google::rpc::Status details;
  if (!status.error_details().empty() && details.ParseFromString(status.error_details())) {
    for (const google::protobuf::Any& detail : details.details()) {
      google::rpc::BadRequest bad;
      if (!detail.UnpackTo(&bad)) continue;
      for (const auto& violation : bad.field_violations()) {
        if (absl::StrContains(message, violation.description())) continue;
        absl::StrAppend(&message, "\n", violation.description());
      }
    }
  }
  return absl::Status(static_cast<absl::StatusCode>(status.error_code()), message);
}

bool IsTransportFailure(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kCancelled:
      return true;
    case absl::StatusCode::kUnknown:
      return absl::StrContains(status.message(), "Stream removed");
    case absl::StatusCode::kInternal:
      return absl::StrContains(status.message(), "RST_STREAM");
    default:
      return false;
  }
}

std::string NewRequestId() {
  unsigned char bytes[16];
  // Cannot fail for 16 bytes once the system is up.
  while (getrandom(bytes, sizeof bytes, 0) != static_cast<ssize_t>(sizeof bytes)) {
  }
  return absl::BytesToHexString(absl::string_view(reinterpret_cast<char*>(bytes), sizeof bytes));
}

absl::Status Client::Call(bool retry, const Attempt& attempt) {
  const auto timeout = std::chrono::duration_cast<Clock::duration>(
      std::chrono::duration<double>(options_.timeout_seconds));
  const auto deadline = Clock::now() + timeout;
  auto give_up = Clock::time_point::max();  // Set when the connection breaks.
  while (true) {
    absl::Status status;
    if (!stub_) {
      auto stub = Connect(options_.socket);
      if (stub.ok()) {
        stub_ = *std::move(stub);
      } else {
        status = stub.status();
        // Nobody was there to begin with: say so at once.
        if (give_up == Clock::time_point::max()) return status;
      }
    }
    const auto now = Clock::now();
    if (stub_) {
      grpc::ClientContext call;
      call.set_deadline(std::chrono::system_clock::now() +
                        std::chrono::duration_cast<std::chrono::system_clock::duration>(
                            std::max(deadline - now, Clock::duration::zero())));
      status = FromGrpc(attempt(*stub_, call));
      if (status.ok()) return status;
      if (status.code() == absl::StatusCode::kDeadlineExceeded && Clock::now() >= deadline) {
        return absl::DeadlineExceededError(
            absl::StrFormat("no answer from the coordinator on %s within %g s", options_.socket,
                            options_.timeout_seconds));
      }
    }
    if (!IsTransportFailure(status)) return status;
    // A connection that broke starts the window; a coordinator that is not back yet only uses it
    // up.
    if (stub_) give_up = Clock::now() + options_.retry_window;
    stub_.reset();
    if (!retry || Clock::now() >= std::min(give_up, deadline)) {
      if (status.code() == absl::StatusCode::kUnavailable) return status;
      return absl::UnavailableError(status.message());
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  }
}

absl::StatusOr<std::vector<v1::Run>> LiveRuns(Client& client) {
  v1::ListRunsRequest request;
  request.set_page_size(500);
  for (int state = v1::RUN_STATE_QUEUED; state <= v1::RUN_STATE_RECOVERING; ++state) {
    request.add_states(static_cast<v1::RunState>(state));
  }
  std::vector<v1::Run> runs;
  do {
    auto page = client.Read(&ControlStub::ListRuns, request);
    if (!page.ok()) return page.status();
    std::move(page->mutable_runs()->begin(), page->mutable_runs()->end(), std::back_inserter(runs));
    request.set_page_token(page->next_page_token());
  } while (!request.page_token().empty());
  std::reverse(runs.begin(), runs.end());
  const auto turn = [](const v1::Run& run) {
    return run.state() == v1::RUN_STATE_QUEUED ? std::max(run.queue_position(), 1) : 0;
  };
  std::stable_sort(runs.begin(), runs.end(),
                   [&](const v1::Run& a, const v1::Run& b) { return turn(a) < turn(b); });
  return runs;
}

}  // namespace lockstep::cli
