// evaluate, predict, export: what a trained model is used for. The work is lockstep-trainer's,
// which this program becomes: it knows nothing of models itself.
#include <CLI/CLI.hpp>
#include <filesystem>
#include <memory>

#include "absl/strings/str_cat.h"
#include "launch/cli/programs.h"
#include "launch/cli/served.h"
#include "launch/cli/verbs.h"

namespace lockstep::cli {
namespace {

constexpr const char* kModelsGroup = "Models";
constexpr const char* kModelHelp =
    "A checkpoint's folder or a run directory, or the id or name of a run that the coordinator "
    "knows; of a run its best checkpoint";

struct ModelOptions {
  std::string model;
  std::vector<std::string> passed;  // To lockstep-trainer, as they are.
  std::vector<std::string> pictures;
  int top_k = 5;
  bool served = false;
};

// The folder that holds the model.
absl::StatusOr<std::string> FindModel(const Context& context, const std::string& model) {
  std::error_code error;
  if (std::filesystem::exists(model, error)) return model;
  if (model.find('/') != std::string::npos) {
    return absl::NotFoundError(absl::StrCat("there is no checkpoint or run directory ", model));
  }
  auto run = FindRun(context, model);
  if (run.ok()) return run->run_dir();
  if (absl::IsNotFound(run.status())) {
    return absl::NotFoundError(
        absl::StrCat("there is no folder ", model, ", and the coordinator knows no such run"));
  }
  return absl::Status(run.status().code(),
                      absl::StrCat("there is no folder ", model,
                                   ", and the coordinator cannot be asked for a run of that name: ",
                                   run.status().message()));
}

int Become(Context& context, const char* verb, const ModelOptions& options) {
  const auto model = FindModel(context, options.model);
  if (!model.ok()) return Fail(context, verb, model.status());
  const auto trainer = FindProgram("lockstep-trainer");
  if (!trainer.ok()) return Fail(context, verb, trainer.status());
  std::vector<std::string> arguments = {trainer->string(), verb};
  arguments.insert(arguments.end(), options.passed.begin(), options.passed.end());
  if (context.json()) arguments.insert(arguments.end(), {"--output", "json"});
  arguments.insert(arguments.end(), {"--", *model});
  arguments.insert(arguments.end(), options.pictures.begin(), options.pictures.end());
  return Fail(context, verb, BecomeProgram(arguments));
}

// An option whose value goes to lockstep-trainer under the same name.
void PassOption(CLI::App* verb, const std::shared_ptr<ModelOptions>& options,
                const std::string& name, const std::string& help, const std::string& type) {
  verb->add_option_function<std::string>(
          name,
          [options, name](const std::string& value) {
            options->passed.insert(options->passed.end(), {name, value});
          },
          help)
      ->type_name(type);
}

void PassFlag(CLI::App* verb, const std::shared_ptr<ModelOptions>& options, const std::string& name,
              const std::string& help) {
  verb->add_flag_callback(
      name, [options, name] { options->passed.push_back(name); }, help);
}

CLI::App* AddModelVerb(CLI::App& app, const std::shared_ptr<ModelOptions>& options,
                       const std::string& name, const std::string& description,
                       const std::string& example) {
  CLI::App* verb = AddVerb(app, name, description, kModelsGroup, example);
  verb->add_option("RUN", options->model, kModelHelp)->type_name("")->required();
  PassOption(verb, options, "--step", "Of a run the checkpoint of this step", "STEP");
  return verb;
}

}  // namespace

void AddModelCommands(CLI::App& app, Context& context) {
  auto evaluated = std::make_shared<ModelOptions>();
  CLI::App* verb = AddModelVerb(app, evaluated, "evaluate",
                                "How good a model is, on any data; with --report as a web page",
                                "lockstep evaluate 3fa1 --data photos --report report");
  PassOption(verb, evaluated, "--data",
             "Another folder, CSV file or folder of tar files than it was trained with", "PATH");
  PassOption(verb, evaluated, "--split", "eval (default), test or train", "SPLIT");
  PassOption(verb, evaluated, "--report",
             "Write report.json and a self-contained report.html into this folder", "FOLDER");
  PassOption(verb, evaluated, "--device", "auto (default), cpu or gpu", "DEVICE");
  OnVerb(verb, context, [&context, evaluated] { return Become(context, "evaluate", *evaluated); });

  auto predicted = std::make_shared<ModelOptions>();
  verb = AddModelVerb(app, predicted, "predict", "What a model says of pictures",
                      "lockstep predict 3fa1 cat.jpg dog.png");
  verb->add_option("PICTURE", predicted->pictures, "JPEG, PNG or WebP; - reads a list of paths")
      ->type_name("")
      ->required();
  verb->add_option("--top-k", predicted->top_k, "So many classes, the most probable first")
      ->check(PositiveValidator())
      ->default_str("5")
      ->type_name("K");
  verb->add_flag("--served", predicted->served,
                 "Ask the coordinator, which keeps the model in memory between calls")
      ->excludes("--step");
  OnVerb(verb, context, [&context, predicted] {
    if (predicted->served) {
      return PredictServed(context, {predicted->model, predicted->pictures, predicted->top_k});
    }
    predicted->passed.insert(predicted->passed.end(), {"--top-k", absl::StrCat(predicted->top_k)});
    return Become(context, "predict", *predicted);
  });

  auto exported = std::make_shared<ModelOptions>();
  verb = AddModelVerb(app, exported, "export", "A model as a file for other programs",
                      "lockstep export 3fa1 --format onnx --out model.onnx");
  PassOption(verb, exported, "--format", "safetensors (default) or onnx", "FORMAT");
  PassFlag(verb, exported, "--fp16", "Weights as float16: half the size");
  PassOption(verb, exported, "--out", "Where to (default: NAME-STEP.FORMAT here)", "FILE");
  PassFlag(verb, exported, "--force", "Replace a file that is there");
  OnVerb(verb, context, [&context, exported] { return Become(context, "export", *exported); });
}

}  // namespace lockstep::cli
