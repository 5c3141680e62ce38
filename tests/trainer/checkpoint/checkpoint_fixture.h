// A temporary folder, contents of a small checkpoint that tell their step, and file operations that
// fail or stop where a test wants.
#pragma once

#include <gtest/gtest.h>
#include <stdlib.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "trainer/checkpoint/file_operations.h"
#include "trainer/checkpoint/store.h"

namespace lockstep::trainer {

class TempFolder {
 public:
  TempFolder() {
    std::string name = (std::filesystem::temp_directory_path() / "lockstep-XXXXXX").string();
    if (::mkdtemp(name.data()) == nullptr) throw std::runtime_error("mkdtemp " + name);
    path_ = name;
  }
  ~TempFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TempFolder(const TempFolder&) = delete;
  TempFolder& operator=(const TempFolder&) = delete;
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

inline std::string ReadAll(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

inline void WriteAll(const std::filesystem::path& path, const std::string& contents) {
  std::ofstream(path, std::ios::binary) << contents;
}

inline std::vector<std::string> NamesIn(const std::filesystem::path& folder) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    names.push_back(entry.path().filename());
  }
  std::sort(names.begin(), names.end());
  return names;
}

// Contents whose every value follows from the step.
class SampleContents {
 public:
  explicit SampleContents(int64_t step) : state_("{\"step\": " + std::to_string(step) + "}") {
    for (int i = 0; i < 60; ++i) weight_.push_back(static_cast<float>(step) + 0.25f * i);
    for (int i = 0; i < 7; ++i) tracked_.push_back(step * 10 + i);
    for (int i = 0; i < 60; ++i) momentum_.push_back(static_cast<float>(step) - 0.5f * i);
  }
  CheckpointContents View() const {
    return {{{"conv.weight", "F32", {5, 3, 2, 2}, std::as_bytes(std::span(weight_))},
             {"norm.num_batches_tracked", "I64", {7}, std::as_bytes(std::span(tracked_))}},
            {{"momentum.conv.weight", "F32", {60}, std::as_bytes(std::span(momentum_))}},
            state_};
  }

 private:
  std::vector<float> weight_;
  std::vector<int64_t> tracked_;
  std::vector<float> momentum_;
  std::string state_;
};

inline bool SameBytes(const SafetensorsView& view, const std::vector<TensorBytes>& expected) {
  if (view.tensors.size() != expected.size()) return false;
  for (const TensorBytes& want : expected) {
    bool found = false;
    for (const TensorBytes& have : view.tensors) {
      found =
          found ||
          (have.name == want.name && have.dtype == want.dtype && have.shape == want.shape &&
           std::equal(have.bytes.begin(), have.bytes.end(), want.bytes.begin(), want.bytes.end()));
    }
    if (!found) return false;
  }
  return true;
}

/// Bit for bit the contents that belong to the checkpoint's step.
inline bool IsWhole(const LoadedCheckpoint& loaded) {
  const SampleContents sample(loaded.info.step);
  const CheckpointContents expected = sample.View();
  return SameBytes(loaded.weights, expected.weights) &&
         SameBytes(loaded.optimizer, expected.optimizer) &&
         loaded.state_json == expected.state_json;
}

struct Crash : std::exception {
  const char* what() const noexcept override { return "the process is gone"; }
};

// Counts the calls of some FileOperations and does something else at call number `at` (from 0).
struct CallCounter {
  int calls = 0;
  int at = -1;
  std::vector<std::string> log;  // "write_file weights.safetensors", …

  // `strike` gets the real call; what it returns is the call's answer.
  using Strike = std::function<absl::Status(const std::function<absl::Status()>& real)>;
  Strike strike;
  // For write_file: leaves only the first part of the bytes before striking.
  bool half_written = false;

  FileOperations Operations() {
    FileOperations operations;
    const auto run = [this](const std::string& name, const std::function<absl::Status()>& real) {
      log.push_back(name);
      return calls++ == at ? strike(real) : real();
    };
    operations.write_file = [this, run, real = operations.write_file](const auto& path,
                                                                      const auto& pieces) {
      if (half_written && calls == at) {
        std::string bytes;
        for (const auto& piece : pieces) {
          bytes.append(reinterpret_cast<const char*>(piece.data()), piece.size());
        }
        WriteAll(path, bytes.substr(0, bytes.size() / 2));
      }
      return run("write_file " + path.filename().string(), [&] { return real(path, pieces); });
    };
    operations.rename = [run, real = operations.rename](const auto& from, const auto& to) {
      return run("rename " + to.filename().string(), [&] { return real(from, to); });
    };
    operations.sync_folder = [run, real = operations.sync_folder](const auto& folder) {
      return run("sync_folder " + folder.filename().string(), [&] { return real(folder); });
    };
    operations.remove_all = [run, real = operations.remove_all](const auto& path) {
      return run("remove_all " + path.filename().string(), [&] { return real(path); });
    };
    return operations;
  }
};

}  // namespace lockstep::trainer
