#include "launch/cli/config_reference.h"

#include <nlohmann/json.hpp>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"

namespace lockstep::cli {
namespace {

using Json = nlohmann::ordered_json;

// Schemas are trees of a few levels; the bound is against a schema that refers to itself.
constexpr int kDeepest = 8;

const Json& Follow(const Json& root, const Json& schema) {
  const Json* at = &schema;
  for (int i = 0; i < kDeepest && at->is_object() && at->contains("$ref"); ++i) {
    const std::string reference = at->at("$ref").get<std::string>();
    if (reference.rfind("#/", 0) != 0) break;
    const Json::json_pointer pointer(reference.substr(1));
    if (!root.contains(pointer)) break;
    at = &root.at(pointer);
  }
  return *at;
}

std::string Value(const Json& value) {
  return value.is_string() ? value.get<std::string>() : value.dump();
}

std::string Cell(const std::string& text) {
  return absl::StrReplaceAll(text, {{"|", "\\|"}, {"\n", " "}});
}

// "integer, 1 to 4095", "one of `sgd`, `adam`", "number or `auto`", "list of integer"
std::string TypeOf(const Json& root, const Json& given, int depth = 0) {
  const Json& schema = Follow(root, given);
  if (!schema.is_object() || depth > kDeepest) return "any";
  const auto choices = [](const Json& values) {
    std::vector<std::string> texts;
    for (const Json& value : values) texts.push_back(absl::StrCat("`", Value(value), "`"));
    return texts;
  };
  if (schema.contains("const")) return absl::StrCat("`", Value(schema["const"]), "`");
  if (schema.contains("enum")) {
    const auto texts = choices(schema["enum"]);
    return texts.size() == 1 ? texts[0] : absl::StrCat("one of ", absl::StrJoin(texts, ", "));
  }
  for (const char* key : {"oneOf", "anyOf"}) {
    if (!schema.contains(key) || schema.contains("properties")) continue;
    std::vector<std::string> texts;
    for (const Json& branch : schema[key]) {
      if (branch.is_object() && branch.contains("required") && !branch.contains("type")) continue;
      texts.push_back(TypeOf(root, branch, depth + 1));
    }
    if (!texts.empty()) return absl::StrJoin(texts, " or ");
  }
  std::string text = "any";
  if (schema.contains("type")) {
    const Json& type = schema["type"];
    text = type.is_array() ? absl::StrJoin(type.get<std::vector<std::string>>(), " or ")
                           : type.get<std::string>();
  }
  if (text == "array") {
    return schema.contains("items")
               ? absl::StrCat("list of ", TypeOf(root, schema["items"], depth + 1))
               : "list";
  }
  const auto bound = [&](const char* key, const char* words) {
    if (schema.contains(key)) absl::StrAppend(&text, ", ", words, " ", schema[key].dump());
  };
  bound("minimum", "at least");
  bound("exclusiveMinimum", "above");
  bound("maximum", "at most");
  bound("exclusiveMaximum", "below");
  return text;
}

struct Row {
  std::string path;
  const Json* schema;
};

void Collect(const Json& root, const Json& given, const std::string& prefix, int depth,
             std::vector<Row>& rows) {
  const Json& schema = Follow(root, given);
  if (!schema.is_object() || depth > kDeepest) return;
  if (schema.contains("properties")) {
    for (const auto& [name, property] : schema["properties"].items()) {
      const std::string path = prefix.empty() ? name : absl::StrCat(prefix, ".", name);
      const Json& child = Follow(root, property);
      const bool section = child.is_object() && child.contains("properties");
      if (!section) rows.push_back({path, &property});
      Collect(root, property, path, depth + 1, rows);
    }
  }
  if (schema.contains("items")) {
    Collect(root, schema["items"], prefix + "[]", depth + 1, rows);
  }
}

std::string Text(const Json& root, const Json& schema, const char* key) {
  if (schema.is_object() && schema.contains(key)) return Value(schema[key]);
  const Json& target = Follow(root, schema);
  return target.is_object() && target.contains(key) ? Value(target[key]) : "";
}

}  // namespace

absl::StatusOr<std::string> SchemaToMarkdown(const std::string& json_schema) {
  const Json root = Json::parse(json_schema, nullptr, /*allow_exceptions=*/false);
  if (!root.is_object() || !root.contains("properties")) {
    return absl::InternalError("the schema is no JSON object with properties");
  }
  std::vector<Row> rows;
  Collect(root, root, "", 0, rows);
  std::string text;
  std::string section = "\n";  // No section has this name.
  for (const Row& row : rows) {
    const size_t dot = row.path.find('.');
    const std::string at =
        dot == std::string::npos ? "" : row.path.substr(0, row.path.find_first_of(".["));
    if (at != section) {
      section = at;
      if (!text.empty()) text += "\n";
      if (!at.empty()) {
        absl::StrAppend(&text, "### ", at, "\n\n");
        const std::string words = Text(root, root["properties"][at], "description");
        if (!words.empty()) absl::StrAppend(&text, words, "\n\n");
      }
      text += "| Key | Type | Default | What it does |\n|---|---|---|---|\n";
    }
    const std::string fallback = Text(root, *row.schema, "default");
    absl::StrAppend(&text, "| `", row.path, "` | ", Cell(TypeOf(root, *row.schema)), " | ",
                    fallback.empty() ? "" : absl::StrCat("`", Cell(fallback), "`"), " | ",
                    Cell(Text(root, *row.schema, "description")), " |\n");
  }
  return text;
}

}  // namespace lockstep::cli
