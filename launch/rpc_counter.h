// Counts finished RPCs by method and code, for the metrics. Sees every service of the server.
#pragma once

#include <grpcpp/support/server_interceptor.h>

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>

namespace lockstep::launch {

// Thread-safe. Methods that no service has are one label, so that callers cannot make labels up.
class RpcCounter {
 public:
  void Count(const std::string& method, int code);
  std::map<std::pair<std::string, std::string>, int64_t> Counts() const;

  /// For ServerBuilder; the counter must outlive the server.
  std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface> MakeFactory();

 private:
  mutable std::mutex mutex_;
  std::map<std::pair<std::string, std::string>, int64_t> counts_;  // Guarded by mutex_.
};

}  // namespace lockstep::launch
