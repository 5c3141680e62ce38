// The scenario file of the fake NVML (fake_nvml.cc) of one test program: one path for the whole
// program, set before any thread begins, so that no thread reads a variable while it changes.
#pragma once

#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

namespace lockstep::metrics {

class Scenario {
 public:
  explicit Scenario(const std::string& text = "") {
    setenv("FAKE_NVML_SCENARIO", Path().c_str(), 1);
    Set(text);
  }
  ~Scenario() { std::filesystem::remove(Path()); }
  Scenario(const Scenario&) = delete;
  Scenario& operator=(const Scenario&) = delete;

  // At once for whoever reads it.
  void Set(const std::string& text) {
    const std::string next = Path() + ".next";
    std::ofstream(next) << text;
    std::filesystem::rename(next, Path());
  }

 private:
  static std::string Path() {
    return (std::filesystem::temp_directory_path() /
            ("lockstep-scenario-" + std::to_string(getpid())))
        .string();
  }
};

}  // namespace lockstep::metrics
