// "Did you mean …?"
#pragma once

#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace lockstep::config {

/// The word that `text` is most likely a slip of; empty when none is close.
std::string Closest(absl::string_view text, const std::vector<std::string>& words);

}  // namespace lockstep::config
