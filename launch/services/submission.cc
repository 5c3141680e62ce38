#include "launch/services/submission.h"

#include <xxhash.h>

#include <algorithm>
#include <filesystem>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "config/load.h"
#include "metrics/pricing.h"

namespace lockstep::launch {
namespace {

namespace fs = std::filesystem;

const char* DatasetName(config::DatasetKind kind) {
  switch (kind) {
    case config::DatasetKind::kShapes:
      return "shapes";
    case config::DatasetKind::kCifar10:
      return "cifar10";
    case config::DatasetKind::kCifar100:
      return "cifar100";
    case config::DatasetKind::kImageFolder:
      return "image_folder";
    case config::DatasetKind::kCsvRegression:
      return "csv_regression";
    case config::DatasetKind::kCsvMultilabel:
      return "csv_multilabel";
    case config::DatasetKind::kTarShards:
      return "tar_shards";
  }
  return "unknown";
}

// What an evaluation calls the run's best metric.
std::string MetricName(const config::RunConfig& config) {
  const std::string& best = config.checkpoint.best_metric;
  if (best != "auto") return best.substr(std::string_view("val_").size());
  const bool classes = config.data.kind != config::DatasetKind::kCsvRegression &&
                       config.data.kind != config::DatasetKind::kCsvMultilabel;
  return classes ? "top1" : "loss";
}

RunSpec SpecOf(const config::RunConfig& config, std::string yaml) {
  RunSpec spec;
  spec.name = config.name;
  spec.ranks = config.resources.ranks;
  spec.priority = config.priority;
  spec.model = config.model.name;
  spec.dataset = DatasetName(config.data.kind);
  spec.restart.max_restarts = config.restart.max_restarts;
  spec.restart.backoff_seconds = config.restart.backoff_seconds;
  spec.restart.max_backoff_seconds = config.restart.max_backoff_seconds;
  spec.restart.stall_timeout_seconds = config.restart.stall_timeout_seconds;
  if (config.cost.max_time.unit() == config::Duration::Unit::kSeconds) {
    spec.limits.max_seconds = config.cost.max_time.count();
  }
  spec.limits.max_cost = config.cost.max_cost;
  spec.limits.max_joules = config.cost.max_energy * metrics::kJoulesPerKwh;
  spec.limits.stop = config.cost.at_limit == config::LimitAction::kStop;
  spec.limits.gain_per_cost = config.cost.stop_when.metric_gain_per_cost;
  spec.limits.metric = MetricName(config);
  spec.config_hash =
      absl::StrCat(absl::Hex(XXH3_64bits(yaml.data(), yaml.size()), absl::kZeroPad16));
  spec.config_yaml = std::move(yaml);
  return spec;
}

// Makes the path of `key` absolute and, where it must exist, sees that it is there.
void ResolvePath(const std::string& working_directory, const char* key, bool must_exist,
                 std::string& value, std::vector<FieldViolation>& violations) {
  if (value.empty()) return;
  fs::path path = value;
  if (path.is_relative()) {
    if (!fs::path(working_directory).is_absolute()) {
      violations.push_back(
          {"working_directory",
           absl::StrCat("working_directory: ", key, " '", value, "' is relative and '",
                        working_directory, "' is no absolute folder to take it from")});
      return;
    }
    path = fs::path(working_directory) / path;
  }
  path = path.lexically_normal();
  std::error_code error;
  if (must_exist && !fs::exists(path, error)) {
    violations.push_back({key, absl::StrCat(key, ": '", path.string(),
                                            "': ", error ? error.message() : "does not exist")});
  }
  value = path.string();
}

// A name from the daemon's table becomes its file, and true is returned; anything with a slash, or
// that is a file in the working directory, is a path.
bool ResolvePretrained(const std::string& working_directory,
                       const std::vector<config::NamedWeights>& weights, config::RunConfig& config,
                       std::vector<FieldViolation>& violations) {
  std::string& pretrained = config.model.pretrained;
  std::vector<std::string> known;
  for (const config::NamedWeights& named : weights) {
    known.push_back(named.name);
    if (named.name != pretrained) continue;
    pretrained = named.file;
    return true;
  }
  std::error_code error;
  const bool is_name = pretrained.find('/') == std::string::npos && !pretrained.empty();
  if (is_name && !fs::exists(fs::path(working_directory) / pretrained, error)) {
    violations.push_back(
        {"model.pretrained",
         absl::StrCat(
             "model.pretrained: '", pretrained, "' is neither a file nor a name that ",
             "the daemon knows; its config names ",
             known.empty() ? "none (weights: in lockstepd.yaml)" : absl::StrJoin(known, ", "))});
    return false;
  }
  ResolvePath(working_directory, "model.pretrained", /*must_exist=*/true, pretrained, violations);
  return false;
}

}  // namespace

absl::Status CheckUnderRoots(const char* key, const std::string& path,
                             const std::vector<std::string>& roots) {
  if (roots.empty()) return absl::OkStatus();
  std::error_code error;
  const fs::path resolved = fs::weakly_canonical(path, error);
  if (!error) {
    for (const std::string& root : roots) {
      const fs::path base = fs::canonical(root, error);
      if (error) continue;
      const auto [base_end, rest] =
          std::mismatch(base.begin(), base.end(), resolved.begin(), resolved.end());
      if (base_end == base.end()) return absl::OkStatus();
    }
  }
  return absl::PermissionDeniedError(absl::StrCat(key, ": '", path,
                                                  "' is outside of the daemon's allowed_roots (",
                                                  absl::StrJoin(roots, ", "), ")"));
}

Submission ParseSubmission(const v1::SubmitRunRequest& request, const SubmissionContext& context) {
  Submission submission;
  std::vector<config::Override> overrides;
  for (const std::string& text : request.overrides()) {
    absl::StatusOr<config::Override> parsed = config::ParseOverride(text);
    if (parsed.ok()) {
      overrides.push_back(*std::move(parsed));
    } else {
      submission.violations.push_back({"overrides", std::string(parsed.status().message())});
    }
  }
  const std::string file = request.config_file().empty() ? "run.yaml" : request.config_file();
  config::Loaded<config::RunConfig> loaded =
      config::LoadRunConfig(request.config_yaml(), file, overrides);
  for (const config::Problem& problem : loaded.problems) {
    submission.violations.push_back({problem.path, problem.ToString()});
  }
  if (!submission.violations.empty()) return submission;

  config::RunConfig config = std::move(loaded.config);
  ResolvePath(request.working_directory(), "data.path", /*must_exist=*/true, config.data.path,
              submission.violations);
  ResolvePath(request.working_directory(), "data.cache_folder", /*must_exist=*/false,
              config.data.cache_folder, submission.violations);
  const bool by_name = ResolvePretrained(request.working_directory(), context.weights, config,
                                         submission.violations);
  if (!submission.violations.empty()) return submission;
  if (config.resources.ranks == 0) {
    config.resources.ranks = context.free_slots > 0 ? context.free_slots : context.slots;
  }
  if (config.resources.ranks > context.slots) {
    submission.refused = absl::ResourceExhaustedError(
        absl::StrCat("resources.ranks: the run needs ", config.resources.ranks,
                     " slots, the daemon has ", context.slots));
    return submission;
  }
  for (const auto& [key, path] :
       {std::pair<const char*, std::string>("data.path", config.data.path),
        {"data.cache_folder", config.data.cache_folder},
        // What the daemon's own table names needs no leave.
        {"model.pretrained", by_name ? "" : config.model.pretrained}}) {
    if (path.empty()) continue;
    submission.refused = CheckUnderRoots(key, path, context.allowed_roots);
    if (!submission.refused.ok()) return submission;
  }
  const int ranks = config.resources.ranks;
  config = config::Resolve(std::move(config), {ranks, ranks, context.cores});
  submission.spec = SpecOf(config, config::ToYaml(config));
  return submission;
}

RunSpec ExternalSpec(const v1::Hello& hello) {
  const auto loaded = config::LoadRunConfig(hello.config_yaml(), "run.yaml");
  RunSpec spec = SpecOf(loaded.config, hello.config_yaml());
  if (!loaded.ok()) spec.name = "external";
  spec.ranks = std::max(1, hello.world_size());
  spec.run_dir = hello.run_dir();
  spec.external = true;
  return spec;
}

}  // namespace lockstep::launch
