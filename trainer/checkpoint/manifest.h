// manifest.json: what makes a folder a checkpoint. Format version 1:
//
//   {
//     "format": "lockstep-checkpoint",
//     "format_version": 1,
//     "step": 120,
//     "created_unix_seconds": 1767225600.5,
//     "metric": 0.934,                              absent where the step was not evaluated
//     "files": {"weights.safetensors": {"size": 123, "xxh3_128": "<32 hex digits>"}, …},
//     "manifest_xxh3_128": "<32 hex digits>"
//   }
//
// The last member is the hash of this file's own bytes with its 32 digits read as zeros, so that a
// flipped bit anywhere, also in the metric or in a blank, is seen. The number behind
// "format_version" is read before that check: a future format may hash itself in another way.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace lockstep::trainer {

inline constexpr char kManifestFile[] = "manifest.json";
inline constexpr char kWeightsFile[] = "weights.safetensors";
inline constexpr char kOptimizerFile[] = "optimizer.safetensors";
inline constexpr char kStateFile[] = "state.json";

struct ManifestEntry {
  int64_t bytes = 0;
  std::string xxh3_128;  // 32 lower-case hex digits.
  bool operator==(const ManifestEntry&) const = default;
};

struct Manifest {
  int64_t step = 0;
  double created_unix_seconds = 0;
  std::optional<double> metric;
  std::map<std::string, ManifestEntry> files;  // Exactly the three of a checkpoint.
  int64_t TotalBytes() const;
};

std::string ToJson(const Manifest& manifest);

/// DATA_LOSS when the text is damaged; FAILED_PRECONDITION when it is whole but of another format
/// or a newer version.
absl::StatusOr<Manifest> ParseManifest(const std::string& text);

// Size and XXH3-128 of bytes that come piece by piece.
class Hasher {
 public:
  Hasher();
  ~Hasher();
  Hasher(const Hasher&) = delete;
  Hasher& operator=(const Hasher&) = delete;
  void Add(std::span<const std::byte> piece);
  ManifestEntry Finish() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// Size and hash of the pieces one after another.
ManifestEntry Describe(const std::vector<std::span<const std::byte>>& pieces);

}  // namespace lockstep::trainer
