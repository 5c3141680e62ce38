// watch and logs.
#include <CLI/CLI.hpp>
#include <chrono>
#include <memory>
#include <thread>

#include "absl/strings/str_cat.h"
#include "launch/cli/follow.h"
#include "launch/cli/format.h"
#include "launch/cli/log_stream.h"
#include "launch/cli/progress.h"
#include "launch/cli/run_json.h"
#include "launch/cli/verbs.h"

namespace lockstep::cli {
namespace {

using config::ExitCode;

absl::StatusOr<std::vector<v1::Run>> RunsToWatch(Context& context,
                                                 const std::vector<std::string>& ids) {
  Client client = MakeClient(context, kReadSeconds);
  std::vector<v1::Run> runs;
  for (const std::string& id : ids) {
    v1::GetRunRequest request;
    request.set_run(id);
    auto response = client.Read(&ControlStub::GetRun, request);
    if (!response.ok()) return response.status();
    runs.push_back(response->run());
  }
  if (!ids.empty()) return runs;
  return LiveRuns(client);
}

int WatchVerb(Context& context, const std::vector<std::string>& ids) {
  Interrupts interrupts;
  auto runs = RunsToWatch(context, ids);
  if (!runs.ok()) return Fail(context, "watch", runs.status());
  if (runs->empty()) {
    context.Say(
        "no run is active; `lockstep list` shows the ended ones, `lockstep run FILE` starts one");
    return Code(ExitCode::kOk);
  }
  const Followed followed = Follow(context, interrupts, *runs, {.discover = ids.empty()});
  if (followed.signal != 0) {
    context.Say("\nthe runs go on without this terminal.");
    return 128 + followed.signal;
  }
  if (followed.reader_gone) return Code(ExitCode::kOk);
  if (!followed.status.ok()) return Fail(context, "watch", followed.status);
  if (!context.json() && !ids.empty()) {
    for (const v1::Run& run : followed.runs) context.out.Write(Summary(run, context.color()));
  }
  return Code(ExitCode::kOk);
}

}  // namespace

void AddWatchCommands(CLI::App& app, Context& context) {
  auto ids = std::make_shared<std::vector<std::string>>();
  CLI::App* verb =
      AddVerb(app, "watch", "Follow runs until they end; all active ones when none is named",
              kWatchingGroup, "lockstep watch 3fa1");
  verb->add_option("RUN", *ids, "Ids, starts of ids, or names of runs")->type_name("");
  OnVerb(verb, context, [&context, ids] { return WatchVerb(context, *ids); });

  auto options = std::make_shared<LogOptions>();
  verb = AddVerb(app, "logs", "What a rank of a run printed", kWatchingGroup,
                 "lockstep logs 3fa1 -f --rank 1");
  verb->add_option("RUN", options->run, kRunHelp)->type_name("")->required();
  verb->add_flag("-f,--follow", options->follow, "Go on until the run ends");
  CLI::Option* rank = verb->add_option("--rank", options->rank, "Whose log; 0 if not given")
                          ->check(CLI::Range(0, 4095).description(""))
                          ->type_name("N");
  verb->add_flag("--mpirun", options->mpirun, "What mpirun itself printed, instead of a rank");
  verb->add_option("--attempt", options->attempt, "Of which attempt; the newest if not given")
      ->check(CLI::Range(1, 1 << 30).description(""))
      ->type_name("N");
  verb->add_option("--tail", options->tail_bytes, "Only the last so many bytes")
      ->check(PositiveValidator())
      ->type_name("BYTES");
  OnVerb(verb, context, [&context, options, rank] {
    if (options->mpirun && rank->count() > 0) {
      return Fail(context, "logs",
                  absl::InvalidArgumentError("--rank and --mpirun exclude each other"));
    }
    return PrintLogs(context, *options);
  });
}

}  // namespace lockstep::cli
