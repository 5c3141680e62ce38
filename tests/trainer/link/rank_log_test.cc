// RankLog redirects the whole process, so each test runs it in a child.
#include "trainer/link/rank_log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <iostream>

#include "absl/strings/match.h"

namespace lockstep::trainer {
namespace {

using testing::HasSubstr;

class RankLogTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string path = testing::TempDir() + "ranklog-XXXXXX";
    ASSERT_NE(mkdtemp(path.data()), nullptr);
    folder_ = path;
    log_ = folder_ / "rank-0.log";
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  // The wait status of a process that runs `body`.
  static int InChild(const std::function<void()>& body) {
    std::cout.flush();
    std::fflush(nullptr);
    const pid_t pid = fork();
    if (pid == 0) {
      body();
      _exit(0);
    }
    int status = -1;
    waitpid(pid, &status, 0);
    return status;
  }

  static std::string Read(const std::filesystem::path& path) {
    std::ifstream file(path);
    return {std::istreambuf_iterator<char>(file), {}};
  }

  std::filesystem::path folder_;
  std::filesystem::path log_;
};

TEST_F(RankLogTest, BothStreamsGoToTheFileAfterWhatIsThere) {
  std::ofstream(log_) << "before\n";
  EXPECT_EQ(InChild([&] {
              const auto log = RankLog::Redirect(log_, 1 << 20);
              if (!log.ok()) _exit(1);
              std::cout << "out\n";
              std::cerr << "err\n";
              std::printf("print without an end");
            }),
            0);
  const std::string text = Read(log_);
  EXPECT_EQ(text.rfind("before\n", 0), 0U);
  EXPECT_THAT(text, HasSubstr("out\n"));
  EXPECT_THAT(text, HasSubstr("err\n"));
  EXPECT_THAT(text, HasSubstr("print without an end"));
}

TEST_F(RankLogTest, LinesOfAKilledProcessAreThere) {
  const int status = InChild([&] {
    const auto log = RankLog::Redirect(log_, 1 << 20);
    if (!log.ok()) _exit(1);
    std::printf("last words\n");
    raise(SIGKILL);
  });
  EXPECT_TRUE(WIFSIGNALED(status));
  EXPECT_EQ(Read(log_), "last words\n");
}

TEST_F(RankLogTest, TheFilesStayBoundedAndKeepTheNewest) {
  constexpr int64_t kLimit = 4 << 20;
  EXPECT_EQ(InChild([&] {
              const auto log = RankLog::Redirect(log_, kLimit);
              if (!log.ok()) _exit(1);
              const std::string block(999, 'x');
              const auto size = [] {
                struct stat info {};
                return fstat(STDOUT_FILENO, &info) == 0 ? info.st_size : 0;
              };
              // 64 MiB in all, as fast as the log is looked after: a pause only when it lags.
              for (int i = 0; i < 64 << 10; ++i) {
                std::printf("%s\n", block.c_str());
                while (size() > kLimit / 2 + (1 << 20)) usleep(1000);
              }
              std::printf("the last line\n");
            }),
            0);
  const auto total =
      std::filesystem::file_size(log_) + std::filesystem::file_size(log_.string() + ".1");
  EXPECT_LE(total, static_cast<uintmax_t>(kLimit + (2 << 20) + 4096));
  // The last line may have been the one that filled the file.
  EXPECT_TRUE(absl::EndsWith(Read(log_.string() + ".1") + Read(log_), "the last line\n"));
  size_t files = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator(folder_)) ++files;
  EXPECT_EQ(files, 2U);
}

TEST_F(RankLogTest, AFolderThatIsNotThereChangesNothing) {
  const std::filesystem::path nowhere = folder_ / "no" / "rank-0.log";
  EXPECT_EQ(InChild([&] {
              const auto log = RankLog::Redirect(nowhere, 1 << 20);
              const bool named =
                  std::string(log.status().message()).find(nowhere) != std::string::npos;
              _exit(!log.ok() && named ? 0 : 1);
            }),
            0);
}

}  // namespace
}  // namespace lockstep::trainer
