// run, submit, list, describe, pause, resume, checkpoint, stop, kill, wait.
#include <google/protobuf/timestamp.pb.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <ctime>
#include <filesystem>
#include <iostream>
#include <iterator>
#include <memory>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "config/load.h"
#include "config/rank_board.h"
#include "config/run_directory.h"
#include "launch/cli/follow.h"
#include "launch/cli/format.h"
#include "launch/cli/progress.h"
#include "launch/cli/run_file.h"
#include "launch/cli/run_json.h"
#include "launch/cli/table.h"
#include "launch/cli/verbs.h"

namespace lockstep::cli {
namespace {

using config::ExitCode;

constexpr const char* kGroup = "Runs";

double UnixSeconds(const google::protobuf::Timestamp& time) {
  return static_cast<double>(time.seconds()) + time.nanos() * 1e-9;
}

absl::StatusOr<v1::Run> GetRun(Context& context, const std::string& run) {
  v1::GetRunRequest request;
  request.set_run(run);
  auto response = MakeClient(context, kReadSeconds).Read(&ControlStub::GetRun, request);
  if (!response.ok()) return response.status();
  return response->run();
}

// ---- run, submit

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
  const bool wrong_config = absl::IsInvalidArgument(status);
  return Fail(context, verb, status,
              wrong_config ? "nothing was started; `lockstep config schema` lists every key" : "");
}

int SubmitVerb(Context& context, const char* verb, const SubmitOptions& options) {
  auto run = Submit(context, options);
  if (!run.ok()) return SubmitFailed(context, verb, run.status());
  if (context.json()) {
    context.out.Write(Document(ToJson(*run)));
  } else {
    // The id alone, so that `id=$(lockstep submit FILE)` works.
    context.out.Write(run->run_id() + "\n");
    context.Say(absl::StrCat("run ", run->run_id(), " (", run->name(), ") is ",
                             DescribeState(*run, false), "; `lockstep watch ", run->run_id(),
                             "` follows it"));
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
  context.Say(absl::StrCat("run ", id, " (", run->name(), ") in ", run->run_dir(),
                           "; Ctrl-C leaves it running"));
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
  return Code(Outcome(last));
}

// ---- list, describe

struct ListOptions {
  std::vector<std::string> states;
  int limit = 20;
  bool all = false;
  bool ids = false;
  std::string page_token;
};

std::string Age(const v1::Run& run) {
  if (!run.has_submitted()) return "-";
  return FormatSeconds(
      std::max(0.0, static_cast<double>(time(nullptr)) - UnixSeconds(run.submitted())));
}

std::string RunsTable(const std::vector<v1::Run>& runs, bool color) {
  using Align = Table::Align;
  Table table({{"ID"},
               {"NAME"},
               {"STATE"},
               {"STEP", Align::kRight},
               {"EPOCH", Align::kRight},
               {"LOSS", Align::kRight},
               {"TOP1", Align::kRight},
               {"HELD-OUT", Align::kRight},
               {"SAMPLES/S", Align::kRight},
               {"ETA", Align::kRight},
               {"COST", Align::kRight},
               {"AGE", Align::kRight}});
  for (const v1::Run& run : runs) {
    const v1::Progress& progress = run.progress();
    const bool started = progress.step() > 0;
    const bool moving = run.state() == v1::RUN_STATE_RUNNING;
    std::string steps = FormatCount(progress.step());
    if (progress.total_steps() > 0)
      absl::StrAppend(&steps, "/", FormatCount(progress.total_steps()));
    table.Add(
        {run.run_id(), Clip(Printable(run.name()), 28), ColoredState(run.state(), color), steps,
         started ? FormatEpoch(progress.epoch()) : "-",
         started ? FormatNumber(progress.loss()) : "-",
         started ? FormatRatio(progress.top1()) : "-",
         progress.has_last_evaluation() ? FormatRatio(progress.last_evaluation().top1()) : "-",
         moving ? FormatRate(progress.samples_per_second()) : "-",
         moving ? FormatSeconds(progress.eta_seconds()) : "-",
         FormatCost(run.cost(), run.currency()), Age(run)});
  }
  return table.Render();
}

absl::StatusOr<v1::RunState> ParseState(const std::string& text) {
  v1::RunState state;
  if (v1::RunState_Parse(absl::StrCat("RUN_STATE_", absl::AsciiStrToUpper(text)), &state) &&
      state != v1::RUN_STATE_UNSPECIFIED) {
    return state;
  }
  std::vector<std::string> names;
  for (int value = v1::RUN_STATE_QUEUED; value <= v1::RUN_STATE_FAILED; ++value) {
    names.push_back(absl::AsciiStrToLower(StateName(static_cast<v1::RunState>(value))));
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "--state: there is no state '", text, "'; expected one of ", absl::StrJoin(names, ", ")));
}

int ListVerb(Context& context, const ListOptions& options) {
  v1::ListRunsRequest request;
  request.set_page_token(options.page_token);
  for (const std::string& text : options.states) {
    auto state = ParseState(text);
    if (!state.ok()) return Fail(context, "list", state.status());
    request.add_states(*state);
  }
  Client client = MakeClient(context, kReadSeconds);
  std::vector<v1::Run> runs;
  std::string next;
  do {
    request.set_page_size(options.all ? 500 : options.limit);
    auto response = client.Read(&ControlStub::ListRuns, request);
    if (!response.ok()) return Fail(context, "list", response.status());
    runs.insert(runs.end(), response->runs().begin(), response->runs().end());
    next = response->next_page_token();
    request.set_page_token(next);
  } while (options.all && !next.empty());

  if (context.json()) {
    Json json;
    json["runs"] = Json::array();
    for (const v1::Run& run : runs) json["runs"].push_back(ToJson(run));
    json["next_page_token"] = next;
    context.out.Write(Document(json));
  } else if (options.ids) {
    for (const v1::Run& run : runs) context.out.Write(run.run_id() + "\n");
  } else if (runs.empty()) {
    context.Say(options.states.empty() ? "no runs yet; `lockstep run FILE` starts one"
                                       : "no run is in such a state");
  } else {
    context.out.Write(RunsTable(runs, context.color()));
    if (!next.empty()) {
      context.Say(
          absl::StrCat("older runs follow: `lockstep list --page-token ", next, "`, or --all"));
    }
  }
  return Code(ExitCode::kOk);
}

void AddProgressFields(const v1::Run& run,
                       std::vector<std::pair<std::string, std::string>>& fields) {
  const v1::Progress& progress = run.progress();
  std::string steps = FormatCount(progress.step());
  if (progress.total_steps() > 0) {
    absl::StrAppend(&steps, " of ", FormatCount(progress.total_steps()), " (",
                    FormatRatio(DoneRatio(run)), ")");
  }
  fields.emplace_back("step", steps);
  fields.emplace_back("epoch", FormatEpoch(progress.epoch()));
  fields.emplace_back("loss", FormatNumber(progress.loss()));
  fields.emplace_back("top1", FormatRatio(progress.top1()));
  fields.emplace_back("learning rate", FormatNumber(progress.learning_rate()));
  fields.emplace_back("gradient norm", FormatNumber(progress.gradient_norm()));
  fields.emplace_back("samples/s", FormatRate(progress.samples_per_second()));
  fields.emplace_back("ETA", FormatSeconds(progress.eta_seconds()));
  if (progress.nonfinite_steps() > 0) {
    fields.emplace_back("non-finite", FormatCount(progress.nonfinite_steps()) + " steps skipped");
  }
  if (progress.has_last_evaluation()) {
    fields.emplace_back("evaluation", DescribeEvaluation(progress.last_evaluation()));
  }
  if (progress.has_best_evaluation()) {
    fields.emplace_back("best", DescribeEvaluation(progress.best_evaluation()));
  }
  std::vector<std::string> phases;
  double total = 0;
  for (double seconds : progress.phase_seconds()) total += seconds;
  for (int phase = 0; phase < std::min(progress.phase_seconds_size(), config::kPhaseCount);
       ++phase) {
    const double seconds = progress.phase_seconds(phase);
    if (total > 0 && seconds / total >= 0.0005) {
      phases.push_back(absl::StrCat(config::PhaseName(static_cast<config::Phase>(phase)), " ",
                                    FormatRatio(seconds / total)));
    }
  }
  if (!phases.empty()) fields.emplace_back("time in", absl::StrJoin(phases, ", "));
  for (const v1::RankStraggling& rank : progress.ranks()) {
    fields.emplace_back(absl::StrCat("rank ", rank.rank()),
                        absl::StrCat("waited ", FormatSeconds(rank.wait_seconds()),
                                     " for the slowest; was the slowest in ",
                                     FormatCount(rank.slowest_steps()), " steps"));
  }
}

std::string Description(const v1::Run& run, bool color) {
  std::vector<std::pair<std::string, std::string>> fields;
  const auto when = [](bool known, const google::protobuf::Timestamp& time) {
    return known ? FormatLocal(UnixSeconds(time)) : std::string("-");
  };
  fields.emplace_back("run", run.run_id());
  fields.emplace_back("name", Printable(run.name()));
  fields.emplace_back("state", ColoredState(run.state(), color));
  if (!run.reason().empty()) fields.emplace_back("reason", Printable(run.reason()));
  if (run.queue_position() > 0) {
    fields.emplace_back("queue", absl::StrCat("position ", run.queue_position()));
  }
  if (run.progress().held()) fields.emplace_back("held", "its processes stand still in memory");
  fields.emplace_back("model", Printable(run.model()));
  fields.emplace_back("data", Printable(run.dataset()));
  fields.emplace_back("ranks", absl::StrCat(run.ranks()));
  fields.emplace_back("priority", absl::StrCat(run.priority()));
  fields.emplace_back("attempt", absl::StrCat(run.attempt(), " (", run.restarts(),
                                              run.restarts() == 1 ? " restart)" : " restarts)"));
  fields.emplace_back("submitted", absl::StrCat(when(run.has_submitted(), run.submitted()), " by ",
                                                Printable(run.submitted_by()),
                                                run.external() ? ", under mpirun by hand" : ""));
  fields.emplace_back("started", when(run.has_started(), run.started()));
  fields.emplace_back("ended", when(run.has_ended(), run.ended()));
  if (run.has_progress()) AddProgressFields(run, fields);
  fields.emplace_back("checkpoint", run.has_last_checkpoint()
                                        ? DescribeCheckpoint(run.last_checkpoint())
                                        : "none yet");
  fields.emplace_back("cost", FormatCost(run.cost(), run.currency()));
  fields.emplace_back("files", Printable(run.run_dir()));
  return RenderFields(fields);
}

int DescribeVerb(Context& context, const std::string& id, bool with_config) {
  auto run = GetRun(context, id);
  if (!run.ok()) return Fail(context, "describe", run.status());
  if (context.json()) {
    context.out.Write(Document(ToJson(*run)));
    return Code(ExitCode::kOk);
  }
  context.out.Write(Description(*run, context.color()));
  if (with_config) context.out.Write("\n" + run->config_yaml());
  return Code(ExitCode::kOk);
}

// ---- orders

// The answer of an order: one line, or the run with what the order adds to it.
int Answer(Context& context, const std::string& line, const v1::Run& run, Json extra = {}) {
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

int ResumeVerb(Context& context, const std::string& id) {
  v1::ResumeRunRequest request;
  request.set_run(id);
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

int WaitVerb(Context& context, const std::string& id) {
  Interrupts interrupts;
  auto run = GetRun(context, id);
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

// ---- how they are typed

void AddRun(CLI::App& app, Context& context) {
  const auto add = [&](CLI::App* verb, const std::shared_ptr<SubmitOptions>& options) {
    verb->add_option("FILE", options->file, "run.yaml; - reads standard input")->required();
    verb->add_option("--set", options->overrides,
                     "a.b=c: overrides a key of the file; may be repeated")
        ->expected(1)
        ->allow_extra_args(false)
        ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)
        ->type_name("KEY=VALUE");
  };
  auto run = std::make_shared<SubmitOptions>();
  CLI::App* verb =
      AddVerb(app, "run", "Submit a run and follow it to its end", kGroup,
              "lockstep run config/examples/quickstart.yaml --set training.duration=1ep");
  add(verb, run);
  verb->add_flag("-d,--detach", run->detach, "Submit only; the same as `lockstep submit`");
  OnVerb(verb, context, [&context, run] { return RunVerb(context, *run); });

  auto submit = std::make_shared<SubmitOptions>();
  verb = AddVerb(app, "submit", "Queue a run and print its id", kGroup,
                 "id=$(lockstep submit run.yaml)");
  add(verb, submit);
  OnVerb(verb, context, [&context, submit] { return SubmitVerb(context, "submit", *submit); });
}

void AddList(CLI::App& app, Context& context) {
  auto options = std::make_shared<ListOptions>();
  CLI::App* verb = AddVerb(app, "list", "The runs, newest first", kGroup,
                           "lockstep list --state running,queued");
  verb->add_option("--state", options->states, "Only runs in these states, e.g. running,paused")
      ->delimiter(',')
      ->type_name("STATE");
  verb->add_option("-n,--limit", options->limit, "Runs a page")
      ->check(CLI::Range(1, 500))
      ->capture_default_str();
  verb->add_flag("-a,--all", options->all, "Every page");
  verb->add_flag("--ids", options->ids, "Only the ids, one a line");
  verb->add_option("--page-token", options->page_token, "The page after the one that named it");
  OnVerb(verb, context, [&context, options] { return ListVerb(context, *options); });
}

// A verb that takes one run and nothing else.
CLI::App* AddOneRunVerb(CLI::App& app, Context& context, const std::string& name,
                        const std::string& description,
                        int (*function)(Context&, const std::string&)) {
  auto run = std::make_shared<std::string>();
  CLI::App* verb =
      AddVerb(app, name, description, kGroup, absl::StrCat("lockstep ", name, " 3fa1"));
  verb->add_option("RUN", *run, "Id, start of an id, or name of a run")->required();
  OnVerb(verb, context, [&context, run, function] { return function(context, *run); });
  return verb;
}

}  // namespace

void AddRunCommands(CLI::App& app, Context& context) {
  AddRun(app, context);
  AddList(app, context);

  auto described = std::make_shared<std::pair<std::string, bool>>();
  CLI::App* verb = AddVerb(app, "describe", "Everything about one run", kGroup,
                           "lockstep describe 3fa1 --config");
  verb->add_option("RUN", described->first, "Id, start of an id, or name of a run")->required();
  verb->add_flag("--config", described->second, "With its resolved config");
  OnVerb(verb, context, [&context, described] {
    return DescribeVerb(context, described->first, described->second);
  });

  auto paused = std::make_shared<std::pair<std::string, bool>>();
  verb = AddVerb(app, "pause", "Save a checkpoint and free the run's slots", kGroup,
                 "lockstep pause 3fa1 --hold");
  verb->add_option("RUN", paused->first, "Id, start of an id, or name of a run")->required();
  verb->add_flag("--hold", paused->second, "Keep the processes: resumes in under a second");
  OnVerb(verb, context,
         [&context, paused] { return PauseVerb(context, paused->first, paused->second); });

  AddOneRunVerb(app, context, "resume", "Go on with a paused run", ResumeVerb);
  AddOneRunVerb(app, context, "checkpoint", "Save a checkpoint now; returns when it is durable",
                CheckpointVerb);
  AddOneRunVerb(app, context, "stop", "Save a checkpoint and end the run", StopVerb);
  AddOneRunVerb(app, context, "kill", "End the run at once, without saving", KillVerb);
  AddOneRunVerb(app, context, "wait",
                "Wait for the end; exit 0 completed, 1 failed, 8 budget, 9 stopped", WaitVerb);
}

}  // namespace lockstep::cli
