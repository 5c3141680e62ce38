// What a YAML scalar is, with the readings refused on which YAML 1.1, YAML 1.2 and people disagree.
#pragma once

#include <string>

#include "absl/strings/string_view.h"
#include "config/yaml_document.h"

namespace lockstep::config {

enum class ScalarKind { kBoolean, kInteger, kNumber, kText, kAmbiguous };

struct Scalar {
  ScalarKind kind = ScalarKind::kText;
  std::string instead;  // kAmbiguous: how to write what was probably meant; may be empty.
};

/// `true`, `false`; JSON's integers and numbers; everything in quotes and every other plain scalar
/// is text, except what some reader of YAML would take for something else (`010`, `no`, `.nan`,
/// `0x1F`, `1_000`, `True`, …), which is ambiguous.
Scalar Classify(absl::string_view text, bool quoted);

/// `text` as a YAML scalar that reads back as text: plain where that is safe, else in double
/// quotes.
std::string TextToYaml(absl::string_view text);
/// The shortest decimal text that reads back as the same double.
std::string NumberToYaml(double value);

}  // namespace lockstep::config
