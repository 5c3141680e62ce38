// doctor: is this host fit to train, and if not, what to do. Every check is one line.
#include <sys/stat.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <thread>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "config/coordinator_config.h"
#include "launch/cli/doctor.h"
#include "launch/cli/format.h"
#include "launch/cli/programs.h"
#include "launch/cli/run_json.h"
#include "launch/cli/table.h"
#include "launch/cli/verbs.h"

namespace lockstep::cli {
namespace {

namespace fs = std::filesystem;

constexpr double kProgramSeconds = 10;

using Level = Check::Level;

const char* Word(Level level) {
  switch (level) {
    case Level::kOk:
      return "ok";
    case Level::kWarn:
      return "warn";
    case Level::kFail:
      return "fail";
  }
  return "fail";
}

std::string FirstLine(const std::string& text) {
  return Printable(text.substr(0, text.find('\n')));
}

Check CheckDaemonProgram() {
  auto program = FindProgram("lockstepd");
  if (program.ok()) return {"lockstepd", Level::kOk, program->string(), ""};
  return {"lockstepd", Level::kFail, std::string(program.status().message()),
          "build it, or put its folder into PATH"};
}

// The libraries a program needs, as the loader would find them, without starting it. A packaged
// trainer is a script that does the same when told by another variable.
std::map<std::string, std::string> LibrariesOf(const std::string& program) {
  std::ifstream file(program, std::ios::binary);
  const bool script = file.get() == '#' && file.get() == '!';
  const char* trace = script ? "LOCKSTEP_TRACE_LIBRARIES=1" : "LD_TRACE_LOADED_OBJECTS=1";
  std::map<std::string, std::string> libraries;
  const auto output = RunProgram({"env", trace, program}, kProgramSeconds);
  if (!output.ok()) return libraries;
  for (const absl::string_view line : absl::StrSplit(output->text, '\n')) {
    const std::pair<absl::string_view, absl::string_view> halves =
        absl::StrSplit(line, absl::MaxSplits(" => ", 1));
    const absl::string_view where = halves.second.substr(0, halves.second.rfind(" ("));
    if (where.empty()) continue;
    libraries[Printable(absl::StripAsciiWhitespace(halves.first))] =
        where[0] == '/' ? std::string(where) : "";
  }
  return libraries;
}

// Asking for the version also loads LibTorch, so it tells whether that can be found.
Check CheckTrainer(TrainerFacts& facts) {
  auto program = FindProgram("lockstep-trainer");
  if (!program.ok()) {
    return {"lockstep-trainer", Level::kFail, std::string(program.status().message()),
            "build it, or put its folder into PATH"};
  }
  facts.path = program->string();
  facts.libraries = LibrariesOf(facts.path);
  auto output = RunProgram({facts.path, "--version"}, kProgramSeconds);
  if (!output.ok()) {
    return {"lockstep-trainer", Level::kFail, std::string(output.status().message()),
            absl::StrCat("run `", facts.path, " --version` by hand")};
  }
  if (output->exit_code != 0) {
    return {"lockstep-trainer", Level::kFail,
            absl::StrCat(facts.path, " does not start: ", FirstLine(output->text)),
            "LibTorch is missing or was moved: scripts/setup, then build again"};
  }
  const std::string version = FirstLine(output->text);
  facts.profile = absl::StrContains(version, "profile cuda") ? "cuda" : "cpu";
  return {"lockstep-trainer", Level::kOk, absl::StrCat(facts.path, " (", version, ")"), ""};
}

Check CheckLibTorch(const TrainerFacts& facts) {
  std::vector<std::string> missing;
  for (const auto& [name, file] : facts.libraries) {
    if (file.empty()) missing.push_back(name);
  }
  if (!missing.empty()) {
    return {"LibTorch", Level::kFail,
            absl::StrCat("the trainer's libraries are not found: ", absl::StrJoin(missing, " ")),
            facts.profile == "cuda" ? "scripts/setup --cuda, then build again"
                                    : "scripts/setup, then build again"};
  }
  const auto torch = facts.libraries.find("libtorch_cpu.so");
  if (torch == facts.libraries.end()) {
    return {"LibTorch", Level::kWarn, "the trainer does not tell which it uses",
            "run `ldd` on it by hand"};
  }
  return {"LibTorch", Level::kOk, fs::path(torch->second).parent_path().string(), ""};
}

Check CheckMpirun() {
  const auto program = FindProgram("mpirun");  // A package has its own beside this program.
  auto output = program.ok() ? RunProgram({program->string(), "--version"}, kProgramSeconds)
                             : absl::StatusOr<ProgramOutput>(program.status());
  if (!output.ok() || output->exit_code != 0) {
    return {"mpirun", Level::kFail,
            output.ok() ? FirstLine(output->text) : std::string(output.status().message()),
            "install Open MPI: apt-get install openmpi-bin"};
  }
  return {"mpirun", Level::kOk, FirstLine(output->text), ""};
}

Check CheckCores() {
  const unsigned cores = std::max(1u, std::thread::hardware_concurrency());
  if (cores >= 2) return {"cores", Level::kOk, absl::StrCat(cores), ""};
  return {"cores", Level::kWarn, "1", "two ranks will share one core"};
}

Check CheckMemory() {
  std::ifstream file("/proc/meminfo");
  int64_t total = 0;
  int64_t available = 0;
  for (std::string key, unit; file >> key;) {
    int64_t kib = 0;
    file >> kib;
    std::getline(file, unit);
    if (key == "MemTotal:") total = kib * 1024;
    if (key == "MemAvailable:") available = kib * 1024;
  }
  const std::string found =
      absl::StrCat(FormatBytes(available), " of ", FormatBytes(total), " available");
  // A rank takes 131 MiB before it holds a model.
  if (available >= int64_t{1} << 30) return {"memory", Level::kOk, found, ""};
  return {"memory", Level::kWarn, found, "fewer ranks or a smaller batch; end other programs"};
}

Check CheckDisk(const fs::path& state_dir) {
  fs::path at = state_dir;
  std::error_code error;
  while (!fs::exists(at, error) && at.has_parent_path() && at != at.parent_path()) {
    at = at.parent_path();
  }
  const fs::space_info space = fs::space(at, error);
  if (error) {
    return {"disk", Level::kFail,
            absl::StrCat("cannot look at ", at.string(), ": ", error.message()),
            "`LOCKSTEP_STATE_DIR=DIR` names another state folder"};
  }
  if (access(at.c_str(), W_OK) != 0) {
    return {"disk", Level::kFail, absl::StrCat(at.string(), " cannot be written to"),
            "`LOCKSTEP_STATE_DIR=DIR` names another state folder"};
  }
  const std::string found = absl::StrCat(FormatBytes(static_cast<int64_t>(space.available)),
                                         " free for ", state_dir.string());
  if (space.available >= uint64_t{1} << 30) return {"disk", Level::kOk, found, ""};
  return {"disk", Level::kWarn, found,
          "checkpoints pause the run when the disk is full: make room"};
}

Check CheckSharedMemory() {
  std::error_code error;
  const fs::space_info space = fs::space("/dev/shm", error);
  if (error) {
    return {"/dev/shm", Level::kFail, error.message(),
            "mount a tmpfs there: ranks of a host share memory through it"};
  }
  const std::string found =
      absl::StrCat(FormatBytes(static_cast<int64_t>(space.available)), " free");
  // Gradients of all ranks of a host: 45 MB each for ResNet-18.
  if (space.available >= uint64_t{256} << 20) return {"/dev/shm", Level::kOk, found, ""};
  return {"/dev/shm", Level::kWarn, found,
          "too small for larger models; a container needs --shm-size=1g"};
}

Check CheckUser() {
  if (geteuid() != 0) return {"user", Level::kOk, absl::StrCat("uid ", geteuid()), ""};
  return {"user", Level::kWarn, "root",
          "mpirun refuses root: use another user, or `lockstep daemon start --allow-root-mpirun`"};
}

Check CheckSocket(const std::string& socket) {
  struct stat info {};
  if (lstat(socket.c_str(), &info) != 0) {
    return {"socket", Level::kOk, absl::StrCat(socket, " is not there: ", strerror(errno)), ""};
  }
  if (!S_ISSOCK(info.st_mode)) {
    return {"socket", Level::kFail, absl::StrCat(socket, " is no socket"),
            "move that file away, or choose another --socket"};
  }
  if (access(socket.c_str(), R_OK | W_OK) != 0) {
    return {"socket", Level::kFail,
            absl::StrCat("no right to use ", socket, " of uid ", info.st_uid),
            "ask its owner, or choose another --socket"};
  }
  if ((info.st_mode & S_IWOTH) != 0) {
    return {"socket", Level::kWarn, absl::StrCat("everybody may use ", socket),
            absl::StrCat("chmod 600 ", socket)};
  }
  return {"socket", Level::kOk, socket, ""};
}

Check CheckCoordinator(const absl::StatusOr<v1::GetStatusResponse>& status) {
  if (status.ok()) {
    return {"coordinator", Level::kOk,
            absl::StrCat("pid ", status->pid(), ", ", status->free_slots(), " of ", status->slots(),
                         " slots free"),
            ""};
  }
  // None is a normal state of a fresh host; one that does not answer is not.
  const bool none = absl::IsUnavailable(status.status());
  return {
      "coordinator", none ? Level::kWarn : Level::kFail, std::string(status.status().message()),
      none ? "`lockstep daemon start` starts one"
           : "look at lockstepd.log in its state folder; `kill -9` it and start it again: runs go "
             "on meanwhile"};
}

int DoctorVerb(Context& context) {
  const auto status =
      MakeClient(context, kReadSeconds).Read(&ControlStub::GetStatus, v1::GetStatusRequest());
  TrainerFacts trainer;
  const Check trainer_check = CheckTrainer(trainer);
  std::vector<Check> checks = {
      CheckDaemonProgram(),
      trainer_check,
      CheckMpirun(),
      CheckCores(),
      CheckMemory(),
      CheckDisk(status.ok() ? fs::path(status->state_dir()) : config::DefaultStateDir()),
      CheckSharedMemory(),
      CheckUser(),
      CheckSocket(context.socket),
      CheckCoordinator(status),
  };
  if (!trainer.path.empty()) checks.insert(checks.begin() + 2, CheckLibTorch(trainer));
  for (Check& check : GpuChecks(trainer)) checks.push_back(std::move(check));
  const bool failed = std::any_of(checks.begin(), checks.end(),
                                  [](const Check& check) { return check.level == Level::kFail; });
  Table table({{"CHECK"}, {"RESULT"}, {"FOUND"}});
  Json json;
  json["ok"] = !failed;
  json["checks"] = Json::array();
  for (const Check& check : checks) {
    std::string word = Word(check.level);
    if (context.color()) {
      const char* color = check.level == Level::kOk     ? "32"
                          : check.level == Level::kWarn ? "33"
                                                        : "31";
      word = absl::StrCat("\x1b[", color, "m", word, "\x1b[0m");
    }
    table.Add({check.name, word,
               check.todo.empty() ? check.found : absl::StrCat(check.found, " -> ", check.todo)});
    json["checks"].push_back({{"name", check.name},
                              {"result", Word(check.level)},
                              {"found", check.found},
                              {"todo", check.todo}});
  }
  context.out.Write(context.json() ? Document(json) : table.Render());
  return Code(failed ? config::ExitCode::kRunFailed : config::ExitCode::kOk);
}

}  // namespace

void AddDoctor(CLI::App& app, Context& context) {
  CLI::App* verb = AddVerb(app, "doctor", "Is this host fit to train; exit 1 if something is not",
                           "Other", "lockstep doctor");
  OnVerb(verb, context, [&context] { return DoctorVerb(context); });
}

}  // namespace lockstep::cli
