#include "config/frame.h"

#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <limits>

#include "absl/strings/str_cat.h"

namespace lockstep::config {
namespace {

constexpr size_t kLengthBytes = 4;
constexpr size_t kReadBytes = 256u << 10;

absl::Status Gone(const char* what) {
  return absl::UnavailableError(absl::StrCat(what, ": ", strerror(errno)));
}

// Until the socket is ready for `events`.
absl::Status Await(int socket, short events, FrameDeadline deadline) {
  for (;;) {
    int wait_ms = -1;
    if (deadline != kNoDeadline) {
      const auto left =
          std::chrono::ceil<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
      wait_ms = static_cast<int>(std::clamp<int64_t>(left.count(), 0, 1 << 30));
    }
    pollfd one{socket, events, 0};
    const int ready = poll(&one, 1, wait_ms);
    if (ready > 0) return absl::OkStatus();
    if (ready == 0) return absl::DeadlineExceededError("no answer in time");
    if (errno != EINTR) return Gone("waiting");
  }
}

absl::Status WriteAll(int socket, std::string_view bytes, FrameDeadline deadline) {
  while (!bytes.empty()) {
    const ssize_t written = send(socket, bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (written >= 0) {
      bytes.remove_prefix(static_cast<size_t>(written));
      continue;
    }
    if (errno == EINTR) continue;
    if (errno != EAGAIN && errno != EWOULDBLOCK) return Gone("writing");
    if (absl::Status ready = Await(socket, POLLOUT, deadline); !ready.ok()) return ready;
  }
  return absl::OkStatus();
}

size_t LengthOf(const std::string& buffer) {
  uint32_t length = 0;
  for (size_t i = 0; i < kLengthBytes; ++i) {
    length |= static_cast<uint32_t>(static_cast<uint8_t>(buffer[i])) << (8 * i);
  }
  return length;
}

}  // namespace

absl::Status WriteFrame(int socket, std::string_view message, FrameDeadline deadline) {
  if (message.size() > std::numeric_limits<uint32_t>::max()) {
    return absl::InvalidArgumentError("a frame holds less than 4 GiB");
  }
  std::array<char, kLengthBytes> length{};
  for (size_t i = 0; i < kLengthBytes; ++i) {
    length[i] = static_cast<char>(message.size() >> (8 * i));
  }
  absl::Status status = WriteAll(socket, {length.data(), length.size()}, deadline);
  if (status.ok()) status = WriteAll(socket, message, deadline);
  return status;
}

// Until the buffer holds `size` bytes.
absl::Status FrameReader::Fill(size_t size, FrameDeadline deadline) {
  while (buffer_.size() < size) {
    const size_t before = buffer_.size();
    buffer_.resize(before + std::min(kReadBytes, size - before));
    const ssize_t got =
        recv(socket_, buffer_.data() + before, buffer_.size() - before, MSG_DONTWAIT);
    const int error = errno;
    buffer_.resize(before + static_cast<size_t>(std::max<ssize_t>(got, 0)));
    if (got > 0) continue;
    if (got == 0) {
      return before == 0 ? absl::UnavailableError("the other end has closed")
                         : absl::DataLossError("the other end closed in the middle of a message");
    }
    if (error == EINTR) continue;
    if (error != EAGAIN && error != EWOULDBLOCK) {
      return absl::UnavailableError(absl::StrCat("reading: ", strerror(error)));
    }
    if (absl::Status ready = Await(socket_, POLLIN, deadline); !ready.ok()) return ready;
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> FrameReader::Read(FrameDeadline deadline) {
  if (absl::Status status = Fill(kLengthBytes, deadline); !status.ok()) return status;
  const size_t length = LengthOf(buffer_);
  if (length > max_bytes_) {
    return absl::DataLossError(
        absl::StrCat("a message of ", length, " bytes; at most ", max_bytes_, " are taken"));
  }
  if (absl::Status status = Fill(kLengthBytes + length, deadline); !status.ok()) return status;
  std::string message = buffer_.substr(kLengthBytes);
  buffer_.clear();
  return message;
}

}  // namespace lockstep::config
