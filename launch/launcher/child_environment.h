// What the daemon's children see of its environment.
#pragma once

#include <string>
#include <vector>

namespace lockstep::launch {

/// The entries ("NAME=value") of `environment` that a trainer may need. Not OMPI_* and PMIX_*: they
/// can make mpirun run commands. Not LD_PRELOAD.
std::vector<std::string> ChildEnvironment(char** environment);

}  // namespace lockstep::launch
