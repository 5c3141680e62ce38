// run.yaml text in, RunConfig out; or every problem at once.
//
// Strict by design: unknown and duplicate keys, anchors and aliases, tags, ambiguous scalars
// (`010`, `no`, `.nan`), wrong types, values out of range and contradictions are all refused, each
// as file:line:col with the path and a hint. Hostile input (deep nesting, huge text, NUL bytes, bad
// UTF-8) is refused before a parser sees it.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "config/run_config.h"

namespace lockstep::config {

struct Problem {
  std::string file;     // As given; "--set" or "environment" for overrides.
  int line = 0;         // 1-based; 0 = no place in the file.
  int column = 0;       // 1-based.
  std::string path;     // "training.global_batch_size"
  std::string message;  // "unknown key"
  std::string hint;     // "did you mean 'global_batch_size'?"; may be empty.

  std::string ToString() const;  // file:line:col: path: message; hint
};

// One `a.b=c`, from `--set` or from LOCKSTEP_A__B; `origin` names which, for error messages.
struct Override {
  std::string path;
  std::string value;
  std::string origin;
};

template <typename T>
struct Loaded {
  T config;
  std::vector<Problem> problems;  // Sorted by place. Empty = the config is valid.
  bool ok() const { return problems.empty(); }
  std::string Report() const;  // One problem a line.
};

/// Parses and validates. Later overrides win; environment before --set is the caller's order.
Loaded<RunConfig> LoadRunConfig(std::string_view yaml, const std::string& file_name,
                                const std::vector<Override>& overrides = {});

/// `a.b=c` → Override; INVALID_ARGUMENT when there is no '='.
absl::StatusOr<Override> ParseOverride(std::string_view text);
/// Every LOCKSTEP_A__B=c of the environment whose name has a `__` (the others configure the
/// programs themselves).
std::vector<Override> EnvironmentOverrides(char** environment);

// What must be known to close every `auto`.
struct Machine {
  int world_size = 1;
  int ranks_on_host = 1;
  int cores = 1;
};
/// Closes `auto` in resources and training batch sizes. Model classes and image size are the data
/// set's and are closed there.
RunConfig Resolve(RunConfig config, const Machine& machine);

/// YAML text with every field, defaults too. LoadRunConfig(ToYaml(c)) gives c. Of a resolved config
/// it writes the global batch size only, from which the other follows: Resolve() gives c again.
std::string ToYaml(const RunConfig& config);

// One key with its value as YAML: {"model.cnn.blocks[0].pool", "max"}.
struct Setting {
  std::string path;
  std::string value;
};
/// Every key of a config, in the order of the reference.
std::vector<Setting> SettingsOf(const RunConfig& config);

/// JSON Schema (draft 2020-12) that accepts what LoadRunConfig accepts, contradictions between
/// fields aside.
std::string RunConfigJsonSchema();
/// Every key with its type, default, range and meaning, as Markdown tables: the README's reference.
std::string RunConfigReference();

}  // namespace lockstep::config
