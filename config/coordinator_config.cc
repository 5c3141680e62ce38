#include "config/coordinator_config.h"

#include <arpa/inet.h>

#include <cstdlib>
#include <optional>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "config/validate.h"

namespace lockstep::config {
namespace {

// An empty variable counts as unset, as the XDG base directory specification asks.
std::string Variable(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

struct Address {
  std::string host;  // Without the brackets of an IPv6 address.
  int port = 0;
};

bool IsIpv4(const std::string& host) {
  in_addr address = {};
  return inet_pton(AF_INET, host.c_str(), &address) == 1;
}
bool IsIpv6(const std::string& host) {
  in6_addr address = {};
  return inet_pton(AF_INET6, host.c_str(), &address) == 1;
}

// "127.0.0.1:80", "localhost:80" or "[::1]:80".
std::optional<Address> ParseAddress(const std::string& text) {
  const size_t colon = text.rfind(':');
  if (colon == std::string::npos) return std::nullopt;
  Address address{.host = text.substr(0, colon)};
  const std::string port = text.substr(colon + 1);
  const bool digits = !port.empty() && port.find_first_not_of("0123456789") == std::string::npos;
  if (!digits || !absl::SimpleAtoi(port, &address.port) || address.port > 65535) {
    return std::nullopt;
  }
  if (address.host.size() > 2 && address.host.front() == '[' && address.host.back() == ']') {
    address.host = address.host.substr(1, address.host.size() - 2);
    return IsIpv6(address.host) ? std::optional(address) : std::nullopt;
  }
  const bool known = address.host == "localhost" || IsIpv4(address.host);
  return known ? std::optional(address) : std::nullopt;
}

bool IsLoopback(const std::string& host) {
  return host == "localhost" || host == "::1" || (IsIpv4(host) && host.starts_with("127."));
}

}  // namespace

void CheckCoordinator(CoordinatorConfig& config, const KeyPlaces& places, Problems& problems) {
  const auto refuse = [&](const std::string& path, const std::string& value, const std::string& why,
                          const std::string& expected) {
    if (!places.Good(path)) return;
    problems.Add(places.PlaceOf(path), path, absl::StrCat(Quoted(value), " ", why),
                 absl::StrCat("expected ", expected));
  };
  if (!config.tcp_address.empty()) {
    const std::optional<Address> address = ParseAddress(config.tcp_address);
    if (!address) {
      refuse("tcp_address", config.tcp_address, "is not an address and a port", "127.0.0.1:PORT");
    } else if (!IsLoopback(address->host)) {
      refuse("tcp_address", config.tcp_address,
             "is not on loopback, and the connection is not encrypted",
             "127.0.0.1:PORT; from elsewhere, forward the port over ssh");
    }
  }
  if (!config.metrics_address.empty() && !ParseAddress(config.metrics_address)) {
    refuse("metrics_address", config.metrics_address, "is not an address and a port",
           "127.0.0.1:PORT, or \"\" for no endpoint");
  }
  for (size_t i = 0; i < config.allowed_roots.size(); ++i) {
    if (std::filesystem::path(config.allowed_roots[i]).is_absolute()) continue;
    refuse(absl::StrCat("allowed_roots[", i, "]"), config.allowed_roots[i],
           "is not an absolute path", "a folder that starts with /");
  }
}

std::filesystem::path DefaultStateDir() {
  if (const std::string own = Variable("LOCKSTEP_STATE_DIR"); !own.empty()) return own;
  // A relative path here is to be ignored, says the same specification.
  const std::filesystem::path state = Variable("XDG_STATE_HOME");
  if (state.is_absolute()) return state / "lockstep";
  return std::filesystem::path(Variable("HOME")) / ".local" / "state" / "lockstep";
}

std::filesystem::path DefaultSocket() {
  if (const std::string own = Variable("LOCKSTEP_SOCKET"); !own.empty()) return own;
  return DefaultStateDir() / "lockstepd.sock";
}

}  // namespace lockstep::config
