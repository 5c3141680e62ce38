#include "config/load.h"

#include <algorithm>

#include "config/coordinator_config.h"
#include "config/field.h"
#include "config/problems.h"
#include "config/reader.h"
#include "config/validate.h"

namespace lockstep::config {
namespace {

template <typename T>
Loaded<T> Load(const Table& table, std::string_view yaml, const std::string& file_name,
               const std::vector<Override>& overrides,
               void (*check)(T&, const KeyPlaces&, Problems&)) {
  Loaded<T> loaded;
  Problems problems;
  KeyPlaces places;
  if (ReadConfig(table, yaml, file_name, overrides, &loaded.config, problems, places)) {
    check(loaded.config, places, problems);
  }
  loaded.problems = std::move(problems).Take();
  return loaded;
}

}  // namespace

Loaded<RunConfig> LoadRunConfig(std::string_view yaml, const std::string& file_name,
                                const std::vector<Override>& overrides) {
  return Load<RunConfig>(RunTable(), yaml, file_name, overrides, CheckRun);
}

Loaded<CoordinatorConfig> LoadCoordinatorConfig(std::string_view yaml, const std::string& file_name,
                                                const std::vector<Override>& overrides) {
  return Load<CoordinatorConfig>(CoordinatorTable(), yaml, file_name, overrides, CheckCoordinator);
}

template <typename T>
std::string Loaded<T>::Report() const {
  std::string report;
  for (const Problem& problem : problems) report += problem.ToString() + "\n";
  return report;
}
template struct Loaded<RunConfig>;
template struct Loaded<CoordinatorConfig>;

RunConfig Resolve(RunConfig config, const Machine& machine) {
  ResourcesConfig& resources = config.resources;
  const int world_size = std::max(1, machine.world_size);
  if (resources.ranks == 0) resources.ranks = world_size;
  if (resources.threads_per_rank == 0) {
    resources.threads_per_rank = std::max(1, machine.cores / std::max(1, machine.ranks_on_host));
  }
  TrainingConfig& training = config.training;
  if (training.global_batch_size == 0) {
    training.global_batch_size = training.batch_size_per_rank * world_size;
  }
  // The share of the ranks that have the most: a batch that does not divide gives some one less.
  training.batch_size_per_rank = (training.global_batch_size + world_size - 1) / world_size;
  if (training.micro_batch_size == 0) training.micro_batch_size = training.batch_size_per_rank;
  return config;
}

}  // namespace lockstep::config
