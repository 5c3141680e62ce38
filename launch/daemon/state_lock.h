// One daemon per state folder: flock() on state_dir/lock, held for life. The file has the holder's
// pid. Also: who holds a TCP port, for the message when it is taken.
#pragma once

#include <filesystem>
#include <string>

#include "absl/status/statusor.h"

namespace lockstep::launch {

class StateLock {
 public:
  /// ALREADY_EXISTS: another daemon has it; the message names its pid.
  static absl::StatusOr<StateLock> Take(const std::filesystem::path& state_dir);

  StateLock(StateLock&& other) noexcept;
  StateLock& operator=(StateLock&&) = delete;
  ~StateLock();  // Gives it back. A process that dies gives it back too.

 private:
  explicit StateLock(int fd) : fd_(fd) {}
  int fd_ = -1;
};

/// "pid 4711 (prometheus)" of the process that listens on the TCP port of this host; empty when it
/// cannot be seen.
std::string PortOwner(int port);

}  // namespace lockstep::launch
