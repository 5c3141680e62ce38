#include "trainer/inference/commands.h"

#include <CLI/CLI.hpp>
#include <cstdio>
#include <functional>
#include <memory>
#include <new>
#include <stdexcept>

#include "absl/strings/str_cat.h"
#include "config/exit_code.h"
#include "trainer/data/dataset.h"

namespace lockstep::trainer {
namespace {

using config::ExitCode;

constexpr const char* kModelHelp =
    "A checkpoint's folder, or a run directory: its best checkpoint by the run's best_metric";

CLI::App* AddVerb(CLI::App& app, const char* name, const char* description, ModelChoice& model,
                  bool of_run_yaml = false) {
  CLI::App* verb = app.add_subcommand(name, description);
  verb->add_option(of_run_yaml ? "RUN.yaml|CHECKPOINT" : "CHECKPOINT", model.path, kModelHelp)
      ->type_name("")
      ->required();
  verb->add_option("--step", model.step, "Of a run directory the checkpoint of this step")
      ->check(CLI::NonNegativeNumber);
  return verb;
}

void AddOutput(CLI::App* verb, bool& json, const char* names = "-o,--output") {
  verb->add_option_function<std::string>(
          names, [&json](const std::string& word) { json = word == "json"; }, "table or json")
      ->check(CLI::IsMember({"table", "json"}))
      ->type_name("FORMAT");
}

struct Commands {
  EvaluateCommand evaluate;
  PredictCommand predict;
  ExportCommand save;
  DescribeCommand describe;
  ServeCommand serve;
};

void AddEvaluate(CLI::App& app, EvaluateCommand& command, std::function<int()>& run) {
  CLI::App* verb = AddVerb(app, "evaluate", "How good a model is", command.model);
  verb->add_option("--data", command.data, "Another path than the run's data.path");
  verb->add_option("--split", command.split, "Which part of the data")
      ->check(CLI::IsMember({"eval", "test", "train"}))
      ->capture_default_str();
  verb->add_option("--report", command.report,
                   "Write report.json and a self-contained report.html into this folder");
  verb->add_option("--device", command.device, "What to compute on")
      ->check(CLI::IsMember({"auto", "cpu", "gpu"}))
      ->capture_default_str();
  verb->add_option("--batch", command.batch, "Pictures through the model at once")
      ->check(CLI::Range(1, 4096))
      ->capture_default_str();
  AddOutput(verb, command.json);
  verb->callback([&] { run = [&] { return Run(command); }; });
}

void AddPredict(CLI::App& app, PredictCommand& command, std::function<int()>& run) {
  CLI::App* verb = AddVerb(app, "predict", "What a model says of pictures", command.model);
  verb->add_option("PICTURE", command.pictures, "JPEG, PNG or WebP; - reads a list of paths")
      ->type_name("")
      ->required();
  verb->add_option("--top-k", command.top_k, "So many classes, the most probable first")
      ->check(CLI::Range(1, 1'000'000))
      ->capture_default_str();
  AddOutput(verb, command.json);
  verb->callback([&] { run = [&] { return Run(command); }; });
}

void AddExport(CLI::App& app, ExportCommand& command, std::function<int()>& run) {
  CLI::App* verb = AddVerb(app, "export", "A model as a file for other programs", command.model);
  verb->add_option("--format", command.format, "Of the file")
      ->check(CLI::IsMember({"safetensors", "onnx"}))
      ->capture_default_str();
  verb->add_flag("--fp16", command.half, "Weights as float16: half the size");
  verb->add_option("-o,--out", command.out, "The file (default: NAME-step-N.FORMAT here)");
  verb->add_flag("--force", command.force, "Replace a file that is there");
  AddOutput(verb, command.json, "--output");
  verb->callback([&] { run = [&] { return Run(command); }; });
}

void AddDescribe(CLI::App& app, DescribeCommand& command, std::function<int()>& run) {
  CLI::App* verb = AddVerb(app, "describe", "The model's layers, shapes, parameters and FLOPs",
                           command.model, /*of_run_yaml=*/true);
  verb->add_option("--set", command.set, "Override one setting of a run.yaml")
      ->allow_extra_args(false);
  AddOutput(verb, command.json);
  verb->callback([&] { run = [&] { return Run(command); }; });
}

void AddServe(CLI::App& app, ServeCommand& command, std::function<int()>& run) {
  CLI::App* verb =
      AddVerb(app, "serve", "Holds a model in memory for the coordinator", command.model);
  verb->add_option("--socket-fd", command.socket, "Number of an open stream socket")->required();
  verb->callback([&] { run = [&] { return Run(command); }; });
}

}  // namespace

bool IsCommand(const std::string& word) {
  return word == "evaluate" || word == "predict" || word == "export" || word == "describe" ||
         word == "serve";
}

int RunCommand(int argc, char** argv) {
  CLI::App app{"Uses a model that lockstep-trainer trained", "lockstep-trainer"};
  Commands commands;
  std::function<int()> run;
  AddEvaluate(app, commands.evaluate, run);
  AddPredict(app, commands.predict, run);
  AddExport(app, commands.save, run);
  AddDescribe(app, commands.describe, run);
  AddServe(app, commands.serve, run);
  app.require_subcommand(1);
  const char* verb = argv[1];
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : static_cast<int>(ExitCode::kUsage);
  }
  try {
    return run();
  } catch (const DataError& error) {
    return Fail(verb, absl::DataLossError(error.what()));
  } catch (const std::invalid_argument& error) {
    return Fail(verb, absl::InvalidArgumentError(error.what()));
  } catch (const std::bad_alloc&) {
    return Fail(verb, absl::ResourceExhaustedError("out of memory"));
  } catch (const std::exception& error) {
    return Fail(verb, absl::InternalError(error.what()));
  }
}

}  // namespace lockstep::trainer
