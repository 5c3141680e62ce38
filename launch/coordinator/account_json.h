// A run's account as JSON, for the store.
#pragma once

#include <nlohmann/json.hpp>

#include "metrics/ledger.h"

namespace lockstep::launch {

nlohmann::json AccountToJson(const metrics::Account& account);
/// `shift` is added to monotonic times. Throws std::exception on what is not ours.
metrics::Account AccountFromJson(const nlohmann::json& json, double shift);
/// From the clock of a store of schema 1, which knew no money: to be priced by PriceOpenLines().
metrics::Account AccountFromClock(const nlohmann::json& clock, int attempt, int ranks,
                                  double shift);

}  // namespace lockstep::launch
