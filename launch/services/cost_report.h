// The ledger summed up for people: by phase, rank, day or run. Pure.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "launch/coordinator/run_store.h"
#include "lockstep/v1/control.pb.h"

namespace lockstep::launch {

// What a report says of a run beside its lines.
struct CostSubject {
  std::string name;
  uint64_t number = 0;  // Counts runs in order of submission.
};

/// Lines and total; the total is the sum of the lines, exactly. Grouped by run, the newest come
/// first. Everything but the currency, wall_seconds and ranks.
v1::GetCostResponse SumUp(const std::vector<StoredLine>& lines, v1::CostGrouping by,
                          const std::map<std::string, CostSubject>& runs);

}  // namespace lockstep::launch
