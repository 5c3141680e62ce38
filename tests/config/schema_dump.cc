// Prints the JSON schemas, and each YAML file named on the command line as the JSON value it means:
//   {"run": schema, "coordinator": schema, "files": [{"path", "valid", "instance"}, …]}
// An instance is null where the text is no YAML of ours. Numbers are printed as they are written.
#include <fstream>
#include <iostream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <string>

#include "config/coordinator_config.h"
#include "config/load.h"
#include "config/scalar.h"
#include "config/yaml_document.h"

namespace lockstep::config {
namespace {

std::string Quote(const std::string& text) {
  return nlohmann::json(text).dump();
}

std::string ToJson(const Node& node) {
  std::string out;
  switch (node.kind) {
    case Node::Kind::kInvalid:
    case Node::Kind::kNull:
      return "null";
    case Node::Kind::kScalar:
      switch (Classify(node.text, node.quoted).kind) {
        case ScalarKind::kBoolean:
        case ScalarKind::kInteger:
        case ScalarKind::kNumber:
          return node.text;
        default:
          return Quote(node.text);
      }
    case Node::Kind::kSequence:
      for (const Node& item : node.items) out += (out.empty() ? "" : ", ") + ToJson(item);
      return "[" + out + "]";
    case Node::Kind::kMapping:
      for (const Member& member : node.members) {
        out += (out.empty() ? "" : ", ") + Quote(member.key) + ": " + ToJson(member.value);
      }
      return "{" + out + "}";
  }
  return "null";
}

void Dump(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  const std::string text{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  const bool coordinator = path.find("lockstepd") != std::string::npos;
  const bool valid =
      coordinator ? LoadCoordinatorConfig(text, path).ok() : LoadRunConfig(text, path).ok();
  Problems problems;
  Node root;
  const bool parsed = ParseYaml(text, path, Positions::kOfFile, problems, root);
  // A file without keys is an empty mapping, not null.
  if (root.kind == Node::Kind::kNull) root.kind = Node::Kind::kMapping;
  std::cout << "{\"path\": " << Quote(path) << ", \"valid\": " << (valid ? "true" : "false")
            << ", \"instance\": " << (parsed ? ToJson(root) : "null") << "}";
}

}  // namespace
}  // namespace lockstep::config

int main(int argc, char** argv) {
  std::cout << "{\"run\": " << lockstep::config::RunConfigJsonSchema()
            << ", \"coordinator\": " << lockstep::config::CoordinatorConfigJsonSchema()
            << ", \"files\": [";
  for (int i = 1; i < argc; ++i) {
    if (i > 1) std::cout << ",\n";
    lockstep::config::Dump(argv[i]);
  }
  std::cout << "]}\n";
}
