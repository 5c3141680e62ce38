// doctor on machines with and without GPUs: stand-ins for the driver, NCCL and the trainer.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "tests/launch/cli/fake_coordinator.h"
#include "tests/launch/cli/process.h"

namespace lockstep::cli {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;
using Json = nlohmann::json;
namespace fs = std::filesystem;

class DoctorTest : public ::testing::Test {
 protected:
  DoctorTest() {
    fs::create_directory(folder_.path() / "bin");
    program_ = (folder_.path() / "bin" / "lockstep").string();
    fs::copy_file(LOCKSTEP_PROGRAM, program_);
    environment_["LOCKSTEP_NVML_LIBRARY"] = "libnvidia-ml-none.so.1";
    environment_["LOCKSTEP_NVIDIA_DRIVER"] = (folder_.path() / "none").string();
    Trainer("cpu");
  }

  // A lockstep-trainer beside the program, and the libraries that the loader would find for it.
  void Trainer(const std::string& profile,
               const std::string& libraries = "libtorch_cpu.so => /opt/torch/lib/libtorch_cpu.so") {
    const fs::path path = folder_.path() / "bin" / "lockstep-trainer";
    std::ofstream(path) << "#!/bin/sh\nif [ -n \"$LOCKSTEP_TRACE_LIBRARIES\" ]; then\n  printf '"
                        << libraries << " (0x00007f0000000000)\\n'\nelse\n  echo 'lockstep-trainer "
                        << "0.1.0 (profile " << profile << ", LibTorch 2.11)'\nfi\n";
    fs::permissions(path, fs::perms::owner_all);
  }

  // A driver of this version with GPUs of these capabilities.
  void Driver(const std::string& version, const std::string& gpus) {
    environment_["LOCKSTEP_NVML_LIBRARY"] = FAKE_NVML;
    environment_["FAKE_NVML_DRIVER"] = version;
    environment_["FAKE_NVML_GPUS"] = gpus;
    InProc(version);
  }
  void InProc(const std::string& version) {
    environment_["LOCKSTEP_NVIDIA_DRIVER"] =
        folder_
            .Write("version", "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  " +
                                  version + "  Release Build\n")
            .string();
  }

  // The checks by name.
  Json Doctor() {
    Process::Options options;
    options.environment = environment_;
    options.folder = folder_.path().string();
    const Result result =
        RunToEnd({program_, "doctor", "-o", "json", "--socket", "none.sock"}, options);
    Json checks = Json::object();
    const Json answer = Json::parse(result.out);
    for (const Json& check : answer["checks"]) {
      checks[check["name"].get<std::string>()] = check;
      EXPECT_EQ(check["result"] == "ok", check["todo"] == "") << check;
    }
    return checks;
  }
  static void Expect(const Json& check, const std::string& result, const std::string& found,
                     const std::string& todo = "") {
    EXPECT_EQ(check.value("result", ""), result) << check;
    EXPECT_THAT(check.value("found", ""), HasSubstr(found));
    EXPECT_THAT(check.value("todo", ""), HasSubstr(todo));
  }

  TempFolder folder_;
  std::string program_;
  std::map<std::string, std::string> environment_;
};

TEST_F(DoctorTest, WithoutADriverRanksTrainOnTheCpu) {
  const Json checks = Doctor();
  Expect(checks["GPU driver"], "ok", "none; ranks train on the CPU");
  EXPECT_FALSE(checks.contains("GPUs"));
  EXPECT_FALSE(checks.contains("NCCL"));
  Expect(checks["LibTorch"], "ok", "/opt/torch/lib");
}

TEST_F(DoctorTest, ShowsDriverGpusLinksAndNccl) {
  Driver("580.65.06", "9.0 9.0 9.0");
  Trainer("cuda");
  environment_["FAKE_NVML_NVLINK"] = "0-1";
  environment_["LOCKSTEP_NCCL"] = FAKE_NCCL;
  Json checks = Doctor();
  Expect(checks["GPU driver"], "ok", "580.65.06");
  Expect(checks["GPUs"], "ok", "3 x NVIDIA Test 9.0 (80");
  Expect(checks["GPU links"], "ok", "NVLink 0-1; PCIe through the CPU (PHB) 0-2 1-2");
  Expect(checks["NCCL"], "ok", "2.28.9");
  environment_["FAKE_NVML_NVLINK"] = "0-1 0-2 1-2";
  Expect(Doctor()["GPU links"], "ok", "NVLink between all");
}

TEST_F(DoctorTest, OneGpuHasNoLinks) {
  Driver("580.65.06", "9.0");
  EXPECT_FALSE(Doctor().contains("GPU links"));
}

TEST_F(DoctorTest, ADriverOlderThanCuda13FailsATrainerOfProfileCuda) {
  Driver("570.124.06", "9.0");
  Expect(Doctor()["GPU driver"], "warn", "570.124.06", "driver 580 or newer");
  Trainer("cuda");
  Expect(Doctor()["GPU driver"], "fail", "570.124.06", "driver 580 or newer");
}

TEST_F(DoctorTest, ATrainerOfProfileCpuLeavesGpusIdle) {
  Driver("580.65.06", "9.0");
  Expect(Doctor()["GPUs"], "warn", "NVIDIA Test", "scripts/setup --cuda");
}

TEST_F(DoctorTest, NamesAGpuThatIsTooOld) {
  Driver("580.65.06", "9.0 7.0");
  Trainer("cuda");
  Expect(Doctor()["GPUs"], "warn", "NVIDIA Test 7.0", "compute capability 7.0");
}

TEST_F(DoctorTest, ADriverThatDoesNotAnswerSaysWhy) {
  Driver("580.65.06", "9.0");
  environment_["FAKE_NVML_INIT"] = "18";
  Trainer("cuda");
  const Json checks = Doctor();
  Expect(checks["GPU driver"], "fail", "580.65.06: Driver/library version mismatch", "restart");
  EXPECT_FALSE(checks.contains("GPUs"));
}

TEST_F(DoctorTest, ADriverWithoutItsLibraryAndOneWithoutGpus) {
  InProc("580.65.06");
  Expect(Doctor()["GPU driver"], "warn", "580.65.06, but its library does not load", "--gpus all");
  Driver("580.65.06", "");
  Expect(Doctor()["GPUs"], "warn", "the driver shows none", "--gpus all");
}

TEST_F(DoctorTest, ALibraryThatIsNoNvmlIsNamedByWhatItLacks) {
  environment_["LOCKSTEP_NVML_LIBRARY"] = FAKE_NCCL;
  Expect(Doctor()["GPU driver"], "warn", "has no nvmlInit_v2");
}

TEST_F(DoctorTest, AnNcclThatDoesNotFit) {
  Trainer("cuda");
  environment_["LOCKSTEP_NCCL"] = FAKE_NCCL;
  environment_["FAKE_NCCL_VERSION"] = "21805";
  Expect(Doctor()["NCCL"], "fail", "2.18.5", "--nccl DIR");
  environment_["FAKE_NCCL_VERSION"] = "22809";
  environment_["LOCKSTEP_NCCL"] = FAKE_NCCL_WITHOUT_ABORT;
  Expect(Doctor()["NCCL"], "fail", "has no ncclCommAbort", "scripts/setup --cuda");
  environment_["LOCKSTEP_NCCL"] = "/none/libnccl.so.2";
  Expect(Doctor()["NCCL"], "fail", "/none/libnccl.so.2", "scripts/setup --cuda");
}

TEST_F(DoctorTest, TheTrainersOwnNcclIsTheOneLookedAt) {
  Trainer("cuda", std::string("libtorch_cpu.so => /opt/torch/lib/libtorch_cpu.so (0x1)\\n"
                              "libnccl.so.2 => ") +
                      FAKE_NCCL);
  Expect(Doctor()["NCCL"], "ok", FAKE_NCCL);
}

TEST_F(DoctorTest, MissingLibrariesOfTheTrainerAreNamed) {
  Trainer("cpu", "libtorch_cpu.so => not found\\n\\tlibc10.so => /opt/torch/lib/libc10.so");
  Expect(Doctor()["LibTorch"], "fail", "not found: libtorch_cpu.so", "scripts/setup");
}

}  // namespace
}  // namespace lockstep::cli
