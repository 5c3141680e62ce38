#include "config/coordinator_config.h"

#include <cstdlib>

namespace lockstep::config {
namespace {

// An empty variable counts as unset, as the XDG base directory specification asks.
std::string Variable(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

}  // namespace

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
