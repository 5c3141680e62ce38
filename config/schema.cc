// The JSON schemas, made from the tables.
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "config/coordinator_config.h"
#include "config/field.h"
#include "config/load.h"

namespace lockstep::config {
namespace {

using Json = nlohmann::ordered_json;

// Duration::Parse as a regular expression, for the units that a key accepts. A zero length has no
// unit that matters.
std::string DurationPattern(const Field& field) {
  std::vector<std::string> forms;
  for (const Duration::Unit unit : field.units) {
    constexpr absl::string_view kDecimal = "(0|[1-9][0-9]*)(\\.[0-9]+)?";
    if (unit == Duration::Unit::kEpochs) forms.push_back(absl::StrCat(kDecimal, "ep"));
    if (unit == Duration::Unit::kSteps) forms.push_back("(0|[1-9][0-9]*)(\\.0+)?st");
    if (unit == Duration::Unit::kSeconds) forms.push_back(absl::StrCat(kDecimal, "[smhd]"));
  }
  if (!field.nonzero) forms.push_back("0(\\.0+)?(ep|st|[smhd])");
  const std::string pattern = absl::StrCat("^(", absl::StrJoin(forms, "|"), ")$");
  return field.nonzero ? absl::StrCat("^(?!0(\\.0+)?[a-z])", pattern.substr(1)) : pattern;
}

Json IntegerSchema(const Field& field) {
  return {{"type", "integer"}, {"minimum", field.min_integer}, {"maximum", field.max_integer}};
}

Json NumberSchema(const Field& field) {
  Json schema = {{"type", "number"}};
  schema[field.above_min ? "exclusiveMinimum" : "minimum"] = field.min_number;
  schema[field.below_max ? "exclusiveMaximum" : "maximum"] = field.max_number;
  return schema;
}

Json TextSchema(const Field& field) {
  Json schema = {{"type", "string"}, {"maxLength", field.max_length}};
  if (!field.pattern.empty()) schema["pattern"] = field.pattern;
  return schema;
}

Json ListSchema(const Field& field, Json items) {
  return {{"type", "array"}, {"items", std::move(items)}, {"maxItems", field.max_items}};
}

bool HasRequired(const std::vector<Field>& fields) {
  for (const Field& field : fields) {
    if (field.required || (field.type == FieldType::kGroup && HasRequired(field.fields))) {
      return true;
    }
  }
  return false;
}

Json GroupSchema(const std::vector<Field>& fields, void* defaults);

Json TypeSchema(const Field& field, void* defaults) {
  switch (field.type) {
    case FieldType::kBoolean:
      return {{"type", "boolean"}};
    case FieldType::kInteger:
      if (!field.has_auto) return IntegerSchema(field);
      return {{"anyOf", Json::array({IntegerSchema(field), Json{{"const", "auto"}}})}};
    case FieldType::kNumber:
      return NumberSchema(field);
    case FieldType::kText:
      return TextSchema(field);
    case FieldType::kChoice:
      return {{"type", "string"}, {"enum", field.choices}};
    case FieldType::kDuration:
      return {{"type", "string"}, {"pattern", DurationPattern(field)}};
    case FieldType::kIntegerList:
      return ListSchema(field, IntegerSchema(field));
    case FieldType::kNumberList:
      return ListSchema(field, NumberSchema(field));
    case FieldType::kTextList:
      return ListSchema(field, TextSchema(field));
    case FieldType::kGroup:
      return GroupSchema(field.fields, field.group(defaults));
    case FieldType::kGroupList: {
      // One item by itself, to know its defaults; nobody else holds this list.
      field.resize(defaults, 1);
      Json items = GroupSchema(field.fields, field.item(defaults, 0));
      field.resize(defaults, 0);
      return ListSchema(field, std::move(items));
    }
  }
  return {};
}

Json DefaultOf(const Field& field, void* defaults) {
  const Value value = field.get(defaults);
  if (const auto* integer = std::get_if<int64_t>(&value)) {
    if (field.has_auto && *integer == field.auto_value) return "auto";
  }
  if (const auto* length = std::get_if<Duration>(&value)) return length->ToString();
  return std::visit(
      [](const auto& v) -> Json {
        if constexpr (std::is_same_v<std::decay_t<decltype(v)>, Duration>) {
          return nullptr;
        } else {
          return v;
        }
      },
      value);
}

bool IsGroup(const Field& field) {
  return field.type == FieldType::kGroup || field.type == FieldType::kGroupList;
}

Json GroupSchema(const std::vector<Field>& fields, void* defaults) {
  Json properties = Json::object();
  Json required = Json::array();
  for (const Field& field : fields) {
    Json schema = TypeSchema(field, defaults);
    schema["description"] = field.doc;
    const bool has_default = !IsGroup(field) && !field.required;
    if (has_default && field.default_note.empty()) schema["default"] = DefaultOf(field, defaults);
    properties[field.name] = std::move(schema);
    if (HasRequired({field})) required.push_back(field.name);
  }
  Json schema = {
      {"type", "object"}, {"additionalProperties", false}, {"properties", std::move(properties)}};
  if (!required.empty()) schema["required"] = std::move(required);
  return schema;
}

template <typename T>
std::string Schema(const Table& table) {
  T defaults;
  Json schema = {{"$schema", "https://json-schema.org/draft/2020-12/schema"},
                 {"title", table.title}};
  schema.update(GroupSchema(table.fields, &defaults));
  return schema.dump(2) + "\n";
}

}  // namespace

std::string RunConfigJsonSchema() {
  return Schema<RunConfig>(RunTable());
}
std::string CoordinatorConfigJsonSchema() {
  return Schema<CoordinatorConfig>(CoordinatorTable());
}

}  // namespace lockstep::config
