// WatchRun as a gRPC stream. A reader that is slower than the run skips views in between; it always
// gets the newest one, and never more than one waits in memory.
#pragma once

#include <grpcpp/support/server_callback.h>

#include <string>

#include "launch/supervisor/supervisor.h"
#include "lockstep/v1/control.pb.h"

namespace lockstep::launch {

/// The reactor owns itself.
grpc::ServerWriteReactor<v1::WatchRunResponse>* StartWatch(Supervisor& supervisor,
                                                           const std::string& run_id,
                                                           int64_t after_sequence);
/// A stream that ends at once.
grpc::ServerWriteReactor<v1::WatchRunResponse>* EndedWatch(const grpc::Status& status);

}  // namespace lockstep::launch
