// The Prometheus endpoint: GET /metrics on one loopback address.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "metrics/snapshot.h"

namespace lockstep::metrics {

class Exposer {
 public:
  /// `address` is host:port (host required; port 0 = any free one). `snapshot` is called once per
  /// scrape, on the server's thread. UNAVAILABLE when the port is taken.
  static absl::StatusOr<std::unique_ptr<Exposer>> Start(const std::string& address,
                                                        std::function<Snapshot()> snapshot);
  ~Exposer();
  int port() const;

 private:
  struct Impl;
  explicit Exposer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace lockstep::metrics
