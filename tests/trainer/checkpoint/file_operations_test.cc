#include "trainer/checkpoint/file_operations.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <csignal>

#include "absl/strings/str_cat.h"
#include "tests/trainer/checkpoint/checkpoint_fixture.h"

namespace lockstep::trainer {
namespace {

using ::testing::HasSubstr;

std::span<const std::byte> Bytes(const std::string& text) {
  return std::as_bytes(std::span(text));
}
std::string Message(const absl::Status& status) {
  return std::string(status.message());
}

TEST(FileOperationsTest, WritesThePiecesOneAfterAnother) {
  const TempFolder folder;
  const FileOperations operations;
  const std::string first = "abc";
  const std::string second(1 << 20, 'x');
  ASSERT_TRUE(operations.write_file(folder.path() / "f", {Bytes(first), {}, Bytes(second)}).ok());
  EXPECT_EQ(ReadAll(folder.path() / "f"), first + second);
}

TEST(FileOperationsTest, AnEmptyFileIsAFile) {
  const TempFolder folder;
  const FileOperations operations;
  ASSERT_TRUE(operations.write_file(folder.path() / "f", {}).ok());
  EXPECT_TRUE(std::filesystem::is_empty(folder.path() / "f"));
}

TEST(FileOperationsTest, NeverWritesOverAFileOrThroughALink) {
  const TempFolder folder;
  const FileOperations operations;
  WriteAll(folder.path() / "there", "old");
  std::filesystem::create_symlink("elsewhere", folder.path() / "link");
  for (const char* name : {"there", "link"}) {
    const absl::Status status = operations.write_file(folder.path() / name, {Bytes("new")});
    EXPECT_TRUE(absl::IsAlreadyExists(status)) << status;
  }
  EXPECT_EQ(ReadAll(folder.path() / "there"), "old");
  EXPECT_FALSE(std::filesystem::exists(folder.path() / "elsewhere"));
}

TEST(FileOperationsTest, ErrorsNameCallPathAndReason) {
  const TempFolder folder;
  const FileOperations operations;
  const auto missing = folder.path() / "no" / "f";
  EXPECT_THAT(Message(operations.write_file(missing, {})),
              AllOf(HasSubstr(missing.string()), HasSubstr("create"),
                    HasSubstr("No such file or directory")));
  EXPECT_THAT(Message(operations.rename(missing, folder.path() / "g")),
              AllOf(HasSubstr("rename"), HasSubstr("No such file or directory")));
  EXPECT_THAT(Message(operations.sync_folder(missing)), HasSubstr("open folder"));
  EXPECT_TRUE(operations.remove_all(missing).ok());
}

TEST(FileOperationsTest, AFileBeyondTheLimitIsDataLossAndNotAFullDisk) {
  const TempFolder folder;
  const FileOperations operations;
  rlimit before = {};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  const rlimit small{4096, before.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
  const std::string bytes(8192, 'x');
  const absl::Status status = operations.write_file(folder.path() / "f", {Bytes(bytes)});
  ::setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, handler);
  EXPECT_TRUE(absl::IsDataLoss(status)) << status;
}

TEST(FileOperationsTest, CodesTellAFullDiskFromLostBytes) {
  const auto code = [](int error) { return FileError(error, "write", "/x").code(); };
  EXPECT_EQ(code(ENOSPC), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(code(EDQUOT), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(code(EIO), absl::StatusCode::kDataLoss);
  EXPECT_EQ(code(EROFS), absl::StatusCode::kPermissionDenied);
  EXPECT_EQ(code(ENOENT), absl::StatusCode::kNotFound);
  // Not a full disk, though the kernel's name for it sounds so.
  EXPECT_EQ(code(EMFILE), absl::StatusCode::kUnknown);
}

}  // namespace
}  // namespace lockstep::trainer
