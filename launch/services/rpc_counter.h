// Counts and times RPCs by method, for the metrics. Sees every service of the server.
#pragma once

#include <grpcpp/support/server_interceptor.h>

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>

#include "metrics/snapshot.h"

namespace lockstep::launch {

// Thread-safe. Every method of ours is there from the start, at 0; methods that no service has are
// one label, so that callers cannot make labels up. A stream's time is its whole life.
class RpcCounter {
 public:
  RpcCounter();

  void Began(const std::string& method);
  /// The status that is sent.
  void Count(const std::string& method, int code);
  void Ended(const std::string& method, double seconds);

  /// Fills the snapshot's rpc fields.
  void Show(metrics::Snapshot& snapshot) const;

  /// For ServerBuilder; the counter must outlive the server.
  std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface> MakeFactory();

 private:
  mutable std::mutex mutex_;
  // Guarded by mutex_.
  std::map<std::pair<std::string, std::string>, int64_t> handled_;  // By method and code.
  std::map<std::string, metrics::Histogram> seconds_;
  std::map<std::string, int64_t> inflight_;
};

}  // namespace lockstep::launch
