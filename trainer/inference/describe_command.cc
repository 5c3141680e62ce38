// describe: the network that a config or a checkpoint stands for, without its weights.
#include <algorithm>
#include <cstdio>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "config/exit_code.h"
#include "config/load.h"
#include "config/run_directory.h"
#include "trainer/data/dataset.h"
#include "trainer/inference/commands.h"
#include "trainer/models/describe.h"
#include "trainer/pictures/preprocessing.h"

extern char** environ;

namespace lockstep::trainer {
namespace {

constexpr size_t kMaxConfigBytes = 4u << 20;

absl::StatusOr<config::RunConfig> ReadConfig(const DescribeCommand& command) {
  const std::string& path = command.model.path;
  const auto text = config::ReadFile(path == "-" ? "/dev/stdin" : path, kMaxConfigBytes);
  if (!text.ok()) return text.status();
  std::vector<config::Override> overrides = config::EnvironmentOverrides(environ);
  for (const std::string& one : command.set) {
    auto parsed = config::ParseOverride(one);
    if (!parsed.ok()) return parsed.status();
    overrides.push_back(*std::move(parsed));
  }
  const auto loaded =
      config::LoadRunConfig(*text, path == "-" ? "standard input" : path, overrides);
  if (!loaded.ok()) return absl::InvalidArgumentError(loaded.Report());
  return loaded.config;
}

// Where the config says how large the pictures are and how many outputs there are, the data need
// not be there.
bool IsComplete(const config::RunConfig& config) {
  return config.model.num_classes > 0 &&
         (config.data.image_size > 0 || config.data.preset != config::Preset::kAuto);
}

Graph GraphOf(config::RunConfig config) {
  if (IsComplete(config)) {
    const Preprocessing p = PreprocessingOf(config.data, config.model, 3, 0, 0);
    return BuildGraph(config.model, {p.channels, p.height, p.width});
  }
  std::unique_ptr<Dataset> data;
  try {
    data = OpenDataset({.config = config, .split = Split::kTrain});
  } catch (const DataError& error) {
    throw DataError(absl::StrCat(
        error.what(),
        "\nThe data say how large pictures are and how many classes there are; without them set "
        "both: --set data.image_size=224 --set model.num_classes=10"));
  }
  if (config.model.num_classes == 0) {
    const size_t outputs = std::max(data->classes().size(), data->targets().size());
    config.model.num_classes = static_cast<int>(outputs);
  }
  return BuildGraph(config.model, {data->channels(), data->height(), data->width()});
}

absl::StatusOr<Graph> GraphOf(const DescribeCommand& command) {
  std::error_code error;
  if (std::filesystem::is_directory(command.model.path, error)) {
    if (!command.set.empty()) {
      return absl::InvalidArgumentError("--set is for a run.yaml; a checkpoint is as it is");
    }
    auto model = OpenChosen(command.model);
    if (!model.ok()) return model.status();
    return std::move(model->graph);
  }
  const auto config = ReadConfig(command);
  if (!config.ok()) return config.status();
  return GraphOf(*config);
}

}  // namespace

int Run(const DescribeCommand& command) {
  const auto graph = GraphOf(command);
  if (!graph.ok()) return Fail("describe", graph.status());
  const ModelDescription description = DescribeModel(*graph);
  std::string text = command.json ? ToJson(description) : ToText(description);
  if (!absl::EndsWith(text, "\n")) text += "\n";
  std::fwrite(text.data(), 1, text.size(), stdout);
  return static_cast<int>(config::ExitCode::kOk);
}

}  // namespace lockstep::trainer
