// The documents of `-o json`. Field names are stable: fields may be added, none is renamed.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "lockstep/v1/control.pb.h"

namespace lockstep::cli {

using Json = nlohmann::ordered_json;

Json ToJson(const v1::Run& run);
Json ToJson(const v1::Evaluation& evaluation);
Json ToJson(const v1::CheckpointEvent& checkpoint);
Json ToJson(const v1::Checkpoint& checkpoint);
Json ToJson(const v1::GetStatusResponse& status);

/// One document on one line with a line end; bytes that are not UTF-8 are replaced.
std::string OneLine(const Json& json);
/// The same, indented for people.
std::string Document(const Json& json);

}  // namespace lockstep::cli
