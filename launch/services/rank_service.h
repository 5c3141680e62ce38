// The ranks' end of the daemon: lockstep.v1.RankService as gRPC streams, one per run.
//
// A stream whose Hello is refused ends with the refusal's code: FAILED_PRECONDITION ("stale
// attempt"), PERMISSION_DENIED (token), NOT_FOUND (unknown run), UNAVAILABLE (shutting down). Needs
// no thread of its own: callbacks only.
#pragma once

#include <functional>
#include <string>

#include "launch/supervisor/supervisor.h"
#include "lockstep/v1/rank.grpc.pb.h"

namespace lockstep::launch {

class RankServiceImpl final : public v1::RankService::CallbackService {
 public:
  /// `user_of` names the user behind a gRPC peer; may be empty.
  RankServiceImpl(Supervisor& supervisor, std::function<std::string(const std::string&)> user_of)
      : supervisor_(supervisor), user_of_(std::move(user_of)) {}

  grpc::ServerBidiReactor<v1::AttachRequest, v1::AttachResponse>* Attach(
      grpc::CallbackServerContext* context) override;

 private:
  Supervisor& supervisor_;
  const std::function<std::string(const std::string&)> user_of_;
};

}  // namespace lockstep::launch
