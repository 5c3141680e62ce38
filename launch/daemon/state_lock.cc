#include "launch/daemon/state_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <sstream>
#include <system_error>
#include <thread>

#include "absl/strings/str_cat.h"
#include "launch/launcher/process.h"

namespace lockstep::launch {
namespace {

namespace fs = std::filesystem;

int64_t ReadPid(int fd) {
  char text[32] = {};
  const ssize_t got = pread(fd, text, sizeof(text) - 1, 0);
  int64_t pid = 0;
  if (got > 0) std::from_chars(text, text + got, pid);
  return pid;
}

// The winner of a race may not have written its pid yet, and one that was killed has left its own.
int64_t HolderOf(int fd) {
  for (int i = 0; i < 50; ++i) {
    const int64_t pid = ReadPid(fd);
    if (pid > 0 && ReadProcessStat(pid)) return pid;
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return ReadPid(fd);
}

// Inode of the socket that listens (state 0A) on the port, from /proc/net/tcp: columns are
// sl, local address:port in hex, remote, state, four that do not matter here, uid, timeout, inode.
std::string ListeningInode(const char* table, int port) {
  std::ifstream file(table);
  std::string line;
  std::getline(file, line);
  while (std::getline(file, line)) {
    std::istringstream fields(line);
    std::string slot, local, remote, state, queues, timer, retransmits, uid, timeout, inode;
    fields >> slot >> local >> remote >> state >> queues >> timer >> retransmits >> uid >>
        timeout >> inode;
    const size_t colon = local.rfind(':');
    if (state == "0A" && colon != std::string::npos &&
        std::strtol(local.c_str() + colon + 1, nullptr, 16) == port) {
      return inode;
    }
  }
  return {};
}

}  // namespace

absl::StatusOr<StateLock> StateLock::Take(const fs::path& state_dir) {
  const fs::path path = state_dir / "lock";
  const int fd = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (fd < 0) {
    const std::string why = absl::StrCat("cannot open ", path.string(), ": ", std::strerror(errno));
    return errno == EACCES || errno == EROFS ? absl::PermissionDeniedError(why)
                                             : absl::InternalError(why);
  }
  if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
    const int error = errno;
    const int64_t holder = error == EWOULDBLOCK ? HolderOf(fd) : 0;
    close(fd);
    if (error != EWOULDBLOCK) {
      return absl::InternalError(
          absl::StrCat("cannot lock ", path.string(), ": ", std::strerror(error)));
    }
    return absl::AlreadyExistsError(absl::StrCat("another lockstepd, pid ", holder,
                                                 ", serves the state folder ", state_dir.string()));
  }
  StateLock lock(fd);
  const std::string pid = absl::StrCat(getpid(), "\n");
  if (ftruncate(fd, 0) != 0 ||
      pwrite(fd, pid.data(), pid.size(), 0) != static_cast<ssize_t>(pid.size())) {
    return absl::InternalError(
        absl::StrCat("cannot write ", path.string(), ": ", std::strerror(errno)));
  }
  return lock;
}

StateLock::StateLock(StateLock&& other) noexcept : fd_(other.fd_) {
  other.fd_ = -1;
}

StateLock::~StateLock() {
  if (fd_ < 0) return;
  // The pid goes first: whoever comes next must not name us. The file stays: removing it would let
  // two daemons lock two files of one name.
  if (ftruncate(fd_, 0) != 0) {
    // Nothing to be done: the pid of a process that is gone is recognised as such.
  }
  close(fd_);
}

std::string PortOwner(int port) {
  std::string inode = ListeningInode("/proc/net/tcp", port);
  if (inode.empty()) inode = ListeningInode("/proc/net/tcp6", port);
  if (inode.empty()) return {};
  const std::string wanted = absl::StrCat("socket:[", inode, "]");
  std::error_code error;
  for (fs::directory_iterator it("/proc", error), end; !error && it != end; it.increment(error)) {
    const std::string name = it->path().filename().string();
    if (name.find_first_not_of("0123456789") != std::string::npos) continue;
    std::error_code hidden;
    for (fs::directory_iterator fd(it->path() / "fd", hidden), last; !hidden && fd != last;
         fd.increment(hidden)) {
      std::error_code gone;
      if (fs::read_symlink(fd->path(), gone) == wanted) {
        const auto stat = ReadProcessStat(std::strtoll(name.c_str(), nullptr, 10));
        return absl::StrCat("pid ", name, stat ? absl::StrCat(" (", stat->command, ")") : "");
      }
    }
  }
  return {};
}

}  // namespace lockstep::launch
