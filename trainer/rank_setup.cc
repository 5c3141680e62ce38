#include "trainer/rank_setup.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "config/run_directory.h"
#include "trainer/affinity.h"
#include "trainer/failure.h"
#include "trainer/saver.h"

extern char** environ;

namespace lockstep::trainer {

using config::RunConfig;
using config::TrainerExit;

config::RunConfig LoadConfig(const std::string& file_name, const std::vector<std::string>& set,
                             const World& world) {
  std::string text;
  if (world.rank() == 0) {
    const auto file = config::ReadFile(file_name, 4u << 20);
    text = file.ok() ? "+" + *file : "-" + std::string(file.status().message());
  }
  text = world.BroadcastText(text, 0);
  if (text[0] == '-') throw Refusal{TrainerExit::kBadConfig, text.substr(1)};

  std::vector<config::Override> overrides = config::EnvironmentOverrides(environ);
  for (const std::string& assignment : set) {
    const auto parsed = config::ParseOverride(assignment);
    if (!parsed.ok())
      throw Refusal{TrainerExit::kBadConfig, std::string(parsed.status().message())};
    overrides.push_back(*parsed);
  }
  auto loaded = config::LoadRunConfig(text.substr(1), file_name, overrides);
  if (!loaded.ok()) throw Refusal{TrainerExit::kBadConfig, loaded.Report()};
  return loaded.config;
}

config::Machine MachineOf(const World& world) {
  return {world.size(), world.ranks_on_host(), CoresOfHost()};
}

void CheckWorld(const std::string& file_name, const World& world, config::RunConfig config) {
  config.resources.ranks = world.size();
  const auto checked =
      config::LoadRunConfig(config::ToYaml(config::Resolve(config, MachineOf(world))),
                            absl::StrCat(file_name, " with mpirun -np ", world.size()));
  if (!checked.ok()) throw Refusal{TrainerExit::kBadConfig, checked.Report()};
}

TrainingData OpenData(RunConfig& config) {
  TrainingData data;
  data.train = OpenDataset({.config = config, .split = Split::kTrain});
  // Brought to size as the training pictures are, whatever sizes the held-out ones have.
  data.eval = OpenDataset(
      {.config = config, .split = Split::kEval, .preprocessing = &data.train->preprocessing()});
  const auto classes = static_cast<int>(data.train->classes().size());
  const auto targets = static_cast<int>(data.train->targets().size());
  if (config.model.num_classes == 0) config.model.num_classes = std::max(classes, targets);
  if (config.model.num_classes < classes) {
    throw WrongConfig(absl::StrCat("model.num_classes is ", config.model.num_classes,
                                   " but the data set has ", classes, " classes"));
  }
  if (targets > 0 && config.model.num_classes != targets) {
    throw WrongConfig(absl::StrCat("model.num_classes is ", config.model.num_classes,
                                   " but the data set has ", targets, " targets"));
  }
  return data;
}

void CheckThatRanksAgree(const World& world, const TrainingData& data) {
  for (const auto& dataset : {&data.train, &data.eval}) {
    for (const int64_t size : world.AllGather((*dataset)->size())) {
      if (size == (*dataset)->size()) continue;
      throw DataError(absl::StrCat("rank ", world.rank(), " has ", (*dataset)->size(),
                                   " samples where another has ", size, ": ",
                                   (*dataset)->Describe()));
    }
  }
}

}  // namespace lockstep::trainer
