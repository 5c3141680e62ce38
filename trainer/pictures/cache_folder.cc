#include "trainer/pictures/cache_folder.h"

#include <cstdlib>

namespace lockstep::trainer {
namespace {

// An empty variable counts as unset, as the XDG base directory specification asks.
std::string Variable(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

}  // namespace

std::string CacheFolder(const std::string& given) {
  if (!given.empty()) return given;
  const std::string cache = Variable("XDG_CACHE_HOME");
  if (!cache.empty()) return cache + "/lockstep";
  const std::string home = Variable("HOME");
  return home.empty() ? "" : home + "/.cache/lockstep";
}

}  // namespace lockstep::trainer
