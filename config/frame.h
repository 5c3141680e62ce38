// Messages over a stream socket: four bytes of length, little-endian, then so many bytes. What
// lockstepd and `lockstep-trainer serve` speak with each other (proto/lockstep/v1/predict.proto
// says what is in a frame).
//
// Strict: a length above the reader's limit, or an end in the middle of a frame, is DATA_LOSS, and
// the socket is of no more use. Nothing is allocated before its bytes arrive. Sockets only (no
// signal is raised when the other end has gone); blocking or not makes no difference. After a write
// that ran past its deadline the socket is of no more use either; a read can be taken up again.
#pragma once

#include <chrono>
#include <cstddef>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace lockstep::config {

using FrameDeadline = std::chrono::steady_clock::time_point;
inline constexpr FrameDeadline kNoDeadline = FrameDeadline::max();

/// UNAVAILABLE = the other end has gone; DEADLINE_EXCEEDED; INVALID_ARGUMENT = 4 GiB or more.
absl::Status WriteFrame(int socket, std::string_view message, FrameDeadline deadline);

// Reads frames one after another; keeps what has come of the next one, so that a read that ran past
// its deadline can be taken up again.
class FrameReader {
 public:
  FrameReader(int socket, size_t max_bytes) : socket_(socket), max_bytes_(max_bytes) {}

  /// UNAVAILABLE = the other end closed, between frames; DATA_LOSS = in the middle of one, or a
  /// length above the limit; DEADLINE_EXCEEDED = nothing is lost, call again.
  absl::StatusOr<std::string> Read(FrameDeadline deadline);

 private:
  absl::Status Fill(size_t size, FrameDeadline deadline);

  int socket_;
  size_t max_bytes_;
  std::string buffer_;  // The frame's length and what has come of it.
};

}  // namespace lockstep::config
