// StreamLogs as a gRPC stream: reads 64 KiB at a time, and the next only when the client has taken
// the last, so a slow reader costs nothing. Following polls the file, ten times a second, without a
// thread of its own.
#pragma once

#include <grpcpp/server_context.h>
#include <grpcpp/support/server_callback.h>

#include "launch/supervisor/supervisor.h"
#include "lockstep/v1/control.pb.h"

namespace lockstep::launch {

/// Ends with NOT_FOUND when there is no such log (and none will come, or `follow` is not set) and
/// INVALID_ARGUMENT for a rank or attempt that the run does not have. With attempt 0 and `follow`
/// it goes on with the log of the next attempt, from its beginning. The reactor owns itself.
grpc::ServerWriteReactor<v1::StreamLogsResponse>* StartLogs(Supervisor& supervisor,
                                                            grpc::CallbackServerContext* context,
                                                            const v1::Run& run,
                                                            const v1::StreamLogsRequest& request);
/// A stream that ends at once.
grpc::ServerWriteReactor<v1::StreamLogsResponse>* EndedLogs(const grpc::Status& status);

}  // namespace lockstep::launch
