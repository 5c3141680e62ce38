// What lies in a tar archive, told by its headers alone: old (v7), POSIX ustar and GNU archives,
// GNU long names, pax paths and sizes. Files come from anywhere: what they hold never crashes,
// hangs or takes memory beyond a small multiple of the number of members.
//
// Formats: POSIX.1-2017, "pax", ustar Interchange Format and pax Header Block; GNU tar manual,
// "Basic Tar Format".
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace lockstep::trainer {

struct TarMember {
  std::string name;    // Without a leading "./".
  int64_t offset = 0;  // Of its first byte in the archive.
  int64_t bytes = 0;
};

/// The regular files of an archive, in its order; folders are left out. Throws DataError
/// "PATH: at byte N: reason" for a damaged header, an archive that is cut off or compressed, links,
/// devices and sparse files (their contents are not there), data after the end.
std::vector<TarMember> ReadTarIndex(const std::string& path);

}  // namespace lockstep::trainer
