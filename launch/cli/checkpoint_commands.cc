// checkpoints list|verify.
#include <CLI/CLI.hpp>
#include <memory>

#include "absl/strings/str_cat.h"
#include "launch/cli/format.h"
#include "launch/cli/progress.h"
#include "launch/cli/run_json.h"
#include "launch/cli/table.h"
#include "launch/cli/verbs.h"

namespace lockstep::cli {
namespace {

using config::ExitCode;

int ListVerb(Context& context, const std::string& run) {
  v1::ListCheckpointsRequest request;
  request.set_run(run);
  auto response = MakeClient(context, kReadSeconds).Read(&ControlStub::ListCheckpoints, request);
  if (!response.ok()) return Fail(context, "checkpoints list", response.status());
  if (context.json()) {
    Json json;
    json["checkpoints"] = Json::array();
    for (const auto& checkpoint : response->checkpoints()) {
      json["checkpoints"].push_back(ToJson(checkpoint));
    }
    context.out.Write(Document(json));
    return Code(ExitCode::kOk);
  }
  if (response->checkpoints().empty()) {
    context.Say(absl::StrCat("run ", run, " has no checkpoint yet; `lockstep checkpoint ", run,
                             "` makes one now"));
    return Code(ExitCode::kOk);
  }
  Table table({{"STEP", Table::Align::kRight},
               {"CREATED"},
               {"SIZE", Table::Align::kRight},
               {"METRIC", Table::Align::kRight},
               {"COST", Table::Align::kRight},
               {"PATH"}});
  for (const auto& checkpoint : response->checkpoints()) {
    table.Add({FormatCount(checkpoint.step()), FormatLocal(checkpoint.created_unix_seconds()),
               FormatBytes(checkpoint.bytes()),
               checkpoint.has_metric() ? FormatNumber(checkpoint.metric()) : "-",
               checkpoint.has_cost() ? FormatNumber(checkpoint.cost()) : "-",
               Printable(checkpoint.path())});
  }
  context.out.Write(table.Render());
  return Code(ExitCode::kOk);
}

int VerifyVerb(Context& context, const std::string& run, int64_t step) {
  v1::VerifyCheckpointRequest request;
  request.set_run(run);
  request.set_step(step);
  // Every byte is read.
  auto response = MakeClient(context, kOrderSeconds).Read(&ControlStub::VerifyCheckpoint, request);
  if (!response.ok()) return Fail(context, "checkpoints verify", response.status());
  int bad = 0;
  Json json;
  json["results"] = Json::array();
  Table table(
      {{"STEP", Table::Align::kRight}, {"RESULT"}, {"SIZE", Table::Align::kRight}, {"PATH"}});
  for (const auto& result : response->results()) {
    if (!result.ok()) ++bad;
    Json one = ToJson(result.checkpoint());
    one["ok"] = result.ok();
    one["error"] = result.error();
    json["results"].push_back(one);
    const char* word = result.ok() ? "ok" : "BAD";
    table.Add({FormatCount(result.checkpoint().step()), word,
               FormatBytes(result.checkpoint().bytes()), Printable(result.checkpoint().path())});
  }
  json["ok"] = bad == 0;
  if (context.json()) {
    context.out.Write(Document(json));
  } else if (response->results().empty()) {
    context.Say(absl::StrCat("run ", run, " has no checkpoint to verify"));
  } else {
    context.out.Write(table.Render());
  }
  for (const auto& result : response->results()) {
    if (result.ok()) continue;
    context.Say(absl::StrCat("step ", FormatCount(result.checkpoint().step()), ": ",
                             Printable(result.error())));
  }
  if (bad == 0) return Code(ExitCode::kOk);
  context.Say("  hint: a resumed run skips bad checkpoints and takes the newest good one");
  return Code(ExitCode::kRunFailed);
}

}  // namespace

void AddCheckpointCommands(CLI::App& app, Context& context) {
  CLI::App* checkpoints = AddVerb(app, "checkpoints", "Look at a run's checkpoints", "Checkpoints",
                                  "lockstep checkpoints verify 3fa1");
  checkpoints->require_subcommand(1);
  auto listed = std::make_shared<std::string>();
  CLI::App* verb =
      AddVerb(*checkpoints, "list", "A run's checkpoints", "", "lockstep checkpoints list 3fa1");
  verb->add_option("RUN", *listed, kRunHelp)->type_name("")->required();
  OnVerb(verb, context, [&context, listed] { return ListVerb(context, *listed); });

  auto verified = std::make_shared<std::pair<std::string, int64_t>>();
  verb = AddVerb(*checkpoints, "verify",
                 "Read every byte and compare with the manifest; exit 1 if one is bad", "",
                 "lockstep checkpoints verify 3fa1 --step 400");
  verb->add_option("RUN", verified->first, kRunHelp)->type_name("")->required();
  verb->add_option("--step", verified->second, "Only the checkpoint of this step")
      ->check(PositiveValidator());
  OnVerb(verb, context,
         [&context, verified] { return VerifyVerb(context, verified->first, verified->second); });
}

}  // namespace lockstep::cli
