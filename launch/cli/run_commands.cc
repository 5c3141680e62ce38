// run, submit, wait.
#include <CLI/CLI.hpp>
#include <filesystem>
#include <memory>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "config/load.h"
#include "launch/cli/follow.h"
#include "launch/cli/format.h"
#include "launch/cli/progress.h"
#include "launch/cli/run_file.h"
#include "launch/cli/run_json.h"
#include "launch/cli/verbs.h"

namespace lockstep::cli {
namespace {

using config::ExitCode;

struct SubmitOptions {
  std::string file;
  std::vector<std::string> overrides;
  bool detach = false;
};

// Checks the file here first: a wrong one is told with its places even where no coordinator runs.
absl::StatusOr<v1::Run> Submit(Context& context, const SubmitOptions& options) {
  auto file = ReadRunFile(options.file, options.overrides);
  if (!file.ok()) return file.status();
  const auto loaded = config::LoadRunConfig(file->yaml, file->name, file->overrides);
  if (!loaded.ok()) return absl::InvalidArgumentError(loaded.Report());
  v1::SubmitRunRequest request;
  request.set_config_yaml(file->yaml);
  request.set_config_file(file->name);
  for (const config::Override& override : file->overrides) {
    request.add_overrides(absl::StrCat(override.path, "=", override.value));
  }
  std::error_code error;
  request.set_working_directory(std::filesystem::current_path(error).string());
  auto response =
      MakeClient(context, kReadSeconds).Mutate(&ControlStub::SubmitRun, std::move(request));
  if (!response.ok()) return response.status();
  return response->run();
}

int SubmitFailed(Context& context, const char* verb, const absl::Status& status) {
  // A line of a wrong config names its place: "run.yaml:3:27: …".
  const bool wrong_config =
      absl::IsInvalidArgument(status) && absl::StrContains(status.message(), ":");
  return Fail(context, verb, status,
              wrong_config
                  ? "nothing was started; `lockstep config schema --markdown` lists every key"
                  : "");
}

int SubmitVerb(Context& context, const char* verb, const SubmitOptions& options) {
  auto run = Submit(context, options);
  if (!run.ok()) return SubmitFailed(context, verb, run.status());
  if (context.json()) {
    context.out.Write(Document(ToJson(*run)));
  } else {
    // The id alone, so that `id=$(lockstep submit FILE)` works.
    context.out.Write(run->run_id() + "\n");
    context.Say(absl::StrCat("run ", Label(*run), " is ", DescribeState(*run, false),
                             "; `lockstep watch ", run->run_id(), "` follows it"));
  }
  return Code(ExitCode::kOk);
}

int Left(Context& context, const std::string& id, int signal) {
  context.Say(absl::StrCat("\nrun ", id, " goes on without this terminal.\n", "  lockstep watch ",
                           id, "   follow it again\n", "  lockstep pause ", id,
                           "   save, and free its slots\n", "  lockstep stop ", id,
                           "    save, and end it"));
  return 128 + signal;
}

int RunVerb(Context& context, const SubmitOptions& options) {
  if (options.detach) return SubmitVerb(context, "run", options);
  Interrupts interrupts;
  auto run = Submit(context, options);
  if (!run.ok()) return SubmitFailed(context, "run", run.status());
  const std::string id = run->run_id();
  context.Say(
      absl::StrCat("run ", Label(*run), " in ", run->run_dir(), "; Ctrl-C leaves it running"));
  const Followed followed = Follow(context, interrupts, {*run}, {});
  if (followed.signal != 0) return Left(context, id, followed.signal);
  if (followed.reader_gone) return Code(ExitCode::kOk);
  const v1::Run& last = followed.runs.front();
  if (!followed.status.ok()) {
    return Fail(context, "run", followed.status,
                absl::StrCat("the run goes on without the coordinator; `lockstep daemon start` and "
                             "`lockstep watch ",
                             id, "` find it again"));
  }
  if (!context.json()) context.out.Write(Summary(last, context.color()));
  if (last.state() == v1::RUN_STATE_FAILED) {
    context.Say(absl::StrCat("  hint: `lockstep logs ", id,
                             "` shows what rank 0 said, `lockstep logs ", id,
                             " --mpirun` what mpirun said"));
  }
  if (last.state() == v1::RUN_STATE_PAUSED) {
    context.Say(absl::StrCat("  hint: `lockstep resume ", id,
                             "` goes on, past a limit of its own with --max-cost, --max-energy or "
                             "--max-time; `lockstep stop ",
                             id, "` closes it and keeps its checkpoints"));
  }
  return Code(Outcome(last));
}

int WaitVerb(Context& context, const std::string& id) {
  Interrupts interrupts;
  auto run = FindRun(context, id);
  if (!run.ok()) return Fail(context, "wait", run.status());
  const Followed followed = Follow(context, interrupts, {*run},
                                   {.quiet = true, .give_up_seconds = context.timeout_seconds});
  if (followed.signal != 0) return 128 + followed.signal;
  if (!followed.status.ok()) {
    return Fail(context, absl::StrCat("wait ", id), followed.status,
                absl::IsDeadlineExceeded(followed.status)
                    ? "the run goes on; `lockstep watch` shows how far it is"
                    : "");
  }
  const v1::Run& last = followed.runs.front();
  context.out.Write(context.json() ? Document(ToJson(last)) : Summary(last, context.color()));
  return Code(Outcome(last));
}

void AddRun(CLI::App& app, Context& context) {
  const auto add = [&](CLI::App* verb, const std::shared_ptr<SubmitOptions>& options) {
    verb->add_option("FILE", options->file, "run.yaml; - reads standard input")
        ->type_name("")
        ->required();
    verb->add_option("--set", options->overrides,
                     "a.b=c: overrides a key of the file; may be repeated")
        ->expected(1)
        ->allow_extra_args(false)
        ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)
        ->type_name("KEY=VALUE");
  };
  auto run = std::make_shared<SubmitOptions>();
  CLI::App* verb =
      AddVerb(app, "run", "Submit a run and follow it to its end", kRunsGroup,
              "lockstep run config/examples/quickstart.yaml --set training.duration=1ep");
  add(verb, run);
  verb->add_flag("-d,--detach", run->detach, "Submit only; the same as `lockstep submit`");
  OnVerb(verb, context, [&context, run] { return RunVerb(context, *run); });

  auto submit = std::make_shared<SubmitOptions>();
  verb = AddVerb(app, "submit", "Queue a run and print its id", kRunsGroup,
                 "id=$(lockstep submit run.yaml)");
  add(verb, submit);
  OnVerb(verb, context, [&context, submit] { return SubmitVerb(context, "submit", *submit); });
}

}  // namespace

void AddRunCommands(CLI::App& app, Context& context) {
  AddRun(app, context);
  AddOneRunVerb(app, context, "wait",
                "Wait for the end; exit 0 completed, 1 failed, 8 budget, 9 stopped", WaitVerb);
}

}  // namespace lockstep::cli
