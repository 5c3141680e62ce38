// The verbs, by kind. Each function adds its verbs with their options to the program; a verb that
// was asked for leaves its exit code in Context::verb_exit_code. `app` and `context` must outlive
// the parse.
#pragma once

#include <functional>
#include <string>

#include "launch/cli/client.h"
#include "launch/cli/context.h"

namespace CLI {
class App;
class Validator;
}  // namespace CLI

namespace lockstep::cli {

void AddRunCommands(CLI::App& app, Context& context);
void AddOrderCommands(CLI::App& app, Context& context);
void AddListCommands(CLI::App& app, Context& context);
void AddWatchCommands(CLI::App& app, Context& context);
void AddTop(CLI::App& app, Context& context);
void AddCheckpointCommands(CLI::App& app, Context& context);
void AddCostCommands(CLI::App& app, Context& context);
void AddModelCommands(CLI::App& app, Context& context);
void AddPlan(CLI::App& app, Context& context);
void AddCompare(CLI::App& app, Context& context);
void AddConfigCommands(CLI::App& app, Context& context);
void AddDaemonCommands(CLI::App& app, Context& context);
void AddDoctor(CLI::App& app, Context& context);
void AddCompletion(CLI::App& app, Context& context);

/// A verb of `app` under a heading of the help, with an example below its own help.
CLI::App* AddVerb(CLI::App& app, const std::string& name, const std::string& description,
                  const std::string& group, const std::string& example);
/// What runs when the verb was asked for; the function returns the exit code.
void OnVerb(CLI::App* verb, Context& context, std::function<int()> function);
/// Likewise, of a verb that can write CSV; the others refuse `-o csv`.
void OnCsvVerb(CLI::App* verb, Context& context, std::function<int()> function);

/// A verb of the group Runs that takes one run and nothing else.
CLI::App* AddOneRunVerb(CLI::App& app, Context& context, const std::string& name,
                        const std::string& description,
                        int (*function)(Context&, const std::string&));

/// Takes numbers above 0, and says so in plain words.
CLI::Validator PositiveValidator();

/// The run by id, start of an id, or name.
absl::StatusOr<v1::Run> FindRun(const Context& context, const std::string& run);

/// A client whose calls wait for --timeout, or for `seconds` where it was not given.
Client MakeClient(const Context& context, double seconds);

inline constexpr const char* kRunsGroup = "Runs";
inline constexpr const char* kWatchingGroup = "Watching";
inline constexpr const char* kRunHelp = "Id, start of an id, or name of a run";

// Reading is quick; an order is done only when every rank has acted and the state is on disk.
inline constexpr double kReadSeconds = 5;
inline constexpr double kOrderSeconds = 600;

}  // namespace lockstep::cli
