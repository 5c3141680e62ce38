// config check|show|schema: what a run (or, with --daemon, the coordinator) is told. No coordinator
// is needed.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <memory>
#include <thread>

#include "absl/strings/str_cat.h"
#include "config/coordinator_config.h"
#include "config/load.h"
#include "launch/cli/programs.h"
#include "launch/cli/run_file.h"
#include "launch/cli/run_json.h"
#include "launch/cli/verbs.h"

namespace lockstep::cli {
namespace {

using config::ExitCode;

struct ConfigOptions {
  std::vector<std::string> files;
  std::vector<std::string> overrides;
  bool daemon = false;
  bool keep_auto = false;
  bool markdown = false;
  bool model = false;
};

struct Checked {
  std::string yaml;  // With every key.
  std::string report;
  std::vector<config::Problem> problems;
};

// What `auto` would become for a run that gets the ranks it asks for on this host.
config::RunConfig ResolveHere(const config::RunConfig& config) {
  const int cores = std::max(1u, std::thread::hardware_concurrency());
  const int ranks = config.resources.ranks > 0 ? config.resources.ranks : cores;
  return config::Resolve(config, {.world_size = ranks, .ranks_on_host = ranks, .cores = cores});
}

absl::StatusOr<Checked> Load(const std::string& path, const ConfigOptions& options) {
  if (options.daemon) {
    auto text = ReadText(path);
    if (!text.ok()) return text.status();
    auto overrides = ParseOverrides(options.overrides);
    if (!overrides.ok()) return overrides.status();
    const auto loaded = config::LoadCoordinatorConfig(*text, path, *overrides);
    return Checked{loaded.ok() ? config::ToYaml(loaded.config) : "", loaded.Report(),
                   loaded.problems};
  }
  auto file = ReadRunFile(path, options.overrides);
  if (!file.ok()) return file.status();
  const auto loaded = config::LoadRunConfig(file->yaml, file->name, file->overrides);
  if (!loaded.ok()) return Checked{"", loaded.Report(), loaded.problems};
  return Checked{
      config::ToYaml(options.keep_auto ? loaded.config : ResolveHere(loaded.config)), "", {}};
}

Json ToJson(const config::Problem& problem) {
  return Json{{"file", problem.file}, {"line", problem.line},       {"column", problem.column},
              {"path", problem.path}, {"message", problem.message}, {"hint", problem.hint}};
}

int CheckVerb(Context& context, const ConfigOptions& options) {
  ExitCode code = ExitCode::kOk;
  Json json;
  json["files"] = Json::array();
  for (const std::string& path : options.files) {
    auto checked = Load(path, options);
    if (!checked.ok()) {
      context.Say(absl::StrCat("lockstep config check: ", checked.status().message()));
      json["files"].push_back(
          {{"file", path},
           {"ok", false},
           {"problems", Json::array({{{"message", checked.status().message()}}})}});
      code = ExitCode::kUsage;
      continue;
    }
    Json problems = Json::array();
    for (const auto& problem : checked->problems) problems.push_back(ToJson(problem));
    json["files"].push_back(
        {{"file", path}, {"ok", checked->problems.empty()}, {"problems", problems}});
    if (!checked->problems.empty()) {
      std::string report = checked->report;
      if (!report.empty() && report.back() == '\n') report.pop_back();
      context.Say(report);
      code = ExitCode::kUsage;
    } else if (!context.json()) {
      context.out.Write(absl::StrCat(path, ": ok\n"));
    }
  }
  if (context.json()) context.out.Write(Document(json));
  return Code(code);
}

// The model's layers: only lockstep-trainer knows them.
int ShowModel(Context& context, const ConfigOptions& options) {
  const auto trainer = FindProgram("lockstep-trainer");
  if (!trainer.ok()) return Fail(context, "config show --model", trainer.status());
  std::vector<std::string> arguments = {trainer->string(), "describe"};
  for (const std::string& one : options.overrides) {
    arguments.insert(arguments.end(), {"--set", one});
  }
  if (context.json()) arguments.insert(arguments.end(), {"--output", "json"});
  arguments.insert(arguments.end(), {"--", options.files.front()});
  return Fail(context, "config show --model", BecomeProgram(arguments));
}

int ShowVerb(Context& context, const ConfigOptions& options) {
  if (options.model) return ShowModel(context, options);
  auto checked = Load(options.files.front(), options);
  if (!checked.ok()) return Fail(context, "config show", checked.status());
  if (!checked->problems.empty()) {
    return Fail(context, "config show", absl::InvalidArgumentError(checked->report));
  }
  if (context.json()) {
    context.out.Write(Document(Json{{"yaml", checked->yaml}}));
  } else {
    context.out.Write(checked->yaml);
  }
  return Code(ExitCode::kOk);
}

int SchemaVerb(Context& context, const ConfigOptions& options) {
  std::string text;
  if (options.markdown) {
    text = options.daemon ? config::CoordinatorConfigReference() : config::RunConfigReference();
  } else {
    text = options.daemon ? config::CoordinatorConfigJsonSchema() : config::RunConfigJsonSchema();
  }
  if (text.empty() || text.back() != '\n') text += '\n';
  context.out.Write(text);
  return Code(ExitCode::kOk);
}

void AddSet(CLI::App* verb, const std::shared_ptr<ConfigOptions>& options) {
  verb->add_option("--set", options->overrides, "a.b=c: overrides a key; may be repeated")
      ->expected(1)
      ->allow_extra_args(false)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)
      ->type_name("KEY=VALUE");
  verb->add_flag("--daemon", options->daemon, "It is lockstepd's config, not a run's");
}

}  // namespace

void AddConfigCommands(CLI::App& app, Context& context) {
  CLI::App* group =
      AddVerb(app, "config", "Check a config and look things up; needs no coordinator", "Configs",
              "lockstep config check run.yaml");
  group->require_subcommand(1);

  auto check = std::make_shared<ConfigOptions>();
  CLI::App* verb =
      AddVerb(*group, "check", "Every problem as file:line:col; exit 2 if there is one", "",
              "lockstep config check config/examples/*.yaml");
  verb->add_option("FILE", check->files, "run.yaml; - reads standard input")
      ->type_name("")
      ->required();
  AddSet(verb, check);
  OnVerb(verb, context, [&context, check] { return CheckVerb(context, *check); });

  auto show = std::make_shared<ConfigOptions>();
  verb = AddVerb(*group, "show",
                 "The config with every default, LOCKSTEP_A__B variable and --set applied", "",
                 "lockstep config show run.yaml --set training.duration=5ep");
  verb->add_option("FILE", show->files, "run.yaml; - reads standard input")
      ->type_name("")
      ->required()
      ->expected(1);
  AddSet(verb, show);
  verb->add_flag("--keep-auto", show->keep_auto,
                 "Leave `auto` open instead of closing it for this host");
  verb->add_flag("--model", show->model,
                 "The model in place of the keys: layers, shapes, parameters, FLOPs")
      ->excludes("--daemon")
      ->excludes("--keep-auto");
  OnVerb(verb, context, [&context, show] { return ShowVerb(context, *show); });

  auto schema = std::make_shared<ConfigOptions>();
  verb = AddVerb(*group, "schema", "JSON Schema of the config; for editors and for reading", "",
                 "lockstep config schema --markdown");
  verb->add_flag("--markdown", schema->markdown, "As tables for people");
  verb->add_flag("--daemon", schema->daemon, "Of lockstepd's config, not a run's");
  OnVerb(verb, context, [&context, schema] { return SchemaVerb(context, *schema); });
}

}  // namespace lockstep::cli
