// compare: runs side by side, by what differs between them and by what came of it.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <ctime>
#include <filesystem>
#include <map>
#include <memory>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "config/load.h"
#include "config/run_directory.h"
#include "launch/cli/format.h"
#include "launch/cli/progress.h"
#include "launch/cli/run_json.h"
#include "launch/cli/table.h"
#include "launch/cli/verbs.h"

namespace lockstep::cli {
namespace {

using config::ExitCode;

constexpr size_t kMostRuns = 16;  // More do not fit beside each other.

struct Compared {
  std::string label;
  std::string run_dir;
  std::string state;
  std::vector<config::Setting> settings;
  Json last;  // Evaluations as in result.json, or null.
  Json best;
  int64_t steps = 0;
  double epochs = 0;
  double seconds = -1;  // Negative = not known.
  double cost = -1;     // Likewise: only the coordinator knows money.
  std::string currency;

  std::string Setting(const std::string& path) const {
    for (const config::Setting& setting : settings) {
      if (setting.path == path) return setting.value;
    }
    return "-";
  }
};

absl::Status ReadSettings(const std::string& yaml, const std::string& file, Compared& run) {
  const auto loaded = config::LoadRunConfig(yaml, file);
  if (!loaded.ok()) return absl::InvalidArgumentError(loaded.Report());
  run.label = loaded.config.name;
  run.settings = config::SettingsOf(loaded.config);
  return absl::OkStatus();
}

// Of a run that has not ended: the last evaluation that was written down.
void ReadRows(const config::RunDirectory& directory, Compared& run) {
  run.state = "no result yet";
  const auto text = config::ReadFile(directory.metrics());
  if (!text.ok()) return;
  for (const absl::string_view line : absl::StrSplit(*text, '\n')) {
    const Json row = Json::parse(std::string(line), nullptr, /*allow_exceptions=*/false);
    if (!row.is_object()) continue;
    run.steps = row.value("step", run.steps);
    run.epochs = row.value("epoch", run.epochs);
    run.seconds = row.value("seconds", run.seconds);
    if (row.value("kind", "") == "eval") run.last = row;
  }
}

absl::StatusOr<Compared> FromFolder(const std::string& path) {
  const config::RunDirectory directory(path);
  const auto yaml = config::ReadFile(directory.run_yaml());
  if (!yaml.ok()) {
    return absl::NotFoundError(
        absl::StrCat(path, " is no run directory: ", yaml.status().message()));
  }
  Compared run;
  run.run_dir = path;
  if (absl::Status read = ReadSettings(*yaml, directory.run_yaml().string(), run); !read.ok()) {
    return read;
  }
  const auto text = config::ReadFile(directory.result());
  const Json result = text.ok() ? Json::parse(*text, nullptr, false) : Json();
  if (!result.is_object()) {
    ReadRows(directory, run);
    return run;
  }
  run.state = result.value("state", "?");
  run.steps = result.value("steps", run.steps);
  run.epochs = result.value("epochs", run.epochs);
  run.seconds = result.value("seconds", run.seconds);
  run.last = result.value("last_evaluation", Json());
  run.best = result.value("best_evaluation", Json());
  return run;
}

double Seconds(const google::protobuf::Timestamp& time) {
  return static_cast<double>(time.seconds()) + time.nanos() * 1e-9;
}

absl::StatusOr<Compared> FromCoordinator(const Context& context, const std::string& name) {
  const auto found = FindRun(context, name);
  if (!found.ok()) return found.status();
  Compared run;
  if (absl::Status read = ReadSettings(found->config_yaml(), name, run); !read.ok()) return read;
  run.label = absl::StrCat(found->name(), " ", found->run_id());
  run.run_dir = found->run_dir();
  run.state = StateName(found->state());
  const v1::Progress& progress = found->progress();
  run.steps = progress.step();
  run.epochs = progress.epoch();
  if (progress.has_last_evaluation()) run.last = ToJson(progress.last_evaluation());
  if (progress.has_best_evaluation()) run.best = ToJson(progress.best_evaluation());
  if (found->has_started()) {
    const double end =
        found->has_ended() ? Seconds(found->ended()) : static_cast<double>(time(nullptr));
    run.seconds = std::max(0.0, end - Seconds(found->started()));
  }
  run.cost = found->cost();
  run.currency = found->currency();
  return run;
}

// Paths of the settings that are not the same in all, the name aside.
std::vector<std::string> Differing(const std::vector<Compared>& runs) {
  std::vector<std::string> paths;
  for (const Compared& run : runs) {
    for (const config::Setting& setting : run.settings) {
      if (setting.path == "name" ||
          std::find(paths.begin(), paths.end(), setting.path) != paths.end()) {
        continue;
      }
      const bool same = std::all_of(runs.begin(), runs.end(), [&](const Compared& other) {
        return other.Setting(setting.path) == setting.value;
      });
      if (!same) paths.push_back(setting.path);
    }
  }
  return paths;
}

// Measures of an evaluation: what is neither a place nor a count.
std::vector<std::string> MeasureNames(const std::vector<Compared>& runs, Json Compared::*member) {
  std::vector<std::string> names;
  for (const Compared& run : runs) {
    if (!(run.*member).is_object()) continue;
    for (const auto& [name, value] : (run.*member).items()) {
      const bool known = name == "step" || name == "epoch" || name == "samples" ||
                         name == "seconds" || name == "kind";
      if (!known && value.is_number() &&
          std::find(names.begin(), names.end(), name) == names.end()) {
        names.push_back(name);
      }
    }
  }
  return names;
}

std::string MeasureOf(const Json& evaluation, const std::string& name) {
  if (!evaluation.is_object() || !evaluation.contains(name)) return "-";
  const Json& value = evaluation.at(name);
  return value.is_number() ? FormatNumber(value.get<double>()) : "-";
}

std::string RenderTable(const std::vector<Compared>& runs) {
  std::vector<Table::Column> columns = {{""}};
  for (const Compared& run : runs) {
    columns.push_back({Clip(Printable(run.label), 32), Table::Align::kRight});
  }
  Table table(columns);
  const auto row = [&](const std::string& title, const auto& cell) {
    std::vector<std::string> cells = {title};
    for (const Compared& run : runs) cells.push_back(cell(run));
    table.Add(cells);
  };
  row("state", [](const Compared& run) { return run.state; });
  for (const std::string& path : Differing(runs)) {
    row(path, [&](const Compared& run) { return Clip(Printable(run.Setting(path)), 32); });
  }
  for (const std::string& name : MeasureNames(runs, &Compared::last)) {
    row("last val_" + name, [&](const Compared& run) { return MeasureOf(run.last, name); });
  }
  for (const std::string& name : MeasureNames(runs, &Compared::best)) {
    row("best val_" + name, [&](const Compared& run) { return MeasureOf(run.best, name); });
  }
  row("steps", [](const Compared& run) { return FormatCount(run.steps); });
  row("epochs", [](const Compared& run) { return FormatEpoch(run.epochs); });
  row("time", [](const Compared& run) { return FormatSeconds(run.seconds); });
  row("cost",
      [](const Compared& run) { return run.cost < 0 ? "-" : FormatCost(run.cost, run.currency); });
  return table.Render();
}

Json RenderJson(const std::vector<Compared>& runs) {
  const std::vector<std::string> differing = Differing(runs);
  Json json = {{"differing", differing}, {"runs", Json::array()}};
  for (const Compared& run : runs) {
    Json settings = Json::object();
    for (const std::string& path : differing) settings[path] = run.Setting(path);
    json["runs"].push_back({{"label", run.label},
                            {"run_dir", run.run_dir},
                            {"state", run.state},
                            {"settings", settings},
                            {"last_evaluation", run.last},
                            {"best_evaluation", run.best},
                            {"steps", run.steps},
                            {"epochs", run.epochs},
                            {"seconds", run.seconds < 0 ? Json() : Json(run.seconds)},
                            {"cost", run.cost < 0 ? Json() : Json(run.cost)},
                            {"currency", run.currency}});
  }
  return json;
}

int CompareVerb(Context& context, const std::vector<std::string>& names) {
  if (names.size() > kMostRuns) {
    return Fail(context, "compare",
                absl::InvalidArgumentError(absl::StrCat(
                    names.size(), " runs do not fit beside each other; at most ", kMostRuns)));
  }
  std::vector<Compared> runs;
  for (const std::string& name : names) {
    std::error_code error;
    auto run = std::filesystem::is_directory(name, error) ? FromFolder(name)
                                                          : FromCoordinator(context, name);
    if (!run.ok()) {
      return Fail(context, absl::StrCat("compare ", name), run.status());
    }
    runs.push_back(*std::move(run));
  }
  context.out.Write(context.json() ? Document(RenderJson(runs)) : RenderTable(runs));
  return Code(ExitCode::kOk);
}

}  // namespace

void AddCompare(CLI::App& app, Context& context) {
  auto names = std::make_shared<std::vector<std::string>>();
  CLI::App* verb =
      AddVerb(app, "compare", "Runs side by side: settings that differ, measures, time, cost",
              "Models", "lockstep compare 3fa1 9c02 runs/third");
  verb->add_option("RUN", *names, "Ids, starts of an id, or names of runs; or run directories")
      ->type_name("")
      ->required();
  OnVerb(verb, context, [&context, names] { return CompareVerb(context, *names); });
}

}  // namespace lockstep::cli
