// pause, resume, checkpoint, stop, kill: orders to a run. Each returns when it has been carried
// out.
#include <CLI/CLI.hpp>
#include <cmath>
#include <memory>
#include <optional>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "config/duration.h"
#include "launch/cli/format.h"
#include "launch/cli/progress.h"
#include "launch/cli/run_json.h"
#include "launch/cli/verbs.h"

namespace lockstep::cli {
namespace {

using config::ExitCode;

// The answer of an order: one line, or the run with what the order adds to it.
int Answer(Context& context, const std::string& line, const v1::Run& run, const Json& extra = {}) {
  if (context.json()) {
    Json json{{"run", ToJson(run)}};
    if (extra.is_object()) json.update(extra);
    context.out.Write(Document(json));
  } else {
    context.out.Write(line + "\n");
  }
  return Code(ExitCode::kOk);
}

int OrderFailed(Context& context, const char* verb, const std::string& id,
                const absl::Status& status) {
  std::string hint;
  if (absl::IsDeadlineExceeded(status)) {
    hint = absl::StrCat("the order may still be carried out; `lockstep describe ", id,
                        "` shows the state, `--timeout SECONDS` waits longer");
  } else if (absl::IsFailedPrecondition(status)) {
    hint = absl::StrCat("`lockstep describe ", id, "` shows the state it is in and why");
  }
  return Fail(context, absl::StrCat(verb, " ", id), status, hint);
}

// Empty, or what is wrong with it.
std::string WallTime(const std::string& text) {
  const auto time = config::Duration::Parse(text);
  const bool good =
      time.ok() && (time->is_zero() || time->unit() == config::Duration::Unit::kSeconds);
  return good ? "" : absl::StrCat("expected a time such as 90m, 2h or 0s, not ", text);
}

// Likewise.
std::string NotNegative(const std::string& text) {
  double number = 0;
  const bool good = absl::SimpleAtod(text, &number) && number >= 0 && std::isfinite(number);
  return good ? "" : absl::StrCat("expected a number, or 0 for no limit, not ", text);
}

std::string AfterStep(int64_t step) {
  return step > 0 ? absl::StrCat("after step ", FormatCount(step)) : "before its first step";
}

int PauseVerb(Context& context, const std::string& id, bool hold) {
  v1::PauseRunRequest request;
  request.set_run(id);
  request.set_hold(hold);
  auto response =
      MakeClient(context, kOrderSeconds).Mutate(&ControlStub::PauseRun, std::move(request));
  if (!response.ok()) return OrderFailed(context, "pause", id, response.status());
  const v1::Run& run = response->run();
  return Answer(context,
                absl::StrCat("paused ", run.run_id(), " ", AfterStep(response->step()),
                             hold ? "; its processes stand still and keep their slots"
                                  : "; its slots are free",
                             ". `lockstep resume ", run.run_id(), "` goes on"),
                run, {{"step", response->step()}});
}

struct ResumeArguments {
  std::string run;
  std::optional<double> max_cost;
  std::optional<double> max_energy;
  std::string max_time;
};

int ResumeVerb(Context& context, const ResumeArguments& arguments) {
  const std::string& id = arguments.run;
  v1::ResumeRunRequest request;
  request.set_run(id);
  v1::LimitChanges& limits = *request.mutable_limits();
  if (arguments.max_cost) limits.set_max_cost(*arguments.max_cost);
  if (arguments.max_energy) limits.set_max_energy_kwh(*arguments.max_energy);
  if (!arguments.max_time.empty()) {
    const auto time = config::Duration::Parse(arguments.max_time);  // Checked with the arguments.
    if (time.ok()) limits.set_max_time_seconds(time->count());
  }
  auto response = MakeClient(context, 30).Mutate(&ControlStub::ResumeRun, std::move(request));
  if (!response.ok()) return OrderFailed(context, "resume", id, response.status());
  const v1::Run& run = response->run();
  return Answer(context, absl::StrCat("resumed ", run.run_id(), ": ", DescribeState(run, false)),
                run);
}

int CheckpointVerb(Context& context, const std::string& id) {
  v1::CheckpointRunRequest request;
  request.set_run(id);
  auto response =
      MakeClient(context, kOrderSeconds).Mutate(&ControlStub::CheckpointRun, std::move(request));
  if (!response.ok()) return OrderFailed(context, "checkpoint", id, response.status());
  const v1::CheckpointEvent& checkpoint = response->checkpoint();
  if (!checkpoint.ok()) {
    return Fail(context, absl::StrCat("checkpoint ", id),
                absl::InternalError(DescribeCheckpoint(checkpoint)),
                "`lockstep doctor` checks the disk; the checkpoint before is untouched");
  }
  std::string line = DescribeCheckpoint(checkpoint);
  if (!checkpoint.path().empty()) absl::StrAppend(&line, ", ", checkpoint.path());
  return Answer(context, line, response->run(), {{"checkpoint", ToJson(checkpoint)}});
}

int StopVerb(Context& context, const std::string& id) {
  v1::StopRunRequest request;
  request.set_run(id);
  auto response =
      MakeClient(context, kOrderSeconds).Mutate(&ControlStub::StopRun, std::move(request));
  if (!response.ok()) return OrderFailed(context, "stop", id, response.status());
  const v1::Run& run = response->run();
  std::string line = absl::StrCat("stopped ", run.run_id(), " ", AfterStep(response->step()));
  if (run.last_checkpoint().ok() && run.last_checkpoint().step() == response->step()) {
    absl::StrAppend(&line, "; its checkpoint is saved in ", run.run_dir());
  }
  return Answer(context, line, run, {{"step", response->step()}});
}

int KillVerb(Context& context, const std::string& id) {
  v1::KillRunRequest request;
  request.set_run(id);
  auto response = MakeClient(context, 60).Mutate(&ControlStub::KillRun, std::move(request));
  if (!response.ok()) return OrderFailed(context, "kill", id, response.status());
  const v1::Run& run = response->run();
  const std::string kept =
      run.has_last_checkpoint() && run.last_checkpoint().ok()
          ? absl::StrCat("; what it had learned up to step ",
                         FormatCount(run.last_checkpoint().step()), " is in ", run.run_dir())
          : "; it had no checkpoint";
  return Answer(context, absl::StrCat("killed ", run.run_id(), kept), run);
}

}  // namespace

void AddOrderCommands(CLI::App& app, Context& context) {
  auto paused = std::make_shared<std::pair<std::string, bool>>();
  CLI::App* verb = AddVerb(app, "pause", "Save a checkpoint and free the run's slots", kRunsGroup,
                           "lockstep pause 3fa1 --hold");
  verb->add_option("RUN", paused->first, kRunHelp)->type_name("")->required();
  verb->add_flag("--hold", paused->second, "Keep the processes: resumes in under a second");
  OnVerb(verb, context,
         [&context, paused] { return PauseVerb(context, paused->first, paused->second); });

  auto resumed = std::make_shared<ResumeArguments>();
  verb = AddVerb(app, "resume", "Go on with a paused run; raise its limits", kRunsGroup,
                 "lockstep resume 3fa1 --max-cost 12.50");
  verb->add_option("RUN", resumed->run, kRunHelp)->type_name("")->required();
  const std::string in_all = " from now on, of all it has used and will; 0 = none";
  verb->add_option("--max-cost", resumed->max_cost, "The run's cost.max_cost" + in_all)
      ->type_name("AMOUNT")
      ->check(NotNegative);
  verb->add_option("--max-energy", resumed->max_energy, "Likewise cost.max_energy, in kWh")
      ->type_name("KWH")
      ->check(NotNegative);
  verb->add_option("--max-time", resumed->max_time, "Likewise cost.max_time, such as 90m or 2h")
      ->type_name("TIME")
      ->check(WallTime);
  OnVerb(verb, context, [&context, resumed] { return ResumeVerb(context, *resumed); });

  AddOneRunVerb(app, context, "checkpoint", "Save a checkpoint now; returns when it is durable",
                CheckpointVerb);
  AddOneRunVerb(app, context, "stop", "Save a checkpoint and end the run", StopVerb);
  AddOneRunVerb(app, context, "kill", "End the run at once, without saving", KillVerb);
}

}  // namespace lockstep::cli
