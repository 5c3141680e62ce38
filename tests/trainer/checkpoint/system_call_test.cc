// The real file operations over system calls that fail. This program defines write, fsync, close,
// posix_fallocate and rename itself, so the calls of the code under test come here first.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <map>
#include <optional>
#include <set>

#include "absl/strings/str_cat.h"
#include "tests/trainer/checkpoint/checkpoint_fixture.h"
#include "trainer/checkpoint/store.h"

namespace {

// What happens to the calls of this process while a test runs one commit.
struct Kernel {
  bool armed = false;
  int calls = 0;
  int fail_at = -1;  // Number of the call that fails; all later calls work.
  int error = 0;
  size_t most_bytes = SIZE_MAX;  // A write takes at most so many: short writes.
  bool interrupt = false;        // Every write and reservation is interrupted once before it works.
  bool interrupted = false;
  bool no_fallocate = false;
  std::map<int, int> fsyncs_after_failure;  // By descriptor.
  std::optional<int> failed_fsync;
  std::set<int> written;  // Descriptors that were written to: only their close() counts.

  // True when this call is the one that fails.
  bool Strikes() { return armed && calls++ == fail_at; }
  bool Interrupts() {
    if (!armed || !interrupt) return false;
    interrupted = !interrupted;
    return interrupted;
  }
};
Kernel kernel;

}  // namespace

extern "C" {

ssize_t write(int fd, const void* data, size_t bytes) {
  if (kernel.Interrupts()) {
    errno = EINTR;
    return -1;
  }
  if (kernel.Strikes()) {
    errno = kernel.error;
    return -1;
  }
  if (kernel.armed) {
    kernel.written.insert(fd);
    bytes = std::min(bytes, kernel.most_bytes);
  }
  return ::syscall(SYS_write, fd, data, bytes);
}

int fsync(int fd) {
  if (kernel.failed_fsync == fd) ++kernel.fsyncs_after_failure[fd];
  if (kernel.Strikes()) {
    kernel.failed_fsync = fd;
    errno = kernel.error;
    return -1;
  }
  return static_cast<int>(::syscall(SYS_fsync, fd));
}

int close(int fd) {
  if (kernel.failed_fsync == fd) kernel.failed_fsync.reset();  // The number may come again.
  const int result = static_cast<int>(::syscall(SYS_close, fd));
  if (kernel.written.erase(fd) > 0 && kernel.Strikes()) {
    errno = kernel.error;
    return -1;
  }
  return result;
}

int posix_fallocate(int fd, off_t offset, off_t bytes) {
  if (kernel.Interrupts()) return EINTR;
  if (kernel.Strikes()) return kernel.error;
  if (kernel.armed && kernel.no_fallocate) return EOPNOTSUPP;
  return ::syscall(SYS_fallocate, fd, 0, offset, bytes) == 0 ? 0 : errno;
}

int rename(const char* from, const char* to) noexcept {
  if (kernel.Strikes()) {
    errno = kernel.error;
    return -1;
  }
  return static_cast<int>(::syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0));
}

}  // extern "C"

namespace lockstep::trainer {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class SystemCallTest : public ::testing::Test {
 protected:
  SystemCallTest() {
    EXPECT_TRUE(store_.Open().ok());
    EXPECT_TRUE(Commit(1).ok());
  }
  ~SystemCallTest() override { kernel = Kernel(); }

  absl::Status Commit(int64_t step) {
    const SampleContents contents(step);
    return store_.Commit(step, contents.View(), {});
  }
  // Commits under `faults` and gives the machine back to itself.
  absl::Status CommitUnder(int64_t step, const Kernel& faults) {
    kernel = faults;
    kernel.armed = true;
    const absl::Status status = Commit(step);
    kernel.armed = false;
    return status;
  }
  int64_t Newest() {
    std::vector<std::string> refused;
    const auto loaded = store_.LoadNewestGood(refused);
    EXPECT_TRUE(loaded.ok()) << loaded.status();
    EXPECT_THAT(refused, ElementsAre());
    return loaded.ok() && IsWhole(*loaded) ? loaded->info.step : -1;
  }

  TempFolder temp_;
  CheckpointStore store_{temp_.path() / "checkpoints", 1, {.keep_last = 1000, .keep_best = 0}};
};

TEST_F(SystemCallTest, ShortWritesAndInterruptionsChangeNothing) {
  Kernel faults;
  faults.most_bytes = 7;
  faults.interrupt = true;
  const absl::Status status = CommitUnder(2, faults);
  EXPECT_TRUE(status.ok()) << status;
  // More than one write a file, or the test would show nothing.
  EXPECT_GT(kernel.calls, 100);
  EXPECT_EQ(Newest(), 2);
}

TEST_F(SystemCallTest, AFileSystemThatCannotReserveIsWrittenToAllTheSame) {
  Kernel faults;
  faults.no_fallocate = true;
  EXPECT_TRUE(CommitUnder(2, faults).ok());
  EXPECT_EQ(Newest(), 2);
}

TEST_F(SystemCallTest, EveryCallMayFailAndThePreviousCheckpointStays) {
  struct Trouble {
    int error;
    absl::StatusCode code;
  };
  for (const Trouble trouble : {Trouble{ENOSPC, absl::StatusCode::kResourceExhausted},
                                Trouble{EDQUOT, absl::StatusCode::kResourceExhausted},
                                Trouble{EIO, absl::StatusCode::kDataLoss}}) {
    int failures = 0;
    const int64_t step = 2;
    for (int at = 0;; ++at) {
      SCOPED_TRACE(absl::StrCat("errno ", trouble.error, " at call ", at));
      Kernel faults;
      faults.fail_at = at;
      faults.error = trouble.error;
      const absl::Status status = CommitUnder(step, faults);
      if (kernel.calls <= at) {
        EXPECT_TRUE(status.ok()) << status;
        break;
      }
      EXPECT_TRUE(kernel.fsyncs_after_failure.empty()) << "an fsync was tried again";
      EXPECT_EQ(NamesIn(temp_.path() / "checkpoints").size(), store_.List()->size());
      ++failures;
      EXPECT_EQ(status.code(), trouble.code) << status;
      EXPECT_THAT(std::string(status.message()), HasSubstr("checkpoints"));
      EXPECT_EQ(Newest(), step - 1);
      ASSERT_LT(at, 200);
    }
    // Four files with reservation, writes, fsync and close each, two folders, one rename. A tensor
    // file takes one write for its header and one for each tensor.
    EXPECT_EQ(failures, 4 * 3 + (3 + 2 + 1 + 1) + 2 + 1);
    fs::remove_all(store_.PathOf(step));
  }
}

}  // namespace
}  // namespace lockstep::trainer
