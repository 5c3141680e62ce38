// Which device a rank of this world computes on.
#pragma once

#include <memory>

#include "config/run_config.h"
#include "trainer/comm/world.h"
#include "trainer/device/device.h"

namespace lockstep::trainer {

/// A GPU of its own for each rank, or the CPU for all ranks of the world. Collective. Throws
/// Refusal when `resources` or `training.precision` ask for what is not there.
std::unique_ptr<Device> OpenRankDevice(const config::RunConfig& config, const World& world);

}  // namespace lockstep::trainer
