#include "launch/cli/verbs.h"

#include <CLI/CLI.hpp>
#include <memory>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace lockstep::cli {

CLI::App* AddVerb(CLI::App& app, const std::string& name, const std::string& description,
                  const std::string& group, const std::string& example) {
  CLI::App* verb = app.add_subcommand(name, description);
  // Global options may stand behind the verb as well.
  verb->fallthrough();
  verb->group(group.empty() ? "Verbs" : group);
  verb->footer(
      absl::StrCat("Example:\n  ", example,
                   "\n\nOptions of every verb: --socket, --timeout, -o json, --no-color; see "
                   "`lockstep --help`."));
  return verb;
}

CLI::App* AddOneRunVerb(CLI::App& app, Context& context, const std::string& name,
                        const std::string& description,
                        int (*function)(Context&, const std::string&)) {
  auto run = std::make_shared<std::string>();
  CLI::App* verb =
      AddVerb(app, name, description, kRunsGroup, absl::StrCat("lockstep ", name, " 3fa1"));
  verb->add_option("RUN", *run, kRunHelp)->type_name("")->required();
  OnVerb(verb, context, [&context, run, function] { return function(context, *run); });
  return verb;
}

CLI::Validator PositiveValidator() {
  return CLI::Validator(
      [](const std::string& text) {
        double number = 0;
        return absl::SimpleAtod(text, &number) && number > 0 && number < 1e9
                   ? std::string()
                   : absl::StrCat("expected a number above 0, not ", text);
      },
      "");
}

void OnVerb(CLI::App* verb, Context& context, std::function<int()> function) {
  verb->callback([&context, verb, function = std::move(function)] {
    if (context.format == OutputFormat::kCsv) {
      context.verb_exit_code =
          Fail(context, verb->get_name(),
               absl::InvalidArgumentError("-o csv: this verb writes a table or json"));
      return;
    }
    context.verb_exit_code = function();
  });
}

void OnCsvVerb(CLI::App* verb, Context& context, std::function<int()> function) {
  verb->callback(
      [&context, function = std::move(function)] { context.verb_exit_code = function(); });
}

absl::StatusOr<v1::Run> FindRun(const Context& context, const std::string& run) {
  v1::GetRunRequest request;
  request.set_run(run);
  auto response = MakeClient(context, kReadSeconds).Read(&ControlStub::GetRun, request);
  if (!response.ok()) return response.status();
  return response->run();
}

Client MakeClient(const Context& context, double seconds) {
  return Client(
      {.socket = context.socket,
       .timeout_seconds = context.timeout_seconds > 0 ? context.timeout_seconds : seconds});
}

}  // namespace lockstep::cli
