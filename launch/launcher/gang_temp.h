// The temporary folder of one attempt, /tmp/lockstep-gang-XXXXXX: its ranks' and mpirun's TMPDIR.
//
// Open MPI puts its session folder there (with Unix sockets, so the path must be short) and names
// shared memory in /dev/shm after the job; when ranks and mpirun are killed, both stay behind.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "launch/launcher/launcher.h"

namespace lockstep::launch {

absl::StatusOr<std::string> MakeGangTempDir();

/// Notes in the folder whose it is. Best effort: without the note it is never swept.
void SetGangTempDirOwner(const std::string& tmp_dir, const Gang& gang);

/// Removes this user's folders whose gang is gone without anybody having watched its end: the
/// coordinator's state was deleted, or the host was started anew. Folders without a note stay.
void SweepGangTempDirs();

/// Removes the folder and the shared memory that the jobs named in it left behind. Does nothing to
/// a path that MakeGangTempDir() cannot have made, or that belongs to another user. Call it once
/// every process of the attempt is gone.
void RemoveGangTempDir(const std::string& tmp_dir);

}  // namespace lockstep::launch
