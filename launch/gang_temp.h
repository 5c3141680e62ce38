// The temporary folder of one attempt, /tmp/lockstep-XXXXXX: its ranks' and mpirun's TMPDIR.
//
// Open MPI puts its session folder there (with Unix sockets, so the path must be short) and names
// shared memory in /dev/shm after the job; when ranks and mpirun are killed, both stay behind.
#pragma once

#include <string>

#include "absl/status/statusor.h"

namespace lockstep::launch {

absl::StatusOr<std::string> MakeGangTempDir();

/// Removes the folder and the shared memory that the jobs named in it left behind. Does nothing to
/// a path that MakeGangTempDir() cannot have made, or that belongs to another user. Call it once
/// every process of the attempt is gone.
void RemoveGangTempDir(const std::string& tmp_dir);

}  // namespace lockstep::launch
