#include "config/run_directory.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <csignal>
#include <string>
#include <thread>
#include <vector>

#include "tests/config/test_files.h"

namespace lockstep::config {
namespace {

std::vector<std::string> Names(const std::filesystem::path& folder) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    names.push_back(entry.path().filename().string());
  }
  return names;
}

TEST(WriteFileDurably, ReplacesAFileAndLeavesNothingElse) {
  const TempFolder folder;
  const auto path = folder.path() / "result.json";
  ASSERT_TRUE(WriteFileDurably(path, "old, and longer than the new one").ok());
  ASSERT_TRUE(WriteFileDurably(path, "new").ok());
  EXPECT_EQ(Contents(path), "new");
  EXPECT_THAT(Names(folder.path()), testing::ElementsAre("result.json"));
}

TEST(WriteFileDurably, KeepsEveryByte) {
  const TempFolder folder;
  std::string bytes(3u << 20, '\0');
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<char>(i * 31 >> 3);
  ASSERT_TRUE(WriteFileDurably(folder.path() / "f", bytes).ok());
  EXPECT_EQ(ReadFile(folder.path() / "f").value_or(""), bytes);
}

TEST(WriteFileDurably, KeepsTheOldFileWhenTheNewOneDoesNotFit) {
  // The limit on a file's size stands for a full disk.
  const TempFolder folder;
  const auto path = folder.path() / "f";
  ASSERT_TRUE(WriteFileDurably(path, "old").ok());
  rlimit before = {};
  getrlimit(RLIMIT_FSIZE, &before);
  signal(SIGXFSZ, SIG_IGN);
  rlimit small = before;
  small.rlim_cur = 1000;
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  const absl::Status status = WriteFileDurably(path, std::string(5000, 'x'));
  setrlimit(RLIMIT_FSIZE, &before);
  EXPECT_FALSE(status.ok());
  EXPECT_THAT(std::string(status.message()), testing::HasSubstr("cannot write " + path.string()));
  EXPECT_EQ(Contents(path), "old");
  EXPECT_THAT(Names(folder.path()), testing::ElementsAre("f"));
}

TEST(WriteFileDurably, SaysWhatFailedWhere) {
  const absl::Status status = WriteFileDurably("/nonexistent/folder/f", "x");
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()), testing::HasSubstr("/nonexistent/folder/f"));
}

TEST(WriteFileDurably, RefusesToReplaceAFolder) {
  const TempFolder folder;
  std::filesystem::create_directory(folder.path() / "f");
  EXPECT_FALSE(WriteFileDurably(folder.path() / "f", "x").ok());
  EXPECT_THAT(Names(folder.path()), testing::ElementsAre("f"));
}

TEST(WriteFileDurably, IsAllOrNothingForReadersMeanwhile) {
  const TempFolder folder;
  const auto path = folder.path() / "f";
  const std::string a(100000, 'a'), b(70000, 'b');
  ASSERT_TRUE(WriteFileDurably(path, a).ok());
  std::jthread writers[2];
  for (const std::string* text : {&a, &b}) {
    writers[text == &a ? 0 : 1] = std::jthread([&path, text] {
      for (int i = 0; i < 20; ++i) EXPECT_TRUE(WriteFileDurably(path, *text).ok());
    });
  }
  for (int i = 0; i < 200; ++i) {
    const std::string seen = ReadFile(path).value_or("");
    ASSERT_TRUE(seen == a || seen == b) << seen.size();
  }
}

TEST(ReadFile, RefusesWhatIsTooLargeAbsentOrNoFile) {
  const TempFolder folder;
  const auto path = folder.path() / "f";
  ASSERT_TRUE(WriteFileDurably(path, std::string(101, 'x')).ok());
  EXPECT_EQ(ReadFile(path, 100).status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(ReadFile(path, 101)->size(), 101u);
  EXPECT_EQ(ReadFile(folder.path() / "none").status().code(), absl::StatusCode::kNotFound);
  EXPECT_FALSE(ReadFile(folder.path()).ok());
}

TEST(ReadFile, DoesNotWaitAtAPipe) {
  const TempFolder folder;
  const auto path = folder.path() / "pipe";
  ASSERT_EQ(mkfifo(path.c_str(), 0600), 0);
  EXPECT_EQ(ReadFile(path).status().code(), absl::StatusCode::kFailedPrecondition);
}

TEST(RunDirectory, RemembersTheAttempt) {
  const TempFolder folder;
  const RunDirectory run(folder.path());
  EXPECT_EQ(run.ReadCurrentAttempt().value_or(-1), 0);
  ASSERT_TRUE(run.WriteCurrentAttempt(12).ok());
  EXPECT_EQ(run.ReadCurrentAttempt().value_or(-1), 12);
  EXPECT_EQ(run.rank_log(12, 3), folder.path() / "attempt-12" / "rank-3.log");
}

TEST(RunDirectory, RefusesAnAttemptThatIsNoNumber) {
  const TempFolder folder;
  const RunDirectory run(folder.path());
  for (const std::string text : {"", "one", "-1", "1x", "99999999999", "1\n2", " 1", "0x1"}) {
    ASSERT_TRUE(WriteFileDurably(run.current_attempt(), text).ok());
    EXPECT_EQ(run.ReadCurrentAttempt().status().code(), absl::StatusCode::kInvalidArgument) << text;
  }
  ASSERT_TRUE(WriteFileDurably(run.current_attempt(), std::string(1000, '1')).ok());
  EXPECT_EQ(run.ReadCurrentAttempt().status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace lockstep::config
