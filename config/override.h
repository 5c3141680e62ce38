// `a.b=c` applied to the YAML tree before it is read, so that an override is checked like the file.
#pragma once

#include <vector>

#include "config/load.h"
#include "config/problems.h"
#include "config/yaml_document.h"

namespace lockstep::config {

/// Replaces or adds the value at each override's path; later ones win. The values are read as YAML
/// (flow style: `[1, 2]`, `{kind: shapes}`). Places refer to the overrides' origins.
void ApplyOverrides(const std::vector<Override>& overrides, Node& root, Problems& problems);

}  // namespace lockstep::config
