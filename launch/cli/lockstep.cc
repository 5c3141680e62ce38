#include "launch/cli/lockstep.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <memory>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "config/coordinator_config.h"
#include "launch/cli/verbs.h"

namespace lockstep::cli {
namespace {

using config::ExitCode;

void AddGlobalOptions(CLI::App& app, Context& context) {
  app.add_option("--socket", context.socket,
                 "The coordinator's socket (LOCKSTEP_SOCKET; default in the state folder)")
      ->type_name("PATH");
  app.add_option("--timeout", context.timeout_seconds,
                 "Wait so long for an answer; default 5 s, 600 s for orders")
      ->check(PositiveValidator())
      ->type_name("SECONDS");
  app.add_option_function<std::string>(
         "-o,--output",
         [&context](const std::string& text) {
           if (text != "table" && text != "json" && text != "csv") {
             throw CLI::ValidationError("-o", absl::StrCat("expected table or json, not ", text));
           }
           context.format = text == "json"  ? OutputFormat::kJson
                            : text == "csv" ? OutputFormat::kCsv
                                            : OutputFormat::kTable;
         },
         "table, or json: stable names, one document; csv where a verb says so")
      ->type_name("FORMAT");
  app.add_flag("--no-color", context.no_color, "No colours, also with NO_COLOR");
}

void AddVersion(CLI::App& app, Context& context) {
  app.set_version_flag("--version", "lockstep " LOCKSTEP_VERSION);
  CLI::App* verb =
      AddVerb(app, "version", "The version of this program", "Other", "lockstep version");
  OnVerb(verb, context, [&context] {
    context.out.Write(context.json() ? "{\"version\": \"" LOCKSTEP_VERSION "\"}\n"
                                     : "lockstep " LOCKSTEP_VERSION "\n");
    return Code(ExitCode::kOk);
  });
}

// How far apart two words are: letters added, removed, changed.
size_t Distance(const std::string& a, const std::string& b) {
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t changed = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({changed, row[j] + 1, row[j - 1] + 1});
    }
  }
  return row[b.size()];
}

std::string NearestVerb(const CLI::App& app, const std::string& word) {
  std::string nearest;
  size_t best = 3;  // Three letters off is another word.
  for (const CLI::App* verb : app.get_subcommands({})) {
    const size_t distance = Distance(word, verb->get_name());
    if (distance < best) {
      best = distance;
      nearest = verb->get_name();
    }
  }
  return nearest;
}

// The innermost verb that was recognized, and "run" or "config check" as typed.
const CLI::App& TypedVerb(const CLI::App& app, std::string& words) {
  const CLI::App* at = &app;
  while (!at->get_subcommands().empty()) {
    at = at->get_subcommands().back();
    absl::StrAppend(&words, words.empty() ? "" : " ", at->get_name());
  }
  return *at;
}

void AddHelp(CLI::App& app, Context& context) {
  auto words = std::make_shared<std::vector<std::string>>();
  CLI::App* verb = AddVerb(app, "help", "The verbs, or one of them", "Other", "lockstep help run");
  verb->add_option("VERB", *words, "e.g. config check")->type_name("");
  OnVerb(verb, context, [&app, &context, words] {
    const CLI::App* at = &app;
    std::string path = "lockstep";
    for (const std::string& word : *words) {
      const auto verbs = at->get_subcommands({});
      const auto found = std::find_if(verbs.begin(), verbs.end(), [&](const CLI::App* candidate) {
        return candidate->get_name() == word;
      });
      if (found == verbs.end()) {
        return Fail(context, "help",
                    absl::InvalidArgumentError(absl::StrCat("there is no verb '", word, "'")),
                    "`lockstep help` lists them");
      }
      at = *found;
      absl::StrAppend(&path, " ", word);
    }
    // get_formatter: help() of the program would give the help of the verb `help` itself.
    context.out.Write(at->get_formatter()->make_help(at, path, CLI::AppFormatMode::Normal));
    return Code(ExitCode::kOk);
  });
}

// CLI11's words for the two commonest slips name its own parts; these name the user's.
std::string Reword(const CLI::App& verb, const std::vector<std::string>& rest,
                   const CLI::ParseError& error) {
  if (dynamic_cast<const CLI::ExtrasError*>(&error) != nullptr && !rest.empty()) {
    return absl::StrCat("there is no ", rest[0][0] == '-' ? "option " : "place for the argument ",
                        "'", rest[0], "'");
  }
  const auto verbs = verb.get_subcommands({});
  if (dynamic_cast<const CLI::RequiredError*>(&error) != nullptr && !verbs.empty()) {
    const auto append_name = [](std::string* out, const CLI::App* one) { *out += one->get_name(); };
    return absl::StrCat("a verb is missing: ", absl::StrJoin(verbs, ", ", append_name));
  }
  return error.what();
}

int UsageError(Context& context, const CLI::App& app, const CLI::ParseError& error) {
  std::string words;
  const CLI::App& verb = TypedVerb(app, words);
  const std::string typed = words.empty() ? "lockstep" : absl::StrCat("lockstep ", words);
  // What falls through a verb is left with the program.
  std::vector<std::string> rest = verb.remaining(true);
  if (rest.empty()) rest = app.remaining(true);
  std::string message = Reword(verb, rest, error);
  std::string hint = absl::StrCat("`", typed, " --help` shows how");
  const auto unknown = std::find_if(rest.begin(), rest.end(), [](const std::string& word) {
    return !word.empty() && word[0] != '-';
  });
  if (!verb.get_subcommands({}).empty() && unknown != rest.end()) {
    message = absl::StrCat("there is no verb '", *unknown, "'");
    const std::string nearest = NearestVerb(verb, *unknown);
    if (!nearest.empty()) hint = absl::StrCat("did you mean '", nearest, "'? ", hint);
  }
  return Fail(context, words, absl::InvalidArgumentError(message), hint);
}

void SetUp(CLI::App& app, Context& context) {
  app.name("lockstep");
  app.set_help_flag("-h,--help", "This text");
  app.get_formatter()->column_width(28);
  app.get_formatter()->label("REQUIRED", "");
  app.get_formatter()->label("Positionals", "Arguments");
  app.get_formatter()->label("SUBCOMMAND", "VERB");
  app.get_formatter()->label("SUBCOMMANDS", "VERBS");
  app.footer(
      "First steps:\n"
      "  lockstep daemon start                            a coordinator in the background\n"
      "  lockstep run config/examples/quickstart.yaml     a run, followed to its end\n"
      "  lockstep help run                                more on one verb\n"
      "Exit codes: 0 ok, 1 run failed, 2 usage or config, 3 not found, 4 wrong state,\n"
      "  5 no coordinator, 6 deadline, 7 denied, 8 budget, 9 stopped");
  AddGlobalOptions(app, context);
  AddRunCommands(app, context);
  AddPlan(app, context);
  AddListCommands(app, context);
  AddOrderCommands(app, context);
  AddWatchCommands(app, context);
  AddTop(app, context);
  AddCheckpointCommands(app, context);
  AddCostCommands(app, context);
  AddModelCommands(app, context);
  AddCompare(app, context);
  AddConfigCommands(app, context);
  AddDaemonCommands(app, context);
  AddDoctor(app, context);
  AddCompletion(app, context);
  AddVersion(app, context);
  AddHelp(app, context);
  app.require_subcommand(1);
}

}  // namespace

int Main(int argc, char** argv) {
  // A reader that went away is seen by write(2).
  signal(SIGPIPE, SIG_IGN);
  // gRPC's own words would stand between the lines of ours; GRPC_VERBOSITY brings them back.
  setenv("GRPC_VERBOSITY", "NONE", /*overwrite=*/0);
  Context context;
  context.socket = config::DefaultSocket().string();
  const char* no_color = getenv("NO_COLOR");
  context.no_color = no_color != nullptr && *no_color != '\0';
  CLI::App app("Trains image models on all GPUs of a workstation, in lockstep.");
  SetUp(app, context);
  if (argc == 1) {
    context.err.Write(app.help());
    return Code(ExitCode::kUsage);
  }
  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp&) {
    context.out.Write(app.help());
  } catch (const CLI::CallForVersion& version) {
    context.out.Write(absl::StrCat(version.what(), "\n"));
  } catch (const CLI::ParseError& error) {
    return UsageError(context, app, error);
  }
  if (!context.out.status().ok()) {
    context.Say(absl::StrCat("lockstep: ", context.out.status().message()));
    return Code(ExitCode::kRunFailed);
  }
  return context.verb_exit_code;
}

}  // namespace lockstep::cli
