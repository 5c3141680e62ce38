// The Prometheus endpoint: GET /metrics on one address.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "metrics/snapshot.h"

namespace lockstep::metrics {

class Exposer {
 public:
  /// nullopt where nobody can tell now: the scrape has no series then, and not zeros, which would
  /// be read as measurements and as counters that began anew.
  using Source = std::function<std::optional<Snapshot>()>;

  /// `address` is host:port (host required; port 0 = any free one). `snapshot` is called once per
  /// scrape, on the server's thread. UNAVAILABLE when the port is taken.
  static absl::StatusOr<std::unique_ptr<Exposer>> Start(const std::string& address,
                                                        Source snapshot);
  ~Exposer();
  int port() const;

 private:
  struct Impl;
  explicit Exposer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace lockstep::metrics
