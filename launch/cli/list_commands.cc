// list, describe.
#include <google/protobuf/timestamp.pb.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <ctime>
#include <memory>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "config/rank_board.h"
#include "launch/cli/format.h"
#include "launch/cli/progress.h"
#include "launch/cli/run_json.h"
#include "launch/cli/spending.h"
#include "launch/cli/table.h"
#include "launch/cli/verbs.h"

namespace lockstep::cli {
namespace {

using config::ExitCode;

double UnixSeconds(const google::protobuf::Timestamp& time) {
  return static_cast<double>(time.seconds()) + time.nanos() * 1e-9;
}

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
  // Columns that most lists would leave empty are there when a run fills them.
  const bool projected = std::any_of(
      runs.begin(), runs.end(), [](const v1::Run& run) { return !DescribeProjected(run).empty(); });
  const bool limited = std::any_of(
      runs.begin(), runs.end(), [](const v1::Run& run) { return !run.spending().limit().empty(); });
  std::vector<Table::Column> columns = {{"ID"},
                                        {"NAME"},
                                        {"STATE"},
                                        {"STEP", Align::kRight},
                                        {"EPOCH", Align::kRight},
                                        {"LOSS", Align::kRight},
                                        {"SCORE", Align::kRight},
                                        {"HELD-OUT", Align::kRight},
                                        {"SAMPLES/S", Align::kRight},
                                        {"ETA", Align::kRight},
                                        {"COST", Align::kRight}};
  if (projected) columns.push_back({"AT END", Align::kRight});
  if (limited) columns.push_back({"LIMIT", Align::kRight});
  columns.push_back({"AGE", Align::kRight});
  Table table(columns);
  for (const v1::Run& run : runs) {
    const v1::Progress& progress = run.progress();
    const bool started = progress.step() > 0;
    const bool moving = run.state() == v1::RUN_STATE_RUNNING;
    std::string steps = FormatCount(progress.step());
    if (progress.total_steps() > 0)
      absl::StrAppend(&steps, "/", FormatCount(progress.total_steps()));
    std::vector<std::string> cells = {run.run_id(),
                                      Clip(Printable(run.name()), 28),
                                      ColoredState(run.state(), color),
                                      steps,
                                      started ? FormatEpoch(progress.epoch()) : "-",
                                      started ? FormatNumber(progress.loss()) : "-",
                                      started ? ScoreValue(progress.score()) : "-",
                                      ScoreValue(FirstScore(progress.last_evaluation())),
                                      moving ? FormatRate(progress.samples_per_second()) : "-",
                                      moving ? FormatSeconds(progress.eta_seconds()) : "-",
                                      FormatCost(run.cost(), run.currency())};
    if (projected) {
      const bool known = !DescribeProjected(run).empty();
      cells.push_back(known ? FormatCost(run.spending().projected_cost(), "") : "-");
    }
    if (limited) {
      const bool has = !run.spending().limit().empty();
      cells.push_back(has ? FormatRatio(run.spending().limit_ratio()) : "-");
    }
    cells.push_back(Age(run));
    table.Add(std::move(cells));
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
  if (progress.has_score()) {
    fields.emplace_back(progress.score().name(), ScoreValue(progress.score()));
  }
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
  if (progress.has_feature_cache()) {
    fields.emplace_back("feature cache",
                        DescribeFeatureCache(progress.feature_cache(), run.currency()));
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
  if (run.has_straggler()) {
    fields.emplace_back("straggler", DescribeStraggler(run.straggler()));
  }
  for (const v1::RankStraggling& rank : progress.ranks()) {
    fields.emplace_back(absl::StrCat("rank ", rank.rank()),
                        absl::StrCat("waited ", FormatSeconds(rank.wait_seconds()),
                                     " for the slowest; was the slowest in ",
                                     FormatCount(rank.slowest_steps()), " steps"));
  }
}

void AddSpendingFields(const v1::Run& run,
                       std::vector<std::pair<std::string, std::string>>& fields) {
  fields.emplace_back("cost", DescribeCost(run));
  if (!run.has_spending()) return;
  const v1::Spending& spending = run.spending();
  if (spending.cost_per_hour() > 0) {
    fields.emplace_back("per hour", FormatCost(spending.cost_per_hour(), run.currency()));
  }
  if (const std::string projected = DescribeProjected(run); !projected.empty()) {
    fields.emplace_back("projected", projected);
  }
  if (const std::string limit = DescribeLimit(run); !limit.empty()) {
    fields.emplace_back("limit", absl::StrCat(limit, " is used up"));
  }
  if (spending.overspent() > 0) {
    fields.emplace_back("overspent", absl::StrCat(FormatCost(spending.overspent(), run.currency()),
                                                  " beyond cost.max_cost"));
  }
  if (spending.energy_joules() > 0) fields.emplace_back("energy", DescribeEnergy(run));
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
  fields.emplace_back("checkpoint",
                      run.has_last_checkpoint()
                          ? std::string(absl::StripPrefix(DescribeCheckpoint(run.last_checkpoint()),
                                                          "checkpoint of "))
                          : "none yet");
  AddSpendingFields(run, fields);
  fields.emplace_back("files", Printable(run.run_dir()));
  return RenderFields(fields);
}

int DescribeVerb(Context& context, const std::string& id, bool with_config) {
  auto run = FindRun(context, id);
  if (!run.ok()) return Fail(context, "describe", run.status());
  if (context.json()) {
    context.out.Write(Document(ToJson(*run)));
    return Code(ExitCode::kOk);
  }
  context.out.Write(Description(*run, context.color()));
  if (with_config) context.out.Write("\n" + run->config_yaml());
  return Code(ExitCode::kOk);
}

void AddList(CLI::App& app, Context& context) {
  auto options = std::make_shared<ListOptions>();
  CLI::App* verb = AddVerb(app, "list", "The runs, newest first", kRunsGroup,
                           "lockstep list --state running,queued");
  verb->add_option("--state", options->states, "Only runs in these states, e.g. running,paused")
      ->delimiter(',')
      ->type_name("STATE");
  verb->add_option("-n,--limit", options->limit, "Runs a page; 20 if not given")
      ->check(CLI::Range(1, 500).description(""))
      ->type_name("N");
  verb->add_flag("-a,--all", options->all, "Every page");
  verb->add_flag("--ids", options->ids, "Only the ids, one a line");
  verb->add_option("--page-token", options->page_token, "The page after the one that named it");
  OnVerb(verb, context, [&context, options] { return ListVerb(context, *options); });
}

}  // namespace

void AddListCommands(CLI::App& app, Context& context) {
  AddList(app, context);
  auto described = std::make_shared<std::pair<std::string, bool>>();
  CLI::App* verb = AddVerb(app, "describe", "Everything about one run", kRunsGroup,
                           "lockstep describe 3fa1 --config");
  verb->add_option("RUN", described->first, kRunHelp)->type_name("")->required();
  verb->add_flag("--config", described->second, "With its resolved config");
  OnVerb(verb, context, [&context, described] {
    return DescribeVerb(context, described->first, described->second);
  });
}

}  // namespace lockstep::cli
