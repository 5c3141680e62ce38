// Features of a frozen trunk that a run would find: an earlier run left them in the cache.
#pragma once

#include "config/run_config.h"
#include "trainer/comm/communicator.h"
#include "trainer/device/device.h"
#include "trainer/rank_setup.h"

namespace lockstep::trainer {

/// Looks into the folder that `config` names, for both splits, with the trunk that `config` loads.
/// False where that cannot be loaded. Not collective.
bool HasEarlierFeatures(const config::RunConfig& config, const TrainingData& data,
                        const Device& device, Communicator& communicator);

}  // namespace lockstep::trainer
