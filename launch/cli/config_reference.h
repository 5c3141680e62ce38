// The table of every config key, for people, made from the JSON Schema: one source for both.
#pragma once

#include <string>

#include "absl/status/statusor.h"

namespace lockstep::cli {

/// Markdown: one heading per section of the schema's `properties`, one row per key with its type,
/// range or choices, default and description.
absl::StatusOr<std::string> SchemaToMarkdown(const std::string& json_schema);

}  // namespace lockstep::cli
