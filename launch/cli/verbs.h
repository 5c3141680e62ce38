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
}

namespace lockstep::cli {

void AddRunCommands(CLI::App& app, Context& context);
void AddWatchCommands(CLI::App& app, Context& context);
void AddCheckpointCommands(CLI::App& app, Context& context);
void AddConfigCommands(CLI::App& app, Context& context);
void AddDaemonCommands(CLI::App& app, Context& context);
void AddDoctor(CLI::App& app, Context& context);
void AddCompletion(CLI::App& app, Context& context);

/// A verb of `app` under a heading of the help, with an example below its own help.
CLI::App* AddVerb(CLI::App& app, const std::string& name, const std::string& description,
                  const std::string& group, const std::string& example);
/// What runs when the verb was asked for; the function returns the exit code.
void OnVerb(CLI::App* verb, Context& context, std::function<int()> function);

/// A client whose calls wait for --timeout, or for `seconds` where it was not given.
Client MakeClient(const Context& context, double seconds);

// Reading is quick; an order is done only when every rank has acted and the state is on disk.
inline constexpr double kReadSeconds = 5;
inline constexpr double kOrderSeconds = 600;

}  // namespace lockstep::cli
