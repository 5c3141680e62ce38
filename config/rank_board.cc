#include "config/rank_board.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <bit>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <fstream>
#include <iterator>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"

namespace lockstep::config {
namespace {

// The file: one 64-byte header, then one 64-byte slot (a cache line, so that ranks do not disturb
// each other) per rank, all integers in the host's byte order: the file never leaves its host.
constexpr size_t kLine = 64;
constexpr uint64_t kMagic = 0x31445242504b434cull;  // "LCKPBRD1" in memory.
constexpr uint32_t kVersion = 1;
constexpr int kLargestWorld = 1 << 16;

struct alignas(kLine) Header {
  std::atomic<uint64_t> magic;
  std::atomic<uint64_t> version_and_world_size;
};
static_assert(sizeof(Header) == kLine);
static_assert(std::atomic<uint64_t>::is_always_lock_free);

constexpr uint64_t Stamp(int world_size) {
  return (static_cast<uint64_t>(kVersion) << 32) | static_cast<uint32_t>(world_size);
}

constexpr size_t FileBytes(int world_size) {
  return kLine * (1 + static_cast<size_t>(world_size));
}

double MonotonicSeconds() {
  timespec now = {};
  clock_gettime(CLOCK_MONOTONIC, &now);  // Answered without a system call.
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

// Field 22 of /proc/self/stat; 0 when it cannot be read. The second field, the program's name in
// parentheses, may hold spaces and parentheses itself: count from the last ')'.
uint64_t OwnStartTimeTicks() {
  std::ifstream file("/proc/self/stat");
  const std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  const size_t name_end = text.rfind(')');
  if (name_end == std::string::npos) return 0;
  const std::vector<absl::string_view> fields =
      absl::StrSplit(absl::string_view(text).substr(name_end + 1), ' ', absl::SkipEmpty());
  uint64_t ticks = 0;
  constexpr size_t kStartTime = 22 - 3;  // The first field after the name is the third.
  if (fields.size() <= kStartTime || !absl::SimpleAtoi(fields[kStartTime], &ticks)) return 0;
  return ticks;
}

absl::Status Failed(int error, absl::string_view doing, const std::filesystem::path& path) {
  return absl::ErrnoToStatus(error,
                             absl::StrCat("cannot ", doing, " the rank board ", path.string()));
}

// Sets `value` where nobody did yet; false when somebody set another one.
bool SetOrEqual(std::atomic<uint64_t>& place, uint64_t value) {
  uint64_t found = 0;
  return place.compare_exchange_strong(found, value) || found == value;
}

// Gives the file its full size with room on the disk: writing into a hole of a mapped file ends the
// process with SIGBUS when the disk is full. Growing is idempotent, so any number of ranks may do
// it.
int Allocate(int fd, size_t bytes) {
  int result = 0;
  do {
    result = fallocate(fd, 0, 0, static_cast<off_t>(bytes));
  } while (result != 0 && errno == EINTR);
  if (result != 0 && errno == EOPNOTSUPP) result = ftruncate(fd, static_cast<off_t>(bytes));
  return result == 0 ? 0 : errno;
}

}  // namespace

// Every field is an atomic of its own, written and read in any order.
struct alignas(kLine) RankBoard::Slot {
  std::atomic<int64_t> pid;
  std::atomic<uint64_t> start_time_ticks;
  std::atomic<int64_t> step;
  std::atomic<int64_t> phase;
  std::atomic<uint64_t> collectives;
  std::atomic<uint64_t> updated_seconds_bits;

  void Touch() {
    updated_seconds_bits.store(std::bit_cast<uint64_t>(MonotonicSeconds()),
                               std::memory_order_relaxed);
  }
};

const char* PhaseName(Phase phase) {
  switch (phase) {
    case Phase::kStartup:
      return "startup";
    case Phase::kDataWait:
      return "data_wait";
    case Phase::kH2d:
      return "h2d";
    case Phase::kForward:
      return "forward";
    case Phase::kBackward:
      return "backward";
    case Phase::kAllreduceExposed:
      return "allreduce_exposed";
    case Phase::kOptimizer:
      return "optimizer";
    case Phase::kCheckpointStall:
      return "checkpoint_stall";
    case Phase::kEval:
      return "eval";
    case Phase::kRecovery:
      return "recovery";
    case Phase::kPaused:
      return "paused";
    case Phase::kOther:
      return "other";
    case Phase::kDevice:
      return "device";
  }
  return "other";
}

absl::StatusOr<RankBoard> RankBoard::Open(const std::filesystem::path& path, int world_size) {
  if (world_size < 1 || world_size > kLargestWorld) {
    return absl::InvalidArgumentError(
        absl::StrCat("a rank board holds 1 to ", kLargestWorld, " ranks, not ", world_size));
  }
  const size_t bytes = FileBytes(world_size);
  const int fd = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
  if (fd < 0) return Failed(errno, "create", path);
  const auto close_file = absl::MakeCleanup([fd] { close(fd); });
  struct stat status = {};
  if (fstat(fd, &status) != 0) return Failed(errno, "look at", path);
  if (status.st_size != 0 && static_cast<size_t>(status.st_size) != bytes) {
    return absl::FailedPreconditionError(
        absl::StrCat("the rank board ", path.string(), " has ", status.st_size, " bytes; ", bytes,
                     " expected for ", world_size, " ranks: it belongs to another world"));
  }
  if (const int error = Allocate(fd, bytes); error != 0) return Failed(error, "grow", path);

  void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (memory == MAP_FAILED) return Failed(errno, "map", path);
  RankBoard board(reinterpret_cast<Slot*>(static_cast<char*>(memory) + kLine), world_size);
  // Every rank writes the same two words, so it does not matter which one comes first.
  Header* header = static_cast<Header*>(memory);
  if (!SetOrEqual(header->magic, kMagic) ||
      !SetOrEqual(header->version_and_world_size, Stamp(world_size))) {
    return absl::FailedPreconditionError(absl::StrCat(path.string(),
                                                      " is not a rank board of version ", kVersion,
                                                      " for ", world_size, " ranks"));
  }
  return board;
}

RankBoard::RankBoard(RankBoard&& other) noexcept
    : slots_(std::exchange(other.slots_, nullptr)),
      world_size_(std::exchange(other.world_size_, 0)) {}

RankBoard& RankBoard::operator=(RankBoard&& other) noexcept {
  std::swap(slots_, other.slots_);
  std::swap(world_size_, other.world_size_);
  return *this;
}

RankBoard::~RankBoard() {
  static_assert(sizeof(Slot) == kLine);
  if (slots_ != nullptr) munmap(reinterpret_cast<char*>(slots_) - kLine, FileBytes(world_size_));
}

RankBoard::Slot& RankBoard::At(int rank) {
  if (rank < 0 || rank >= world_size_) {
    std::fprintf(stderr, "rank %d is not on a board of %d ranks\n", rank, world_size_);
    std::abort();
  }
  return slots_[rank];
}

void RankBoard::Claim(int rank) {
  Slot& slot = At(rank);
  slot.start_time_ticks.store(OwnStartTimeTicks(), std::memory_order_relaxed);
  slot.phase.store(static_cast<int64_t>(Phase::kStartup), std::memory_order_relaxed);
  slot.Touch();
  // Last: a slot with a pid has the rest.
  slot.pid.store(getpid(), std::memory_order_release);
}

void RankBoard::Set(int rank, int64_t step, Phase phase) {
  Slot& slot = At(rank);
  slot.step.store(step, std::memory_order_relaxed);
  slot.phase.store(static_cast<int64_t>(phase), std::memory_order_relaxed);
  slot.Touch();
}

void RankBoard::CountCollective(int rank) {
  Slot& slot = At(rank);
  slot.collectives.fetch_add(1, std::memory_order_relaxed);
  slot.Touch();
}

absl::StatusOr<std::vector<RankState>> RankBoard::Read(const std::filesystem::path& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC);
  if (fd < 0) return Failed(errno, "open", path);
  const auto close_file = absl::MakeCleanup([fd] { close(fd); });
  // Read, not mapped: a file that is cut short meanwhile is an error here, not a SIGBUS.
  std::string bytes;
  char buffer[1 << 14];
  while (bytes.size() <= FileBytes(kLargestWorld)) {
    const ssize_t count = read(fd, buffer, sizeof(buffer));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return Failed(errno, "read", path);
    if (count == 0) break;
    bytes.append(buffer, static_cast<size_t>(count));
  }
  const auto word = [&bytes](size_t offset) {
    uint64_t value = 0;
    std::memcpy(&value, bytes.data() + offset, sizeof(value));
    return value;
  };
  if (bytes.size() < kLine || bytes.size() % kLine != 0 || word(0) != kMagic ||
      word(8) != Stamp(static_cast<int>(bytes.size() / kLine) - 1)) {
    return absl::FailedPreconditionError(
        absl::StrCat(path.string(), " is not a rank board of version ", kVersion));
  }
  std::vector<RankState> ranks(bytes.size() / kLine - 1);
  for (size_t rank = 0; rank < ranks.size(); ++rank) {
    const size_t slot = kLine * (1 + rank);
    const auto phase = word(slot + offsetof(Slot, phase));
    ranks[rank] = {
        .rank = static_cast<int>(rank),
        .pid = static_cast<int64_t>(word(slot + offsetof(Slot, pid))),
        .start_time_ticks = word(slot + offsetof(Slot, start_time_ticks)),
        .step = static_cast<int64_t>(word(slot + offsetof(Slot, step))),
        .phase = phase < kPhaseCount ? static_cast<Phase>(phase) : Phase::kOther,
        .collectives = word(slot + offsetof(Slot, collectives)),
        .updated_seconds = std::bit_cast<double>(word(slot + offsetof(Slot, updated_seconds_bits))),
    };
  }
  return ranks;
}

}  // namespace lockstep::config
