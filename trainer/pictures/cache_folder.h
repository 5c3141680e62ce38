// Where caches on disk lie.
#pragma once

#include <string>

namespace lockstep::trainer {

/// data.cache_folder where it is given, otherwise $XDG_CACHE_HOME/lockstep or ~/.cache/lockstep;
/// empty where the environment names neither. The folder need not exist.
std::string CacheFolder(const std::string& given);

}  // namespace lockstep::trainer
