// What lockstep-trainer does besides training: evaluate, predict, export, describe, serve. One
// process, no MPI, no coordinator.
//
// Exit codes are those of `lockstep` (config/exit_code.h), which becomes this program for them: 0
// ok, 1 failed, 2 usage, 3 not found, 4 not for this program. Answers go to stdout, talk to stderr.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "trainer/inference/trained_model.h"

namespace lockstep::trainer {

// Which model.
struct ModelChoice {
  std::string path;
  std::optional<int64_t> step;
};

struct EvaluateCommand {
  ModelChoice model;
  std::string data;            // In place of the run's data.path.
  std::string split = "eval";  // eval, test or train.
  std::string report;          // Folder; empty = no report.
  std::string device = "auto";
  int64_t batch = 32;
  bool json = false;
};

struct PredictCommand {
  ModelChoice model;
  std::vector<std::string> pictures;  // Paths; "-" stands for a list of paths on stdin.
  int top_k = 5;
  bool json = false;
};

struct ExportCommand {
  ModelChoice model;
  std::string format = "safetensors";  // Or onnx.
  bool half = false;
  std::string out;  // Empty = NAME-step-N.FORMAT in the working folder.
  bool force = false;
  bool json = false;
};

struct DescribeCommand {
  ModelChoice model;             // A run.yaml, or a checkpoint or run directory.
  std::vector<std::string> set;  // Overrides, of a run.yaml.
  bool json = false;
};

struct ServeCommand {
  ModelChoice model;
  int socket = -1;  // A stream socket that is open: the coordinator's end of the pair.
};

// Each returns the exit code.
int Run(const EvaluateCommand& command);
int Run(const PredictCommand& command);
int Run(const ExportCommand& command);
int Run(const DescribeCommand& command);
int Run(const ServeCommand& command);

/// Says it on stderr and gives the exit code that stands for it.
int Fail(const char* verb, const absl::Status& status);

/// Opens the model and says on stderr which checkpoint it is and which were passed over.
absl::StatusOr<TrainedModel> OpenChosen(const ModelChoice& choice);

/// "evaluate", "predict", …: the first argument names a verb and no file.
bool IsCommand(const std::string& word);

/// Parses and runs; `argv[1]` is the verb. Throws nothing.
int RunCommand(int argc, char** argv);

}  // namespace lockstep::trainer
