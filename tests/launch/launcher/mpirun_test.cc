// What an attempt's processes are given, and that nothing else reaches them.
#include "launch/launcher/mpirun.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <sys/stat.h>

#include "tests/launch/launcher/gang_fixture.h"

namespace lockstep::launch {
namespace {

using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::StartsWith;

class MpirunTest : public GangTest {};

TEST_F(MpirunTest, TheArgumentVectorIsFixed) {
  MpirunOptions options = Options();
  options.trainer = "/opt/lockstep-trainer";
  options.log_limit_bytes = 1000;
  const LaunchSpec spec = Spec(3);
  std::vector<std::string> expected = {"mpirun"};
  if (geteuid() == 0) expected.push_back("--allow-run-as-root");
  const std::string dir = dir_.string();
  for (const std::string& argument : std::vector<std::string>{
           "--oversubscribe", "--bind-to", "none", "--map-by", "slot", "-np", "3",
           "/opt/lockstep-trainer", dir + "/run.yaml", "--run-dir", dir, "--attempt", "1",
           "--coordinator", "/tmp/nobody.sock", "--run-id", "run-1", "--log-limit", "1000"}) {
    expected.push_back(argument);
  }
  EXPECT_EQ(MpirunLauncher(options).Arguments(spec), expected);
  options.oversubscribe = false;
  EXPECT_THAT(MpirunLauncher(options).Arguments(spec), testing::Not(Contains("--oversubscribe")));
}

TEST_F(MpirunTest, RanksGetTheTrainersArguments) {
  StartAndWait();
  for (int rank = 0; rank < 2; ++rank) {
    EXPECT_THAT(Seen(rank)["arguments"].get<std::vector<std::string>>(),
                ElementsAre(Options().trainer, (dir_ / "run.yaml").string(), "--run-dir",
                            dir_.string(), "--attempt", "1", "--coordinator", "/tmp/nobody.sock",
                            "--run-id", "run-1", "--log-limit", "268435456"));
    EXPECT_EQ(Seen(rank)["folder"], dir_.string());
  }
  Go();
  EXPECT_EQ(AwaitEnd().exit_code, 0);
}

TEST_F(MpirunTest, OnlyTheAllowedEnvironmentIsPassedOn) {
  for (const char* name : {"OMPI_MCA_plm_rsh_agent", "PMIX_MCA_x", "LD_PRELOAD_NOT", "SECRET_KEY",
                           "LOCKSTEP_A__B", "PYTHONPATH"}) {
    setenv(name, "evil", 1);
  }
  setenv("OMP_NUM_THREADS", "3", 1);
  StartAndWait(1);
  const std::vector<std::string> names = SeenEnvironment(0);
  EXPECT_THAT(names, testing::Each(testing::Not(HasSubstr("evil"))));
  EXPECT_THAT(names, Contains("OMP_NUM_THREADS=3"));
  EXPECT_THAT(names, Contains(StartsWith("TMPDIR=/tmp/lockstep-gang-")));
  EXPECT_THAT(names, Contains("LOCKSTEP_ATTEMPT_DIR=" + Attempt().string()));
  Go();
  AwaitEnd();
}

TEST_F(MpirunTest, EnvironmentDropsWhatCanRunCommands) {
  std::vector<std::string> given = {
      "PATH=/bin",    "LD_PRELOAD=/evil.so", "OMPI_MCA_a=b",           "LC_ALL=C",
      "PRTE_MCA_x=y", "OMP_PLACES=cores",    "CUDA_VISIBLE_DEVICES=1", "NCCL_DEBUG=WARN"};
  std::vector<char*> environment;
  for (std::string& entry : given) environment.push_back(entry.data());
  environment.push_back(nullptr);
  EXPECT_THAT(MpirunLauncher::Environment(environment.data(), Spec(), "/tmp/t"),
              ElementsAre("PATH=/bin", "LC_ALL=C", "OMP_PLACES=cores", "CUDA_VISIBLE_DEVICES=1",
                          "NCCL_DEBUG=WARN", "TMPDIR=/tmp/t",
                          "LOCKSTEP_ATTEMPT_DIR=" + Attempt().string()));
}

TEST_F(MpirunTest, RanksSeeOnlyTheGpusTheyWereGiven) {
  std::string ours = "CUDA_VISIBLE_DEVICES=0,1,2,3";
  std::vector<char*> environment = {ours.data(), nullptr};
  LaunchSpec spec = Spec();
  spec.gpus = {"2", "3"};
  const auto passed = MpirunLauncher::Environment(environment.data(), spec, "/tmp/t");
  EXPECT_THAT(passed, Contains("CUDA_VISIBLE_DEVICES=2,3"));
  EXPECT_THAT(passed, Contains("CUDA_DEVICE_ORDER=PCI_BUS_ID"));
  EXPECT_THAT(passed, testing::Not(Contains(ours)));
}

TEST_F(MpirunTest, TheGangHasASessionOfItsOwnAndNoFilesOfOurs) {
  const int leak = open("/dev/zero", O_RDONLY);  // Without O_CLOEXEC, on purpose.
  ASSERT_GE(leak, 0);
  sigset_t blocked;
  sigset_t before;
  sigfillset(&blocked);
  pthread_sigmask(SIG_BLOCK, &blocked, &before);
  StartAndWait();
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  close(leak);
  const nlohmann::json seen = Seen(1);
  EXPECT_EQ(seen["session"], gang_.pid);
  EXPECT_NE(seen["session"], getsid(0));
  EXPECT_EQ(seen["blocked"], nlohmann::json::array());
  for (const auto& [number, target] : seen["files"].items()) {
    EXPECT_NE(target, "/dev/zero") << "descriptor " << number;
  }
  // mpirun itself: nothing to read, all it says in the log.
  const std::string proc = "/proc/" + std::to_string(gang_.pid) + "/fd/";
  EXPECT_EQ(std::filesystem::read_symlink(proc + "0"), "/dev/null");
  EXPECT_EQ(std::filesystem::read_symlink(proc + "1"), Attempt() / "trainer.log");
  EXPECT_EQ(std::filesystem::read_symlink(proc + "2"), Attempt() / "trainer.log");
  Go();
  AwaitEnd();
}

TEST_F(MpirunTest, TheTokenIsForItsOwnerOnly) {
  StartAndWait(1);
  struct stat info {};
  ASSERT_EQ(stat((Attempt() / "token").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600U);
  EXPECT_EQ(*config::ReadFile(Attempt() / "token"), "secret");
  Go();
  AwaitEnd();
}

TEST_F(MpirunTest, OddNamesAreRefusedAndNothingStarts) {
  const auto refused = [&](const std::function<void(LaunchSpec&)>& change) {
    LaunchSpec spec = Spec();
    change(spec);
    return launcher_->Start(spec).status().code() == absl::StatusCode::kInvalidArgument;
  };
  for (const std::string id :
       {"", "-x", "x-", "A", "a b", "a:b", ":", "a;b", "$(id)", "a\nb", "--mca"}) {
    EXPECT_TRUE(refused([&](LaunchSpec& spec) { spec.run_id = id; })) << id;
  }
  EXPECT_TRUE(refused([](LaunchSpec& spec) { spec.run_id = std::string(64, 'a'); }));
  EXPECT_TRUE(refused([](LaunchSpec& spec) { spec.run_dir = "relative"; }));
  EXPECT_TRUE(refused([](LaunchSpec& spec) { spec.run_dir = ":"; }));
  EXPECT_TRUE(refused([](LaunchSpec& spec) { spec.run_dir = "/tmp/a\nb"; }));
  EXPECT_TRUE(refused([](LaunchSpec& spec) { spec.run_dir = "/" + std::string(10000, 'a'); }));
  EXPECT_TRUE(refused([](LaunchSpec& spec) { spec.coordinator_socket = "--mca"; }));
  EXPECT_TRUE(
      refused([](LaunchSpec& spec) { spec.coordinator_socket = "/" + std::string(107, 'a'); }));
  EXPECT_TRUE(refused([](LaunchSpec& spec) { spec.ranks = 0; }));
  EXPECT_TRUE(refused([](LaunchSpec& spec) { spec.attempt = 0; }));
  EXPECT_TRUE(refused([](LaunchSpec& spec) { spec.token = ""; }));
  EXPECT_FALSE(std::filesystem::exists(Attempt()));
}

TEST_F(MpirunTest, AFolderNameWithSpacesAndColonsArrivesWhole) {
  dir_ /= "a : b; $(touch x) 'q'";
  std::filesystem::create_directories(dir_);
  WriteOrders("");
  StartAndWait(1);
  EXPECT_EQ(Seen(0)["arguments"][3], dir_.string());
  Go();
  AwaitEnd();
  dir_ = dir_.parent_path();
}

TEST_F(MpirunTest, RootNeedsTheOptIn) {
  if (geteuid() != 0) GTEST_SKIP() << "only root is refused";
  MpirunOptions options = Options();
  options.allow_root = false;
  Remake(options);
  const absl::Status status = launcher_->Start(Spec()).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kPermissionDenied);
  EXPECT_THAT(std::string(status.message()), HasSubstr("allow_root_mpirun: true"));
}

TEST_F(MpirunTest, AMissingProgramIsNamed) {
  MpirunOptions options = Options();
  options.trainer = "/nowhere/lockstep-trainer";
  Remake(options);
  absl::Status status = launcher_->Start(Spec()).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()), HasSubstr("/nowhere/lockstep-trainer"));
  options = Options();
  options.mpirun = "no-such-mpirun";
  Remake(options);
  status = launcher_->Start(Spec()).status();
  EXPECT_THAT(std::string(status.message()), HasSubstr("no-such-mpirun"));
}

TEST_F(MpirunTest, TrainerLogStaysBoundedAndKeepsTheEnd) {
  MpirunOptions options = Options();
  options.log_limit_bytes = 100000;
  Remake(options);
  WriteOrders("0 print 3000000\n");
  StartAndWait(1);
  ASSERT_TRUE(Eventually([&] {
    EXPECT_FALSE(launcher_->Poll(gang_, dir_, 1).has_value());
    return Log().find("the last line") != std::string::npos &&
           std::filesystem::file_size(Attempt() / "trainer.log") <= 100000;
  }));
  EXPECT_THAT(Log(), HasSubstr("[older output was dropped]"));
  Go();
  AwaitEnd();
}

}  // namespace
}  // namespace lockstep::launch
