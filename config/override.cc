#include "config/override.h"

#include <algorithm>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"

namespace lockstep::config {
namespace {

constexpr std::string_view kPrefix = "LOCKSTEP_";

void Apply(const Override& change, Node& root, Problems& problems) {
  const Place place{&change.origin, 0, 0};
  const std::vector<std::string> keys = absl::StrSplit(change.path, '.');
  if (std::find(keys.begin(), keys.end(), "") != keys.end()) {
    problems.Add(place, Printable(change.path), "not a path",
                 "expected keys joined by dots: a.b=c");
    return;
  }
  Node value;
  if (!ParseYaml(change.value, change.origin, Positions::kNone, problems, value)) return;
  // An invalid value was reported without knowing its path; it stays in the tree as such, so that
  // its key does not count as missing.
  value.place = place;

  Node* node = &root;
  for (size_t i = 0;; ++i) {
    if (node->kind == Node::Kind::kNull) node->kind = Node::Kind::kMapping;
    if (node->kind == Node::Kind::kInvalid) return;
    if (node->kind != Node::Kind::kMapping) {
      problems.Add(place, Printable(change.path), "leads into something that is not a mapping",
                   "set a list as a whole: a.b=[1, 2]");
      return;
    }
    Member* member = node->Find(keys[i]);
    if (member == nullptr) {
      member = &node->members.emplace_back();
      member->key = keys[i];
      member->place = place;
      member->value.place = place;
    }
    if (i + 1 == keys.size()) {
      member->place = place;
      member->value = std::move(value);
      return;
    }
    node = &member->value;
  }
}

}  // namespace

void ApplyOverrides(const std::vector<Override>& overrides, Node& root, Problems& problems) {
  for (const Override& change : overrides) Apply(change, root, problems);
}

absl::StatusOr<Override> ParseOverride(std::string_view text) {
  const size_t equals = text.find('=');
  if (equals == std::string_view::npos || equals == 0) {
    return absl::InvalidArgumentError(absl::StrCat(Quoted(std::string(text)),
                                                   " is not an override; expected path=value, for "
                                                   "example training.duration=1ep"));
  }
  return Override{.path = std::string(text.substr(0, equals)),
                  .value = std::string(text.substr(equals + 1)),
                  .origin = "--set"};
}

std::vector<Override> EnvironmentOverrides(char** environment) {
  std::vector<Override> overrides;
  for (; environment != nullptr && *environment != nullptr; ++environment) {
    const std::string_view entry = *environment;
    const size_t equals = entry.find('=');
    if (!entry.starts_with(kPrefix) || equals == std::string_view::npos) continue;
    const std::string name(entry.substr(kPrefix.size(), equals - kPrefix.size()));
    if (name.find("__") == std::string::npos) continue;
    overrides.push_back({.path = absl::AsciiStrToLower(absl::StrReplaceAll(name, {{"__", "."}})),
                         .value = std::string(entry.substr(equals + 1)),
                         .origin = "environment"});
  }
  // The environment has no order that a user could see.
  std::sort(overrides.begin(), overrides.end(), [](const Override& a, const Override& b) {
    return std::tie(a.path, a.value) < std::tie(b.path, b.value);
  });
  return overrides;
}

}  // namespace lockstep::config
