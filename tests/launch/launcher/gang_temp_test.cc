#include "launch/launcher/gang_temp.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "launch/launcher/process.h"

namespace lockstep::launch {
namespace {

using std::filesystem::exists;

class GangTempTest : public testing::Test {
 protected:
  void SetUp() override {
    const absl::StatusOr<std::string> dir = MakeGangTempDir();
    ASSERT_TRUE(dir.ok()) << dir.status();
    dir_ = *dir;
  }
  void TearDown() override { RemoveGangTempDir(dir_); }

  // A process that is gone for good.
  static Gang Gone() {
    const pid_t pid = fork();
    if (pid == 0) _exit(0);
    const std::optional<ProcessStat> stat = ReadProcessStat(pid);
    waitpid(pid, nullptr, 0);
    return {pid, stat->start_time_ticks};
  }
  static Gang Self() { return {getpid(), ReadProcessStat(getpid())->start_time_ticks}; }

  std::string dir_;
};

TEST_F(GangTempTest, ItIsShortAndForItsOwnerOnly) {
  EXPECT_LT(dir_.size(), 32U);
  EXPECT_EQ(std::filesystem::status(dir_).permissions(), std::filesystem::perms::owner_all);
}

TEST_F(GangTempTest, ItGoesWithTheSharedMemoryOfItsJobs) {
  // Job 1250623489 is 4a8b0001; another job's memory is left alone.
  const std::string unique = std::to_string(getpid());
  const std::string ours = "/dev/shm/vader_segment.host-" + unique + ".0.4a8b0001.3";
  const std::string others = "/dev/shm/vader_segment.host-" + unique + ".0.4a8b0002.3";
  std::ofstream(ours) << "x";
  std::ofstream(others) << "x";
  std::filesystem::create_directories(dir_ + "/ompi.host.0/pid.1/pmix");
  std::ofstream(dir_ + "/ompi.host.0/pid.1/pmix/smdataseg-1250623489-0") << "x";
  RemoveGangTempDir(dir_);
  EXPECT_FALSE(exists(dir_));
  EXPECT_FALSE(exists(ours));
  EXPECT_TRUE(exists(others));
  std::filesystem::remove(others);
}

TEST_F(GangTempTest, OtherFoldersAreNeverRemoved) {
  const std::string other = dir_ + "-more";
  std::filesystem::create_directory(other);
  for (const std::string& path :
       {other, dir_ + "/", dir_ + "/../" + dir_.substr(5), std::string(), std::string("/tmp")}) {
    RemoveGangTempDir(path);
  }
  EXPECT_TRUE(exists(other));
  EXPECT_TRUE(exists(dir_));
  std::filesystem::remove(other);
}

TEST_F(GangTempTest, ALinkIsNotFollowed) {
  const std::string precious = testing::TempDir() + "precious-" + std::to_string(getpid());
  std::filesystem::create_directory(precious);
  std::filesystem::remove(dir_);
  std::filesystem::create_directory_symlink(precious, dir_);
  RemoveGangTempDir(dir_);
  EXPECT_TRUE(exists(precious));
  std::filesystem::remove(dir_);
  std::filesystem::remove(precious);
}

TEST_F(GangTempTest, SweepingRemovesWhatADeadGangLeft) {
  SetGangTempDirOwner(dir_, Gone());
  SweepGangTempDirs();
  EXPECT_FALSE(exists(dir_));
}

TEST_F(GangTempTest, SweepingKeepsALiveGangsFolder) {
  SetGangTempDirOwner(dir_, Self());
  SweepGangTempDirs();
  EXPECT_TRUE(exists(dir_));
}

TEST_F(GangTempTest, SweepingKeepsAFolderThatIsJustBeingMade) {
  SweepGangTempDirs();
  EXPECT_TRUE(exists(dir_));
}

TEST_F(GangTempTest, SweepingRemovesWhatIsOfAnotherBoot) {
  std::ofstream(dir_ + "/owner") << Self().pid << ' ' << Self().start_time_ticks << " another-boot";
  SweepGangTempDirs();
  EXPECT_FALSE(exists(dir_));
}

}  // namespace
}  // namespace lockstep::launch
