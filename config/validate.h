// Rules between keys: contradictions, and what one key needs of another.
#pragma once

#include "config/coordinator_config.h"
#include "config/problems.h"
#include "config/reader.h"
#include "config/run_config.h"

namespace lockstep::config {

/// Also fills the defaults that depend on another key. Rules whose keys were refused already stay
/// silent.
void CheckRun(RunConfig& config, const KeyPlaces& places, Problems& problems);
void CheckCoordinator(CoordinatorConfig& config, const KeyPlaces& places, Problems& problems);

}  // namespace lockstep::config
