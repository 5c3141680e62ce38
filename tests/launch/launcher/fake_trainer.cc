// A rank that trains nothing: it notes what it was started with, claims its slot of the board and
// then does what run.yaml tells it. Each line of that file is "RANK ACTION [ARGUMENT…]"; a rank
// without a line waits.
//
//   wait            until attempt-K/go exists, then ends with 0
//   exit CODE       once every rank is up
//   signal N        kills itself so, once every rank is up
//   fail CODE TEXT  writes failure-rank-R.json, then ends with CODE
//   print BYTES     of lines to stdout, then waits
#include <dirent.h>
#include <signal.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "config/rank_board.h"
#include "config/run_directory.h"

namespace {

using nlohmann::json;
namespace config = lockstep::config;

int FromEnvironment(const char* name) {
  const char* text = std::getenv(name);
  return text == nullptr ? 0 : std::atoi(text);
}

std::string Option(const std::vector<std::string>& arguments, const std::string& name) {
  for (size_t i = 0; i + 1 < arguments.size(); ++i) {
    if (arguments[i] == name) return arguments[i + 1];
  }
  return "";
}

json OpenFiles() {
  json files = json::object();
  DIR* folder = opendir("/proc/self/fd");
  while (const dirent* entry = readdir(folder)) {
    const std::string name = entry->d_name;
    if (name == "." || name == ".." || std::stoi(name) == dirfd(folder)) continue;
    char target[4096] = {};
    if (readlink(("/proc/self/fd/" + name).c_str(), target, sizeof(target) - 1) > 0) {
      files[name] = target;
    }
  }
  closedir(folder);
  return files;
}

json BlockedSignals() {
  sigset_t blocked;
  sigprocmask(SIG_SETMASK, nullptr, &blocked);
  json numbers = json::array();
  for (int n = 1; n < 32; ++n) {
    if (sigismember(&blocked, n) == 1) numbers.push_back(n);
  }
  return numbers;
}

void WaitUntil(const std::filesystem::path& file) {
  while (!std::filesystem::exists(file)) std::this_thread::sleep_for(std::chrono::milliseconds(5));
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> arguments(argv, argv + argc);
  const int rank = FromEnvironment("OMPI_COMM_WORLD_RANK");
  const int world_size = FromEnvironment("OMPI_COMM_WORLD_SIZE");
  const config::RunDirectory directory(Option(arguments, "--run-dir"));
  const int attempt = std::atoi(Option(arguments, "--attempt").c_str());
  const std::filesystem::path folder = directory.attempt(attempt);

  json seen = {{"arguments", arguments},
               {"pid", getpid()},
               {"parent", getppid()},
               {"session", getsid(0)},
               {"folder", std::filesystem::current_path().string()},
               {"files", OpenFiles()},
               {"blocked", BlockedSignals()},
               {"environment", json::array()}};
  for (char** entry = environ; *entry != nullptr; ++entry) seen["environment"].push_back(*entry);
  if (!config::WriteFileDurably(folder / ("seen-" + std::to_string(rank) + ".json"), seen.dump())
           .ok()) {
    return 99;
  }
  absl::StatusOr<config::RankBoard> board =
      config::RankBoard::Open(directory.board(attempt), world_size);
  if (!board.ok()) return 98;
  board->Claim(rank);
  board->Set(rank, 7, config::Phase::kForward);

  std::string action = "wait";
  std::string rest;
  std::ifstream orders(directory.run_yaml());
  for (std::string line; std::getline(orders, line);) {
    std::istringstream words(line);
    int whose = -1;
    if (words >> whose && whose == rank) {
      words >> action;
      std::getline(words >> std::ws, rest);
    }
  }
  for (int r = 0; r < world_size; ++r) WaitUntil(folder / ("seen-" + std::to_string(r) + ".json"));
  if (action == "exit") return std::atoi(rest.c_str());
  if (action == "signal") raise(std::atoi(rest.c_str()));
  if (action == "fail") {
    std::istringstream words(rest);
    int code = 0;
    std::string message;
    words >> code;
    std::getline(words >> std::ws, message);
    const json failure = {{"rank", rank},       {"exit_code", code}, {"reason", "SOME_REASON"},
                          {"message", message}, {"step", 7},         {"time", 1000.0 + rank}};
    if (!config::WriteFileDurably(directory.failure(attempt, rank), failure.dump()).ok()) return 97;
    return code;
  }
  if (action == "print") {
    const std::string line(99, 'x');
    for (int64_t n = std::atoll(rest.c_str()); n > 0; n -= 100) std::cout << line << '\n';
    std::cout << "the last line" << std::endl;
  }
  WaitUntil(folder / "go");
  return 0;
}
