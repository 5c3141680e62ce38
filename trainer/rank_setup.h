// What every rank does before the first step, whether it trains or probes: read the config, open
// the data, and see that the ranks of the world agree about both.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "config/load.h"
#include "trainer/comm/world.h"
#include "trainer/data/dataset.h"

namespace lockstep::trainer {

/// Rank 0 reads the file; all parse it, with the environment's overrides and those of `set`
/// ("a.b=c"). Collective. Throws Refusal.
config::RunConfig LoadConfig(const std::string& file_name, const std::vector<std::string>& set,
                             const World& world);

config::Machine MachineOf(const World& world);

/// mpirun decides the world size, which may contradict the file: three samples for four ranks.
/// Throws Refusal.
void CheckWorld(const std::string& file_name, const World& world, config::RunConfig config);

struct TrainingData {
  std::unique_ptr<Dataset> train;
  std::unique_ptr<Dataset> eval;
};
/// Also closes the number of outputs, which only the data set knows. Throws DataError, WrongConfig.
TrainingData OpenData(config::RunConfig& config);

/// Files may have gone bad between one rank's look and another's: the ranks would train on
/// different samples and never know. Collective. Throws DataError.
void CheckThatRanksAgree(const World& world, const TrainingData& data);

}  // namespace lockstep::trainer
