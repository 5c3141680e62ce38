// The small files that a gang leaves in DIR/attempt-K, and what can be read from them once its
// processes are gone. Formats: see launch/launcher/mpirun.h. Pure reading and writing; no process
// is touched.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "launch/launcher/launcher.h"

namespace lockstep::launch {

struct GangRecord {
  Gang gang;
  std::string boot_id;
  std::string tmp_dir;
  std::string run_id;
  int64_t out_of_memory_kills = 0;  // The host's count when the gang started.
};

absl::Status WriteGangRecord(const std::filesystem::path& attempt_dir, const GangRecord& record);
/// Nothing when there is none that can be read.
std::optional<GangRecord> ReadGangRecord(const std::filesystem::path& attempt_dir);

/// Best effort: a full disk loses only the memory of how the attempt ended.
void WriteGangEnd(const std::filesystem::path& attempt_dir, const GangEnd& end);
std::optional<GangEnd> ReadGangEnd(const std::filesystem::path& attempt_dir);

struct EndEvidence {
  std::optional<int> wait_status;  // mpirun's, as from waitpid; nothing when it was not our child.
  bool killed = false;             // Kill() was called.
  bool out_of_memory = false;      // The kernel killed some process for want of memory meanwhile.
};

/// How an attempt ended, from the first cause to the last consequence: a rank that says why it gave
/// up, then mpirun's word on a rank that was killed, then ranks that only lost the others, then
/// result.json and the wait status.
GangEnd ExplainEnd(const std::filesystem::path& run_dir, int attempt, const EndEvidence& evidence);

/// Drops the older part of a log that other processes append to once it is larger than
/// `limit_bytes`, and keeps its newest quarter, at most 1 MiB. On file systems that cannot cut a
/// file's front off (other than ext4 and XFS) lines written in that moment may be lost.
void BoundLog(const std::filesystem::path& log, int64_t limit_bytes);

/// The last `bytes` of a file; empty when there is none.
std::string ReadTail(const std::filesystem::path& path, int64_t bytes);

}  // namespace lockstep::launch
