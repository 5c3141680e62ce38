#include "launch/services/rpc_status.h"

#include "absl/strings/str_cat.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"

namespace lockstep::launch {
namespace {

// Details travel in the trailers, which clients bound (8 KiB by default, all of them together).
constexpr size_t kMaxDetailBytes = 5000;
constexpr size_t kMaxMessageBytes = 2500;

grpc::Status WithViolations(const std::string& message,
                            const std::vector<FieldViolation>& violations) {
  google::rpc::BadRequest bad_request;
  size_t bytes = 0;
  for (const FieldViolation& violation : violations) {
    bytes += violation.field.size() + violation.description.size();
    if (bytes > kMaxDetailBytes) break;
    auto* added = bad_request.add_field_violations();
    added->set_field(violation.field);
    added->set_description(violation.description);
  }
  google::rpc::Status details;
  details.set_code(grpc::StatusCode::INVALID_ARGUMENT);
  details.set_message("bad request");
  details.add_details()->PackFrom(bad_request);
  return {grpc::StatusCode::INVALID_ARGUMENT, message, details.SerializeAsString()};
}

std::string LeadingField(const std::string& message) {
  const size_t colon = message.find(": ");
  if (colon == std::string::npos || colon == 0) return {};
  const std::string field = message.substr(0, colon);
  const bool plain =
      field.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789_.[]") == std::string::npos;
  return plain ? field : std::string();
}

}  // namespace

grpc::Status ToGrpc(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  const std::string message(status.message());
  if (absl::IsInvalidArgument(status)) {
    const std::string field = LeadingField(message);
    if (!field.empty()) {
      return WithViolations(message, {{field, message.substr(field.size() + 2)}});
    }
  }
  return {static_cast<grpc::StatusCode>(status.code()), message};
}

grpc::Status BadRequest(const std::vector<FieldViolation>& violations) {
  std::string message;
  for (const FieldViolation& violation : violations) {
    if (message.size() + violation.description.size() > kMaxMessageBytes) {
      absl::StrAppend(&message, "\n… (", violations.size(), " problems in all)");
      break;
    }
    absl::StrAppend(&message, message.empty() ? "" : "\n", violation.description);
  }
  return WithViolations(message, violations);
}

}  // namespace lockstep::launch
