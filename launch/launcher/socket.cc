#include "launch/launcher/socket.h"

#include <fcntl.h>
#include <grpcpp/server.h>
#include <grpcpp/server_posix.h>
#include <poll.h>
#include <pwd.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "spdlog/spdlog.h"

namespace lockstep::launch {
namespace {

constexpr int kBacklog = 256;
constexpr int kKeptDescriptors = 64;  // For the run store, logs, mpirun's pipes, the metrics port.
constexpr int kFullPauseMs = 50;

absl::Status SystemError(int error, absl::string_view doing) {
  return absl::ErrnoToStatus(error, absl::StrCat(doing, ": ", std::strerror(error)));
}

int OpenReserve() {
  return open("/dev/null", O_RDONLY | O_CLOEXEC);
}

// The limit in force now: it may be changed while we run.
int ConnectionLimit(int configured) {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return configured;
  const auto descriptors = static_cast<int64_t>(limit.rlim_cur);
  return static_cast<int>(
      std::clamp<int64_t>(descriptors - kKeptDescriptors, 1, std::max(1, configured)));
}

uint64_t InodeOf(int fd) {
  struct stat info {};
  return fstat(fd, &info) == 0 && S_ISSOCK(info.st_mode) ? info.st_ino : 0;
}

std::optional<ucred> Credentials(int fd) {
  ucred peer{};
  socklen_t size = sizeof(peer);
  int domain = 0;
  socklen_t domain_size = sizeof(domain);
  if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &domain_size) != 0 || domain != AF_UNIX ||
      getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0) {
    return std::nullopt;
  }
  return peer;
}

bool IsInGroup(int fd, gid_t group) {
  std::vector<gid_t> groups(64);
  socklen_t size = 0;
  while (true) {
    size = static_cast<socklen_t>(groups.size() * sizeof(gid_t));
    if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, groups.data(), &size) == 0) break;
    if (errno != ERANGE || groups.size() > 65536) return false;
    groups.resize(groups.size() * 2);
  }
  groups.resize(size / sizeof(gid_t));
  return std::find(groups.begin(), groups.end(), group) != groups.end();
}

}  // namespace

absl::StatusOr<std::unique_ptr<SocketListener>> SocketListener::Open(SocketOptions options) {
  // make_unique cannot reach the private constructor.
  std::unique_ptr<SocketListener> listener(new SocketListener(std::move(options)));
  if (absl::Status status = listener->Bind(); !status.ok()) return status;
  return listener;
}

absl::Status SocketListener::Bind() {
  const std::string path = options_.path.string();
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof(address.sun_path)) {
    return absl::InvalidArgumentError(
        absl::StrCat("the socket's path has ", path.size(), " bytes; expected 1 to ",
                     sizeof(address.sun_path) - 1, " (a limit of the system): ", path,
                     "; hint: set `socket:` in lockstepd.yaml to a shorter path"));
  }
  std::memcpy(address.sun_path, path.data(), path.size());
  const std::filesystem::path folder = options_.path.parent_path();
  std::error_code error;
  if (!folder.empty() && !std::filesystem::exists(folder, error)) {
    std::filesystem::create_directories(folder.parent_path(), error);
    if (mkdir(folder.c_str(), 0700) != 0 && errno != EEXIST) {
      return SystemError(errno, absl::StrCat("making the socket's folder ", folder.string()));
    }
  }
  struct stat info {};
  if (lstat(path.c_str(), &info) == 0) {
    if (!S_ISSOCK(info.st_mode)) {
      return absl::AlreadyExistsError(
          absl::StrCat("cannot listen at ", path, ": there is something that is not a socket"));
    }
    unlink(path.c_str());
  }
  listener_ = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  wake_ = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  reserve_ = OpenReserve();
  if (listener_ < 0 || wake_ < 0 || reserve_ < 0) return SystemError(errno, "making a socket");
  if (bind(listener_, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
    return SystemError(errno, absl::StrCat("binding ", path));
  }
  // Nobody can connect before listen(), so nobody slips in before the rights are set.
  const bool ok =
      (!options_.group || chown(path.c_str(), static_cast<uid_t>(-1), *options_.group) == 0) &&
      chmod(path.c_str(), options_.group ? 0660 : 0600) == 0 && lstat(path.c_str(), &info) == 0 &&
      listen(listener_, kBacklog) == 0;
  if (!ok) return SystemError(errno, absl::StrCat("listening at ", path));
  inode_ = info.st_ino;
  return absl::OkStatus();
}

SocketListener::~SocketListener() {
  StopAccepting();
  struct stat info {};
  if (inode_ != 0 && lstat(options_.path.c_str(), &info) == 0 && info.st_ino == inode_) {
    unlink(options_.path.c_str());
  }
  for (const int fd : {listener_, wake_, reserve_}) {
    if (fd >= 0) close(fd);
  }
}

void SocketListener::Serve(grpc::Server* server) {
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);  // Signals are the main thread's.
  thread_ = std::jthread([this, server](const std::stop_token& stop) { AcceptLoop(stop, server); });
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

void SocketListener::StopAccepting() {
  if (!thread_.joinable()) return;
  thread_.request_stop();
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t n = write(wake_, &one, sizeof(one));
  thread_.join();
}

void SocketListener::AcceptLoop(const std::stop_token& stop, grpc::Server* server) {
  std::array<pollfd, 2> waiting = {{{listener_, POLLIN, 0}, {wake_, POLLIN, 0}}};
  while (!stop.stop_requested()) {
    if (poll(waiting.data(), waiting.size(), -1) < 0 && errno != EINTR) return;
    if (stop.stop_requested()) return;
    const int fd = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd >= 0) {
      Admit(fd, server);
      continue;
    }
    switch (errno) {
      case EAGAIN:
      case EINTR:
      case ECONNABORTED:
        break;
      case EMFILE:
      case ENFILE:
      case ENOBUFS:
      case ENOMEM:
        TurnAwayWaiting();
        // Without a pause the loop would spin for as long as others hold the descriptors.
        poll(&waiting[1], 1, kFullPauseMs);
        break;
      default:
        spdlog::error("accepting at {}: {}", options_.path.string(), std::strerror(errno));
        poll(&waiting[1], 1, kFullPauseMs);
    }
  }
}

void SocketListener::Admit(int fd, grpc::Server* server) {
  if (!MayConnect(fd)) {
    ++turned_away_;
    close(fd);
    return;
  }
  if (static_cast<int>(open_.size()) >= ConnectionLimit(options_.max_connections)) {
    CountConnections();
    if (static_cast<int>(open_.size()) >= ConnectionLimit(options_.max_connections)) {
      ++turned_away_;
      close(fd);
      return;
    }
  }
  open_.push_back({fd, InodeOf(fd)});
  connections_ = static_cast<int>(open_.size());
  grpc::AddInsecureChannelFromFd(server, fd);
}

// With no descriptor left a caller would wait in the backlog for ever: give the reserve up, close
// those who wait, take the reserve back. Where another thread is quicker at taking it, callers wait
// until there is one again.
void SocketListener::TurnAwayWaiting() {
  if (reserve_ >= 0) close(reserve_);
  while (true) {
    const int fd = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0) break;
    ++turned_away_;
    close(fd);
  }
  reserve_ = OpenReserve();
}

bool SocketListener::MayConnect(int fd) const {
  const std::optional<ucred> peer = Credentials(fd);
  if (!peer) return false;
  if (peer->uid == 0 || peer->uid == geteuid()) return true;
  return options_.group && (peer->gid == *options_.group || IsInGroup(fd, *options_.group));
}

// gRPC closes a connection without telling us: one is still there when its descriptor is still the
// same socket.
void SocketListener::CountConnections() {
  open_.erase(std::remove_if(open_.begin(), open_.end(),
                             [](const Connection& connection) {
                               return InodeOf(connection.fd) != connection.inode;
                             }),
              open_.end());
  connections_ = static_cast<int>(open_.size());
}

std::optional<PeerCredentials> PeerOf(const std::string& grpc_peer) {
  // gRPC 1.51 calls a connection that it was handed "fd:N"; while the call lasts, N is that
  // connection.
  absl::string_view rest = grpc_peer;
  int fd = -1;
  if (!absl::ConsumePrefix(&rest, "fd:") || !absl::SimpleAtoi(rest, &fd) || fd < 0) {
    return std::nullopt;
  }
  const std::optional<ucred> peer = Credentials(fd);
  if (!peer) return std::nullopt;
  return PeerCredentials{peer->pid, peer->uid, peer->gid};
}

std::string UserName(uid_t uid) {
  std::array<char, 4096> buffer;
  passwd entry{};
  passwd* found = nullptr;
  if (getpwuid_r(uid, &entry, buffer.data(), buffer.size(), &found) == 0 && found != nullptr) {
    return entry.pw_name;
  }
  return absl::StrCat("uid ", uid);
}

}  // namespace lockstep::launch
