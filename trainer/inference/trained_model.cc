#include "trainer/inference/trained_model.h"

#include <algorithm>
#include <stdexcept>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "config/load.h"
#include "config/run_directory.h"
#include "trainer/checkpoint/checkpoint_folder.h"
#include "trainer/checkpoint/manifest.h"
#include "trainer/training_state.h"

namespace lockstep::trainer {
namespace {

namespace fs = std::filesystem;

// A store to read from only: nothing is made, nothing removed.
CheckpointStore StoreOf(const fs::path& folder) {
  return CheckpointStore(folder, /*attempt=*/0, Retention{});
}

// Which way is better is the run's own business; its resolved config lies in its directory.
bool HigherIsBetter(const config::RunDirectory& directory) {
  const auto text = config::ReadFile(directory.run_yaml());
  if (!text.ok()) return true;
  const auto loaded = config::LoadRunConfig(*text, directory.run_yaml().string());
  return !loaded.ok() || BestMetricOf(loaded.config).higher_is_better;
}

// In the order in which they are to be tried.
void SortByMerit(std::vector<CheckpointInfo>& infos, bool higher_is_better) {
  std::stable_sort(infos.begin(), infos.end(),
                   [&](const CheckpointInfo& a, const CheckpointInfo& b) {
                     if (a.metric.has_value() != b.metric.has_value()) return a.metric.has_value();
                     if (a.metric && *a.metric != *b.metric) {
                       return (*a.metric > *b.metric) == higher_is_better;
                     }
                     return a.step > b.step;
                   });
}

absl::StatusOr<LoadedCheckpoint> LoadFromRun(const config::RunDirectory& directory,
                                             std::optional<int64_t> step,
                                             std::vector<std::string>& passed) {
  const CheckpointStore store = StoreOf(directory.checkpoints());
  if (step) return store.Load(store.PathOf(*step));
  auto infos = store.List();
  if (!infos.ok()) return infos.status();
  if (infos->empty()) {
    return absl::NotFoundError(
        absl::StrCat(directory.checkpoints().string(), ": there is no complete checkpoint yet"));
  }
  SortByMerit(*infos, HigherIsBetter(directory));
  for (const CheckpointInfo& info : *infos) {
    auto loaded = store.Load(info.path);
    if (loaded.ok()) return loaded;
    passed.push_back(
        absl::StrCat("passed over ", info.path.string(), ": ", loaded.status().message()));
  }
  return absl::DataLossError(absl::StrCat(
      directory.checkpoints().string(), ": no checkpoint is good:\n", absl::StrJoin(passed, "\n")));
}

absl::StatusOr<LoadedCheckpoint> Find(const fs::path& path, std::optional<int64_t> step,
                                      TrainedModel& model) {
  std::error_code error;
  if (!fs::is_directory(path, error)) {
    return absl::NotFoundError(absl::StrCat(path.string(), ": there is no such folder"));
  }
  if (fs::exists(path / kManifestFile, error)) {
    const fs::path run_dir = path.parent_path().parent_path();
    if (fs::exists(config::RunDirectory(run_dir).run_yaml(), error)) model.run_dir = run_dir;
    if (step && StepOfFolderName(path.filename().string()) != *step) {
      return absl::InvalidArgumentError(absl::StrCat(path.string(),
                                                     " is one checkpoint, not of step ", *step,
                                                     "; give the run directory, or no step"));
    }
    return StoreOf(path.parent_path()).Load(path);
  }
  const config::RunDirectory directory(path);
  if (!fs::is_directory(directory.checkpoints(), error)) {
    return absl::NotFoundError(absl::StrCat(
        path.string(), " is neither a checkpoint (it has no ", kManifestFile,
        ") nor a run directory (it has no checkpoints/); `lockstep checkpoints list RUN` shows "
        "where they are"));
  }
  model.run_dir = path;
  return LoadFromRun(directory, step, model.passed);
}

absl::Status ReadCard(TrainedModel& model) {
  const std::string where = (model.checkpoint / kStateFile).string();
  const auto state = TrainingState::FromJson(model.loaded.state_json);
  if (!state.ok()) {
    return absl::Status(state.status().code(), absl::StrCat(where, ": ", state.status().message()));
  }
  if (state->card.empty()) {
    return absl::FailedPreconditionError(
        absl::StrCat(where,
                     ": there is no card of the model; the checkpoint was written by an "
                     "earlier version. Resume the run: the next checkpoint has one"));
  }
  auto card = ModelCard::FromJson(state->card);
  if (!card.ok()) {
    return absl::Status(card.status().code(), absl::StrCat(where, ": ", card.status().message()));
  }
  model.card = *std::move(card);
  auto config = config::LoadRunConfig(model.card.run_yaml, where + ": card.run_yaml");
  if (!config.ok()) return absl::InvalidArgumentError(config.Report());
  model.config = std::move(config.config);
  return absl::OkStatus();
}

absl::Status MakeGraph(TrainedModel& model) {
  const auto named =
      static_cast<int>(std::max(model.card.classes.size(), model.card.targets.size()));
  if (model.config.model.num_classes == 0) model.config.model.num_classes = named;
  if (model.config.model.num_classes != named) {
    return absl::InvalidArgumentError(absl::StrCat(model.checkpoint.string(), ": the model has ",
                                                   model.config.model.num_classes,
                                                   " outputs, but its card names ", named));
  }
  const Preprocessing& p = model.card.preprocessing;
  try {
    model.graph = BuildGraph(model.config.model, {p.channels, p.height, p.width});
  } catch (const std::invalid_argument& error) {
    return absl::InvalidArgumentError(absl::StrCat(model.checkpoint.string(), ": ", error.what()));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<TrainedModel> OpenTrainedModel(const fs::path& path, std::optional<int64_t> step) {
  std::error_code error;
  // "checkpoints/step-7/" and "checkpoints/step-7" are the same folder.
  fs::path absolute = fs::absolute(path, error).lexically_normal();
  if (!absolute.has_filename()) absolute = absolute.parent_path();
  TrainedModel model;
  auto loaded = Find(absolute, step, model);
  if (!loaded.ok()) return loaded.status();
  model.loaded = *std::move(loaded);
  model.loaded.optimizer = {};
  model.loaded.optimizer_file = {};
  model.checkpoint = model.loaded.info.path;
  model.step = model.loaded.info.step;
  if (absl::Status read = ReadCard(model); !read.ok()) return read;
  if (absl::Status made = MakeGraph(model); !made.ok()) return made;
  return model;
}

}  // namespace lockstep::trainer
