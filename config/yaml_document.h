// YAML text as a small tree of our own, in which everything has a place and nothing is ambiguous.
//
// The subset of YAML that is accepted: one document of mappings, sequences and scalars. Anchors,
// aliases, tags, duplicate keys and keys that are not plain words are problems. The tree is built
// from yaml-cpp's events rather than from its nodes: events carry the places, keep duplicate keys,
// and cannot make a cycle.
//
// Hostile input is bounded before and while it is parsed: size, bytes that are not printable UTF-8,
// and depth (yaml-cpp's parser recurses once per level).
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "config/problems.h"

namespace lockstep::config {

inline constexpr size_t kLargestYamlBytes = 64u << 10;
inline constexpr int kDeepestYaml = 32;

struct Member;

struct Node {
  enum class Kind {
    kInvalid,  // Already reported; says nothing more.
    kNull,
    kScalar,
    kSequence,
    kMapping,
  };
  Kind kind = Kind::kNull;
  Place place;
  std::string text;             // kScalar
  bool quoted = false;          // kScalar: in quotes or a block, so certainly text.
  std::vector<Node> items;      // kSequence
  std::vector<Member> members;  // kMapping, in the file's order, each key once.

  const Member* Find(std::string_view key) const;
  Member* Find(std::string_view key);
};

struct Member {
  std::string key;
  Place place;  // Of the key.
  Node value;
};

enum class Positions {
  kOfFile,
  kNone,  // Text of an override: its lines and columns mean nothing to a user.
};

/// Adds to `problems` what is wrong with the text itself. `file` is kept by reference in every
/// place. False when the tree is not worth looking at, because the text ended early or is no text.
bool ParseYaml(std::string_view text, const std::string& file, Positions positions,
               Problems& problems, Node& root);

}  // namespace lockstep::config
