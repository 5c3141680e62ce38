// completion bash: a script made from the verbs and options themselves, so that it cannot be stale.
#include <CLI/CLI.hpp>
#include <memory>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "launch/cli/verbs.h"

namespace lockstep::cli {
namespace {

std::set<std::string> Options(const CLI::App& app) {
  std::set<std::string> names;
  for (const CLI::Option* option : app.get_options()) {
    for (const std::string& name : option->get_lnames()) names.insert("--" + name);
  }
  return names;
}

bool TakesRun(const CLI::App& verb) {
  for (const CLI::Option* option : verb.get_options()) {
    if (option->get_positional() && option->get_name(true) == "RUN") return true;
  }
  return false;
}

// One case of the script: what may follow the words of `path`.
void AddCases(const CLI::App& app, const std::string& path, const std::set<std::string>& global,
              std::string& cases) {
  std::set<std::string> words = Options(app);
  words.insert(global.begin(), global.end());
  for (const CLI::App* verb : app.get_subcommands({})) {
    words.insert(verb->get_name());
    AddCases(*verb, path.empty() ? verb->get_name() : absl::StrCat(path, " ", verb->get_name()),
             global, cases);
  }
  absl::StrAppend(&cases, "    '", path, "') words='", absl::StrJoin(words, " "), "'",
                  TakesRun(app) ? " runs=1" : "", " ;;\n");
}

int BashVerb(Context& context, const CLI::App& app) {
  std::string cases;
  std::string verbs;
  AddCases(app, "", Options(app), cases);
  context.out.Write(absl::StrCat(
      "# bash completion of lockstep: source <(lockstep completion bash)\n"
      "_lockstep() {\n"
      "  local current=${COMP_WORDS[COMP_CWORD]} path='' words='' runs='' word\n"
      "  for word in \"${COMP_WORDS[@]:1:COMP_CWORD-1}\"; do\n"
      "    case \"$path\" in ''|config|daemon|checkpoints|completion|help) ;; *) break ;; esac\n"
      "    case \"$word\" in [a-z]*) path=\"${path:+$path }$word\" ;; esac\n"
      "  done\n"
      "  case \"$path\" in\n",
      cases,
      "  esac\n"
      "  case \"$current\" in\n"
      "    -*) ;;\n"
      "    *) [ -n \"$runs\" ] && words=\"$words $(lockstep list --ids --timeout 1 2>/dev/null)\" "
      ";;\n"
      "  esac\n"
      "  COMPREPLY=($(compgen -W \"$words\" -- \"$current\"))\n"
      "  [ ${#COMPREPLY[@]} -gt 0 ] || COMPREPLY=($(compgen -f -- \"$current\"))\n"
      "}\n"
      "complete -F _lockstep lockstep\n"));
  return Code(config::ExitCode::kOk);
}

}  // namespace

void AddCompletion(CLI::App& app, Context& context) {
  CLI::App* completion =
      AddVerb(app, "completion", "A script that completes verbs, options and run ids", "Other",
              "source <(lockstep completion bash)");
  completion->require_subcommand(1);
  CLI::App* verb =
      AddVerb(*completion, "bash", "For bash", "", "source <(lockstep completion bash)");
  OnVerb(verb, context, [&context, &app] { return BashVerb(context, app); });
}

}  // namespace lockstep::cli
