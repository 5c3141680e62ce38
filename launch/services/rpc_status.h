// absl::Status to grpc::Status, with google.rpc.BadRequest details where fields of a request are
// wrong.
#pragma once

#include <grpcpp/support/status.h>

#include <string>
#include <vector>

#include "absl/status/status.h"

namespace lockstep::launch {

struct FieldViolation {
  std::string field;        // "training.global_batch_size"
  std::string description;  // For a person, with file:line:col where there is one.
};

/// The codes of both are the same numbers. An INVALID_ARGUMENT whose message begins with
/// "some.field: " carries that field as a violation.
grpc::Status ToGrpc(const absl::Status& status);

/// INVALID_ARGUMENT; the message has one violation a line.
grpc::Status BadRequest(const std::vector<FieldViolation>& violations);

}  // namespace lockstep::launch
