#include "config/field.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "config/scalar.h"

namespace lockstep::config {
namespace {

std::string IntegerRange(const Field& field) {
  const bool from = field.min_integer > std::numeric_limits<int32_t>::min();
  const bool to = field.max_integer < std::numeric_limits<int64_t>::max();
  if (from && to) return absl::StrCat(" from ", field.min_integer, " to ", field.max_integer);
  if (from) return absl::StrCat(" of at least ", field.min_integer);
  return to ? absl::StrCat(" of at most ", field.max_integer) : "";
}

std::string NumberRange(const Field& field) {
  return absl::StrCat(field.above_min ? " above " : " from ", NumberToYaml(field.min_number),
                      field.below_max ? " to below " : " to ", NumberToYaml(field.max_number));
}

std::string DurationForms(const Field& field) {
  std::vector<std::string> forms;
  for (const Duration::Unit unit : field.units) {
    if (unit == Duration::Unit::kEpochs) forms.push_back("30ep (epochs)");
    if (unit == Duration::Unit::kSteps) forms.push_back("5000st (steps)");
    if (unit == Duration::Unit::kSeconds) forms.push_back("90s, 15m, 2h or 1d");
  }
  return absl::StrCat("a duration such as ", absl::StrJoin(forms, ", "));
}

std::string Type(const Field& field) {
  switch (field.type) {
    case FieldType::kBoolean:
      return "true or false";
    case FieldType::kInteger:
      return absl::StrCat("a whole number", IntegerRange(field));
    case FieldType::kNumber:
      return absl::StrCat("a number", NumberRange(field));
    case FieldType::kText:
      return field.pattern.empty() ? "text" : field.pattern_note;
    case FieldType::kChoice:
      return absl::StrCat("one of ", absl::StrJoin(field.choices, ", "));
    case FieldType::kDuration:
      return DurationForms(field);
    case FieldType::kIntegerList:
      return absl::StrCat("a list of whole numbers", IntegerRange(field));
    case FieldType::kNumberList:
      return absl::StrCat("a list of numbers", NumberRange(field));
    case FieldType::kTextList:
      return "a list of texts";
    case FieldType::kGroup:
      return "a mapping (key: value)";
    case FieldType::kGroupList:
      return "a list of mappings";
  }
  return "";
}

struct YamlWriter {
  const Field& field;
  std::string operator()(bool v) const { return v ? "true" : "false"; }
  std::string operator()(int64_t v) const {
    return field.has_auto && v == field.auto_value ? "auto" : absl::StrCat(v);
  }
  std::string operator()(double v) const { return NumberToYaml(v); }
  std::string operator()(const std::string& v) const { return TextToYaml(v); }
  std::string operator()(const Duration& v) const { return v.ToString(); }
  template <typename T>
  std::string operator()(const std::vector<T>& v) const {
    const auto append = [this](std::string* out, const T& item) { *out += (*this)(item); };
    return absl::StrCat("[", absl::StrJoin(v, ", ", append), "]");
  }
};

}  // namespace

std::string Expected(const Field& field) {
  return absl::StrCat(Type(field), field.has_auto ? ", or auto" : "");
}

std::string ValueToYaml(const Field& field, const Value& value) {
  return std::visit(YamlWriter{field}, value);
}

}  // namespace lockstep::config
