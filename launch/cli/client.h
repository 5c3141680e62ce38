// Calls to the coordinator over its Unix socket, with what a person at a terminal needs: an answer
// at once when nobody listens, and orders that survive a coordinator that restarts under them.
//
// Threads: a Client belongs to one thread. Errors are absl::Status with the coordinator's message;
// UNAVAILABLE = nobody listens or the connection broke, DEADLINE_EXCEEDED = no answer in time.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "lockstep/v1/control.grpc.pb.h"

namespace lockstep::cli {

using ControlStub = v1::ControlService::Stub;

// How long a broken order is offered again: a restarted coordinator serves within seconds.
inline constexpr std::chrono::seconds kRetryWindow{10};

/// Tries connect(2) first, because gRPC would sit in its back-off for seconds before it said that
/// the socket is not there. Does not wait for the coordinator to answer.
absl::StatusOr<std::unique_ptr<ControlStub>> Connect(const std::string& socket);

absl::Status FromGrpc(const grpc::Status& status);
/// The call did not fail for a reason of the coordinator's: the connection broke.
bool IsTransportFailure(const absl::Status& status);

/// 128 random bits in hexadecimal.
std::string NewRequestId();

class Client {
 public:
  struct Options {
    std::string socket;
    double timeout_seconds = 5;
    std::chrono::milliseconds retry_window = kRetryWindow;
  };
  explicit Client(Options options) : options_(std::move(options)) {}

  /// A call that changes nothing.
  template <typename Request, typename Response>
  absl::StatusOr<Response> Read(grpc::Status (ControlStub::*method)(grpc::ClientContext*,
                                                                    const Request&, Response*),
                                const Request& request) {
    Response response;
    absl::Status status = Call(/*retry=*/false, [&](ControlStub& stub, grpc::ClientContext& call) {
      return (stub.*method)(&call, request, &response);
    });
    if (!status.ok()) return status;
    return response;
  }

  /// An order. Gives it a request id, and when the connection breaks sends it again under the same
  /// id, so that it is carried out once however often it was sent.
  template <typename Request, typename Response>
  absl::StatusOr<Response> Mutate(grpc::Status (ControlStub::*method)(grpc::ClientContext*,
                                                                      const Request&, Response*),
                                  Request request) {
    request.set_request_id(NewRequestId());
    Response response;
    absl::Status status = Call(/*retry=*/true, [&](ControlStub& stub, grpc::ClientContext& call) {
      response.Clear();
      return (stub.*method)(&call, request, &response);
    });
    if (!status.ok()) return status;
    return response;
  }

 private:
  using Attempt = std::function<grpc::Status(ControlStub&, grpc::ClientContext&)>;
  absl::Status Call(bool retry, const Attempt& attempt);

  Options options_;
  std::unique_ptr<ControlStub> stub_;
};

/// Every run that has not ended: those that hold slots or are paused, oldest first, then those that
/// wait, in the order of their turns.
absl::StatusOr<std::vector<v1::Run>> LiveRuns(Client& client);

}  // namespace lockstep::cli
