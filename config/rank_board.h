// A small file, attempt-N/board, mapped into memory by every rank of one host: each rank writes
// what it is doing into its own slot, anyone may read all of them at any time, also after a rank
// has stopped answering. It is also where the ledger reads each rank's time from: totals by phase,
// there whatever happened to the rank, the link or the coordinator.
//
// This is how a hang gets a name: the coordinator, whose only link leads to rank 0, reads here
// which rank is behind and in which phase, and finds the process ids to look at and to kill, even
// after it was restarted itself. Writing costs a few plain stores (no system call). A reader may
// see one slot's hints from two moments, and its RankTime from one; neither is ever input to
// training.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace lockstep::config {

// Where a rank's time goes. The names are the `phase` label of the metrics, in this order.
enum class Phase : int {
  kStartup,
  kDataWait,
  kH2d,
  kForward,
  kBackward,
  kAllreduceExposed,
  kOptimizer,
  kCheckpointStall,
  kEval,
  kRecovery,
  kPaused,
  kOther,
  kDevice,         // GPU: the host waits for kernels, and no times tell which.
  kStragglerWait,  // The part of all-reduce in which the slowest rank was waited for.
  kRedone,         // Steps that an earlier attempt had made and lost.
};
inline constexpr int kPhaseCount = 15;
const char* PhaseName(Phase phase);       // "startup", "data_wait", …
Phase ParsePhase(std::string_view name);  // `other` where no phase has this name.

struct RankState {
  int rank = -1;
  int64_t pid = 0;
  uint64_t start_time_ticks =
      0;             // Field 22 of /proc/PID/stat: tells a process from a later one with its pid.
  int64_t step = 0;  // Step the rank is working on (0-based).
  Phase phase = Phase::kStartup;
  uint64_t collectives = 0;    // All-reduces, broadcasts and barriers entered.
  double updated_seconds = 0;  // CLOCK_MONOTONIC of the last change, in seconds.

  // Where the time since the process started went: finished phases, the time whose phase is not
  // settled yet, and the open phase since `entered_seconds` (CLOCK_MONOTONIC), which counts as
  // `open_phase`. Of one moment, unless the rank died in the middle of writing.
  std::array<double, kPhaseCount> phase_seconds{};
  double unsettled_seconds = 0;
  double entered_seconds = 0;
  Phase open_phase = Phase::kStartup;

  // What the rank read from the data set: samples, those of them that stood in for bad ones, bytes.
  int64_t loaded_samples = 0;
  int64_t replaced_samples = 0;
  int64_t loaded_bytes = 0;
};

// The part of a slot that must be of one moment.
struct RankTime {
  Phase open_phase = Phase::kStartup;
  double entered_seconds = 0;
  double unsettled_seconds = 0;
  std::array<double, kPhaseCount> phase_seconds{};
};

class RankBoard {
 public:
  /// Creates or opens the file for `world_size` ranks. Any rank may come first.
  static absl::StatusOr<RankBoard> Open(const std::filesystem::path& path, int world_size);

  RankBoard(RankBoard&& other) noexcept;
  RankBoard& operator=(RankBoard&& other) noexcept;
  ~RankBoard();

  void Claim(int rank);  // Writes pid and start time of the calling process into the rank's slot.
  void Set(int rank, int64_t step, Phase phase);
  void CountCollective(int rank);
  void SetTime(int rank, const RankTime& time);
  void SetLoaded(int rank, int64_t samples, int64_t replaced, int64_t bytes);

  /// A copy of every slot; slots nobody claimed have pid 0.
  static absl::StatusOr<std::vector<RankState>> Read(const std::filesystem::path& path);

 private:
  struct Slot;
  struct Reader;
  Slot& At(int rank);  // Aborts on a rank that is not on the board.
  RankBoard(Slot* slots, int world_size) : slots_(slots), world_size_(world_size) {}
  Slot* slots_ = nullptr;
  int world_size_ = 0;
};

}  // namespace lockstep::config
