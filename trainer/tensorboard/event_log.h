// A run's TensorBoard event files: DIR/tensorboard/events.out.tfevents.<unix>.<host>.<pid>.<n>, one
// per attempt, oldest first in the order of their names, each event in exactly one of them however
// often the run dies.
//
// A checkpoint of step S remembers file and length (EventPosition). Whoever goes on from it cuts
// that file back to this length, empties the files of attempts that came after, and begins a new
// file that opens with SessionLog START at S + 1: a TensorBoard that is open meanwhile drops what
// it has read of later steps. Files are emptied and not removed, because TensorBoard's reader never
// leaves a file that has gone. An evaluation that was still to be made at S comes after the start:
// where it had been made once and lost with a crash, an open TensorBoard keeps both points, which
// are the same.
//
// Nothing here throws or stops a run. While a file cannot be written (the disk is full) points wait
// in memory, up to kMostWaitingBytes; more than that, or a folder that cannot be made, turns the
// log off for this attempt. Each with one warning. Not thread-safe, but for Sync().
#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "trainer/tensorboard/event.h"
#include "trainer/tensorboard/record_file.h"

namespace lockstep::trainer {

// Some thousand logged steps.
inline constexpr size_t kMostWaitingBytes = 4 << 20;

// What belongs to a checkpoint.
struct EventPosition {
  std::string file;   // Name in the folder; empty: none has been written.
  int64_t bytes = 0;  // Its length.

  bool operator==(const EventPosition&) const = default;
};

class EventLog {
 public:
  /// Goes on after step `step`, of which `from` is the position. `folder` is made when there is
  /// something to write; a file is begun with the first event.
  EventLog(std::filesystem::path folder, EventPosition from, int64_t step,
           std::function<void(const std::string&)> warn);
  ~EventLog();  // Flushes.
  EventLog(const EventLog&) = delete;
  EventLog& operator=(const EventLog&) = delete;

  /// Has the run written nothing yet that is still there?
  bool fresh() const { return position_.file.empty(); }
  /// Adds the values of one step. Handed to the kernel within seconds, at the next call.
  void Add(int64_t step, const Summary& summary);
  /// Hands all to the kernel; where the next checkpoint's events end.
  EventPosition Flush();
  /// Makes what was flushed durable. From any thread; what fails is told by nobody, since only the
  /// newest points could be missed.
  void Sync() const;

 private:
  void CutBack();
  absl::Status Begin();
  void Fail(const absl::Status& problem);

  std::filesystem::path folder_;
  EventPosition position_;
  int64_t step_;
  std::function<void(const std::string&)> warn_;
  bool off_ = false;
  bool waiting_ = false;  // The last flush failed.
  std::optional<RecordFile> file_;
  std::atomic<const RecordFile*> begun_{nullptr};  // The same for Sync(): once there, it stays.
  double flushed_at_ = 0;                          // Seconds since 1970.
};

}  // namespace lockstep::trainer
