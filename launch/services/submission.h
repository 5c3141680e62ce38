// From what a person submits to a run's spec: parse, resolve, check paths. Nothing is started or
// written here.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "config/coordinator_config.h"
#include "launch/coordinator/run_record.h"
#include "launch/services/rpc_status.h"
#include "lockstep/v1/control.pb.h"
#include "lockstep/v1/rank.pb.h"

namespace lockstep::launch {

struct SubmissionContext {
  int slots = 1;
  int free_slots = 1;  // What `resources.ranks: auto` takes; all slots when none is free.
  int cores = 1;
  std::vector<std::string> allowed_roots;       // Empty = any.
  std::vector<config::NamedWeights> weights{};  // What model.pretrained may name.
};

struct Submission {
  RunSpec spec;
  std::vector<FieldViolation> violations;  // Empty = the config is good.
  // PERMISSION_DENIED: a path outside of the roots. RESOURCE_EXHAUSTED: more ranks than slots.
  absl::Status refused;
};

Submission ParseSubmission(const v1::SubmitRunRequest& request, const SubmissionContext& context);

/// The spec of a run that a user started under mpirun. A config that cannot be read gives a spec
/// with what is known.
RunSpec ExternalSpec(const v1::Hello& hello);

/// PERMISSION_DENIED unless `path`, its symbolic links resolved, lies under one of the roots.
absl::Status CheckUnderRoots(const char* key, const std::string& path,
                             const std::vector<std::string>& roots);

}  // namespace lockstep::launch
