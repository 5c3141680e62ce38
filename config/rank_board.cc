#include "config/rank_board.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <bit>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <fstream>
#include <iterator>
#include <thread>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"

namespace lockstep::config {
namespace {

// The file: one 64-byte header, then one slot per rank (whole cache lines, so that ranks do not
// disturb each other), all integers in the host's byte order: the file never leaves its host.
constexpr size_t kLine = 64;
constexpr size_t kSlotBytes = 4 * kLine;
constexpr uint64_t kMagic = 0x31445242504b434cull;  // "LCKPBRD1" in memory.
constexpr uint32_t kVersion = 2;
constexpr int kLargestWorld = 1 << 16;
constexpr int kReadRounds = 100;
constexpr int kEagerRounds = 20;  // Of those; the others wait for a writer that lost its core.
constexpr auto kReadPause = std::chrono::microseconds(20);

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
  return kLine + kSlotBytes * static_cast<size_t>(world_size);
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

  // RankTime, between two increments of `time_sequence`: odd while it is being written.
  std::atomic<uint64_t> time_sequence;
  std::atomic<int64_t> open_phase;
  std::atomic<uint64_t> entered_seconds_bits;
  std::atomic<uint64_t> unsettled_seconds_bits;
  std::atomic<uint64_t> phase_seconds_bits[kPhaseCount];

  std::atomic<int64_t> loaded_samples;
  std::atomic<int64_t> replaced_samples;
  std::atomic<int64_t> loaded_bytes;

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
    case Phase::kStragglerWait:
      return "straggler_wait";
    case Phase::kRedone:
      return "redone";
  }
  return "other";
}

Phase ParsePhase(std::string_view name) {
  for (int i = 0; i < kPhaseCount; ++i) {
    if (name == PhaseName(static_cast<Phase>(i))) return static_cast<Phase>(i);
  }
  return Phase::kOther;
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
  static_assert(sizeof(Slot) == kSlotBytes);
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

void RankBoard::SetTime(int rank, const RankTime& time) {
  Slot& slot = At(rank);
  const auto put = [](std::atomic<uint64_t>& place, double seconds) {
    place.store(std::bit_cast<uint64_t>(seconds), std::memory_order_relaxed);
  };
  const uint64_t sequence = slot.time_sequence.load(std::memory_order_relaxed);
  slot.time_sequence.store(sequence | 1, std::memory_order_relaxed);
  std::atomic_thread_fence(std::memory_order_release);
  slot.open_phase.store(static_cast<int64_t>(time.open_phase), std::memory_order_relaxed);
  put(slot.entered_seconds_bits, time.entered_seconds);
  put(slot.unsettled_seconds_bits, time.unsettled_seconds);
  for (size_t i = 0; i < time.phase_seconds.size(); ++i) {
    put(slot.phase_seconds_bits[i], time.phase_seconds[i]);
  }
  slot.time_sequence.store((sequence | 1) + 1, std::memory_order_release);
}

void RankBoard::SetLoaded(int rank, int64_t samples, int64_t replaced, int64_t bytes) {
  Slot& slot = At(rank);
  slot.loaded_samples.store(samples, std::memory_order_relaxed);
  slot.replaced_samples.store(replaced, std::memory_order_relaxed);
  slot.loaded_bytes.store(bytes, std::memory_order_relaxed);
}

void RankBoard::CountCollective(int rank) {
  Slot& slot = At(rank);
  slot.collectives.fetch_add(1, std::memory_order_relaxed);
  slot.Touch();
}

// Out of the anonymous namespace because Slot is the board's own.
struct RankBoard::Reader {
  // Read, not mapped: a file that is cut short meanwhile is an error here, not a SIGBUS.
  static absl::StatusOr<std::string> Bytes(int fd, const std::filesystem::path& path) {
    std::string bytes;
    char buffer[1 << 14];
    while (bytes.size() <= FileBytes(kLargestWorld)) {
      const ssize_t count = pread(fd, buffer, sizeof(buffer), static_cast<off_t>(bytes.size()));
      if (count < 0 && errno == EINTR) continue;
      if (count < 0) return Failed(errno, "read", path);
      if (count == 0) break;
      bytes.append(buffer, static_cast<size_t>(count));
    }
    const size_t slots = bytes.size() < kLine ? 0 : (bytes.size() - kLine) / kSlotBytes;
    if (bytes.size() < kLine || bytes.size() != FileBytes(static_cast<int>(slots)) ||
        Word(bytes, 0) != kMagic || Word(bytes, 8) != Stamp(static_cast<int>(slots))) {
      return absl::FailedPreconditionError(
          absl::StrCat(path.string(), " is not a rank board of version ", kVersion));
    }
    return bytes;
  }

  static uint64_t Word(const std::string& bytes, size_t offset) {
    uint64_t value = 0;
    std::memcpy(&value, bytes.data() + offset, sizeof(value));
    return value;
  }

  static uint64_t Sequence(const std::string& bytes, size_t rank) {
    return Word(bytes, kLine + kSlotBytes * rank + offsetof(Slot, time_sequence));
  }

  static RankState State(const std::string& bytes, size_t rank) {
    const size_t slot = kLine + kSlotBytes * rank;
    const auto integer = [&](size_t offset) {
      return static_cast<int64_t>(Word(bytes, slot + offset));
    };
    const auto seconds = [&](size_t offset) {
      return std::bit_cast<double>(Word(bytes, slot + offset));
    };
    const auto phase = [&](size_t offset) {
      const uint64_t value = Word(bytes, slot + offset);
      return value < kPhaseCount ? static_cast<Phase>(value) : Phase::kOther;
    };
    RankState state;
    state.rank = static_cast<int>(rank);
    state.pid = integer(offsetof(Slot, pid));
    state.start_time_ticks = Word(bytes, slot + offsetof(Slot, start_time_ticks));
    state.step = integer(offsetof(Slot, step));
    state.phase = phase(offsetof(Slot, phase));
    state.collectives = Word(bytes, slot + offsetof(Slot, collectives));
    state.updated_seconds = seconds(offsetof(Slot, updated_seconds_bits));
    for (size_t i = 0; i < state.phase_seconds.size(); ++i) {
      state.phase_seconds[i] = seconds(offsetof(Slot, phase_seconds_bits) + i * sizeof(uint64_t));
    }
    state.unsettled_seconds = seconds(offsetof(Slot, unsettled_seconds_bits));
    state.entered_seconds = seconds(offsetof(Slot, entered_seconds_bits));
    state.open_phase = phase(offsetof(Slot, open_phase));
    state.loaded_samples = integer(offsetof(Slot, loaded_samples));
    state.replaced_samples = integer(offsetof(Slot, replaced_samples));
    state.loaded_bytes = integer(offsetof(Slot, loaded_bytes));
    return state;
  }
};

absl::StatusOr<std::vector<RankState>> RankBoard::Read(const std::filesystem::path& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC);
  if (fd < 0) return Failed(errno, "open", path);
  const auto close_file = absl::MakeCleanup([fd] { close(fd); });
  std::vector<RankState> ranks;
  std::vector<bool> settled;
  // A slot counts when its sequence is even and the same before, in and after what is taken. A rank
  // that died while it wrote stays odd: then what is there must do.
  for (int round = 0; round < kReadRounds; ++round) {
    if (round >= kEagerRounds) std::this_thread::sleep_for(kReadPause);
    const auto before = Reader::Bytes(fd, path);
    if (!before.ok()) return before.status();
    const auto bytes = Reader::Bytes(fd, path);
    if (!bytes.ok()) return bytes.status();
    const auto after = Reader::Bytes(fd, path);
    if (!after.ok()) return after.status();
    if (before->size() != bytes->size() || after->size() != bytes->size()) continue;
    ranks.resize((bytes->size() - kLine) / kSlotBytes);
    settled.resize(ranks.size());
    bool all = true;
    for (size_t rank = 0; rank < ranks.size(); ++rank) {
      if (settled[rank]) continue;
      const uint64_t sequence = Reader::Sequence(*bytes, rank);
      settled[rank] = sequence % 2 == 0 && sequence == Reader::Sequence(*before, rank) &&
                      sequence == Reader::Sequence(*after, rank);
      ranks[rank] = Reader::State(*bytes, rank);
      all = all && settled[rank];
    }
    if (all) break;
  }
  return ranks;
}

}  // namespace lockstep::config
