#include "metrics/exposer.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <charconv>
#include <chrono>
#include <exception>
#include <stop_token>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "metrics/families.h"
#include "prometheus/collectable.h"
#include "prometheus/exposer.h"

namespace lockstep::metrics {
namespace {

class SnapshotCollectable : public prometheus::Collectable {
 public:
  explicit SnapshotCollectable(Exposer::Source snapshot) : snapshot_(std::move(snapshot)) {}

  std::vector<prometheus::MetricFamily> Collect() const override {
    // An exception here would leave a thread of the web server and end the daemon; telemetry that
    // fails must not. Prometheus sees it as absent series.
    try {
      const std::optional<Snapshot> snapshot = snapshot_();
      if (snapshot) return Families(*snapshot);
    } catch (const std::exception&) {
    }
    return {};
  }

 private:
  Exposer::Source snapshot_;
};

// The web server would take "9464" as every address of the host, and "+9464", "80,81" or "443s" as
// other things still: only plain host:port goes through.
absl::Status CheckAddress(const std::string& address) {
  const size_t colon = address.rfind(':');
  const std::string_view host = std::string_view(address).substr(0, colon);
  const std::string_view digits =
      colon == std::string::npos ? std::string_view() : std::string_view(address).substr(colon + 1);
  unsigned port = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), port);
  const bool is_port = error == std::errc() && end == digits.data() + digits.size() &&
                       !digits.empty() && port <= 65535;
  const bool is_host = colon != std::string::npos && !host.empty() &&
                       host.find_first_not_of(
                           "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-:[]") ==
                           std::string_view::npos;
  if (is_port && is_host) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("metrics address '", address,
                                                 "' is not host:port; expected for example "
                                                 "127.0.0.1:9464 (port 0 takes any free one)"));
}

// The web server's accepting thread sleeps in poll() for up to two seconds and looks at its stop
// flag only in between; a connection wakes it. Connects until told that the server has ended, since
// the flag is not ours to see.
void WakeServer(const std::stop_token& ended, const std::string& host, int port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  if (inet_pton(AF_INET, host.c_str(), &address.sin_addr) != 1 || address.sin_addr.s_addr == 0) {
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  }
  while (!ended.stop_requested()) {
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd >= 0) {
      (void)connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address));
      close(fd);
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
}

}  // namespace

struct Exposer::Impl {
  // Declared before the server, so that it outlives the server's threads.
  std::shared_ptr<SnapshotCollectable> collectable;
  std::unique_ptr<prometheus::Exposer> server;
  std::string host;
  int port = 0;
};

absl::StatusOr<std::unique_ptr<Exposer>> Exposer::Start(const std::string& address,
                                                        Source snapshot) {
  if (absl::Status status = CheckAddress(address); !status.ok()) return status;
  auto impl = std::make_unique<Impl>();
  impl->collectable = std::make_shared<SnapshotCollectable>(std::move(snapshot));
  try {
    impl->server = std::make_unique<prometheus::Exposer>(address);
    impl->server->RegisterCollectable(impl->collectable);
    const std::vector<int> ports = impl->server->GetListeningPorts();
    if (ports.empty() || ports.front() <= 0) {
      return absl::UnavailableError(absl::StrCat("the metrics endpoint got no port on ", address));
    }
    impl->host = address.substr(0, address.rfind(':'));
    impl->port = ports.front();
  } catch (const std::exception& error) {
    // The web server tells only that it could not start; a port in use is what remains after the
    // address was checked.
    return absl::UnavailableError(
        absl::StrCat("cannot serve metrics on ", address, ": ", error.what(),
                     ". Is the port in use (ss -ltnp)? Choose another metrics address."));
  }
  return std::unique_ptr<Exposer>(new Exposer(std::move(impl)));
}

Exposer::Exposer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

Exposer::~Exposer() {
  if (impl_->port <= 0) return;
  std::jthread waker(
      [this](const std::stop_token& ended) { WakeServer(ended, impl_->host, impl_->port); });
  impl_->server.reset();
}

int Exposer::port() const {
  return impl_->port;
}

}  // namespace lockstep::metrics
