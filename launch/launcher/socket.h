// The coordinator's Unix socket: who may connect, who called, and that it never stops listening.
//
// gRPC's own listener (1.51) accepts nothing more once it has run out of file descriptors, and says
// nothing of its callers. So the socket has an accept loop of its own on a thread of its own, which
// asks the kernel for the peer (SO_PEERCRED) and hands accepted connections to the gRPC server.
//
// Admitted are the owner of this process, root, and members of one configured group. A connection
// beyond the limit, or without a file descriptor left, is closed at once: the client sees
// UNAVAILABLE and tries again, and the daemon keeps descriptors for its own work. The listener is
// back as soon as others have gone.
//
// A caller that connects and says nothing holds its place until it goes, unless the server hangs up
// on it: build the server with GRPC_ARG_MAX_CONNECTION_IDLE_MS (it counts for these connections
// too; streams and calls in progress are not idle).
//
// Order of use: take the lock of the state folder (only its holder may replace a socket file that
// is there), Open, build the server (it needs no port), Serve; at the end StopAccepting, shut the
// server down, destroy this.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/statusor.h"

namespace grpc {
class Server;
}

namespace lockstep::launch {

struct PeerCredentials {
  pid_t pid = 0;  // As it was when it connected.
  uid_t uid = 0;
  gid_t gid = 0;
};

struct SocketOptions {
  std::filesystem::path path;
  std::optional<gid_t> group;  // Its members are admitted too: the file becomes theirs, mode 0660.
  int max_connections = 1024;  // And never so many that fewer than 64 descriptors are left.
};

class SocketListener {
 public:
  /// Makes the folder (mode 0700) when it is not there, replaces a socket file that is, binds and
  /// listens. INVALID_ARGUMENT: a path longer than 107 bytes. ALREADY_EXISTS: something that is no
  /// socket is there. Others: the system's.
  static absl::StatusOr<std::unique_ptr<SocketListener>> Open(SocketOptions options);

  /// Removes the socket file if it is still ours. Connections that were accepted stay the server's.
  ~SocketListener();
  SocketListener(const SocketListener&) = delete;
  SocketListener& operator=(const SocketListener&) = delete;

  /// Starts accepting into `server`, which must live until StopAccepting. Once.
  void Serve(grpc::Server* server);
  void StopAccepting();

  int connections() const { return connections_; }  // At most that many are open.
  int64_t turned_away() const { return turned_away_; }

 private:
  explicit SocketListener(SocketOptions options) : options_(std::move(options)) {}
  absl::Status Bind();
  void AcceptLoop(const std::stop_token& stop, grpc::Server* server);
  void Admit(int fd, grpc::Server* server);
  void TurnAwayWaiting();
  bool MayConnect(int fd) const;
  void CountConnections();

  struct Connection {
    int fd;
    uint64_t inode;  // Tells it from a later file with the same descriptor.
  };

  const SocketOptions options_;
  int listener_ = -1;
  int wake_ = -1;     // An eventfd that ends the accept loop.
  int reserve_ = -1;  // Given up for a moment to turn a caller away when no descriptor is left.
  uint64_t inode_ = 0;
  std::atomic<int> connections_{0};
  std::atomic<int64_t> turned_away_{0};
  std::vector<Connection> open_;  // Only the accept loop's.
  std::jthread thread_;
};

/// Who called, from ServerContext::peer() of a call in progress that came in through a
/// SocketListener; nothing for a call that came another way (TCP).
std::optional<PeerCredentials> PeerOf(const std::string& grpc_peer);

/// The user's name, or "uid 1000" when the system has none for it.
std::string UserName(uid_t uid);

}  // namespace lockstep::launch
