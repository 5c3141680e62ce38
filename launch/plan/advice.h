// How many ranks to take, in words. Pure.
#pragma once

#include <string>
#include <vector>

#include "launch/plan/planner.h"

namespace lockstep::plan {

struct Advice {
  int ranks = 0;  // 0 = nothing fits, or nothing is within the run's limits.
  std::string headline;
  std::vector<std::string> notes;
};

/// The rule: of the rows that fit the memory and the run's limits of money, energy and time, the
/// one with the smallest time x money of an epoch; of equals the fewest ranks. So ranks are added
/// as long as they make an epoch at least as many times faster as dearer. Without prices money is
/// rank-seconds.
Advice Advise(const Plan& plan);

inline constexpr const char* kAdviceRule =
    "the rule: the smallest time x money of an epoch, so that ranks are added as long as they make "
    "it at least as many times faster as dearer";

}  // namespace lockstep::plan
