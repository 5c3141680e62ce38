// The frozen trunk's outputs, computed once over a data set by all ranks together and kept on disk,
// for later epochs and later runs.
//
//   FOLDER/KEY/features.safetensors   trainer/features/feature_set.h
//   FOLDER/KEY/manifest.json          {"format_version", "bytes", "xxh3_128", "rank_seconds"}
//
// KEY is the hash of all that the features depend on: the trunk's weights and operations, the data
// set's fingerprint (which covers preprocessing), the number format, and with several views the
// augmentation and the seed. Something else, another key. The folder comes to its name by a rename
// when all is durable, so there is no half of one; a damaged one is made anew. At most
// kMostCacheBytes are kept, the ones used longest ago go first.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>

#include "config/run_config.h"
#include "trainer/comm/communicator.h"
#include "trainer/data/dataset.h"
#include "trainer/models/model.h"

namespace lockstep::trainer {

inline constexpr int64_t kMostCacheBytes = int64_t{64} << 30;

// The cache cannot be used: no space, no such folder. All ranks throw it together, with one text,
// so whoever catches it may go on without a cache. What happens to one rank alone (a picture that
// went bad meanwhile) is another exception and must end the attempt: the others wait for that rank.
class NoFeatureCache : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

struct FeatureRequest {
  const config::RunConfig& config;
  Model& model;            // Its trunk is frozen.
  const Dataset& dataset;  // Outlives what comes out.
  int64_t views = 1;       // Above 1: view v is augmented as in epoch v.
  std::filesystem::path folder;
  at::Device device = at::kCPU;
  Communicator& communicator;
  std::function<bool()> leave;  // Collective, asked after each batch: give up?
};

struct CachedFeatures {
  std::unique_ptr<Dataset> dataset;
  bool reused = false;
  double rank_seconds = 0;  // What computing them took, added up over the ranks that did it.
};

/// Collective; the ranks share a file system. Nothing when leave() said so. Throws NoFeatureCache
/// on all ranks, and what reading the data set throws.
std::optional<CachedFeatures> OpenFeatures(const FeatureRequest& request);

/// Does the folder hold what OpenFeatures() looks for? Goes by the name: one that turns out damaged
/// counts. Not collective.
bool FeaturesAreCached(const FeatureRequest& request);

/// Why no features can be cached for this run; empty when they can. Nothing here depends on the
/// machine.
std::string WhyNoFeatures(const config::RunConfig& config);

}  // namespace lockstep::trainer
