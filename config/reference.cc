// The reference of every key as Markdown, made from the tables.
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "config/coordinator_config.h"
#include "config/field.h"
#include "config/load.h"

namespace lockstep::config {
namespace {

// A bar would end the table's cell.
std::string Cell(const std::string& text) {
  return absl::StrReplaceAll(text, {{"|", "\\|"}});
}

std::string Default(const Field& field, void* defaults) {
  if (field.required) return "required";
  if (!field.default_note.empty()) return field.default_note;
  return absl::StrCat("`", ValueToYaml(field, field.get(defaults)), "`");
}

void AppendRows(const std::vector<Field>& fields, void* defaults, const std::string& prefix,
                std::string& out) {
  for (const Field& field : fields) {
    const std::string path = prefix + field.name;
    if (field.type == FieldType::kGroup) {
      AppendRows(field.fields, field.group(defaults), path + ".", out);
    } else if (field.type == FieldType::kGroupList) {
      absl::StrAppend(&out, "| `", path, "` | ", Cell(Expected(field)), " | `[]` | ",
                      Cell(field.doc), " |\n");
      // One item by itself, to show its defaults; nobody else holds this list.
      field.resize(defaults, 1);
      AppendRows(field.fields, field.item(defaults, 0), path + "[].", out);
      field.resize(defaults, 0);
    } else {
      absl::StrAppend(&out, "| `", path, "` | ", Cell(Expected(field)), " | ",
                      Cell(Default(field, defaults)), " | ", Cell(field.doc), " |\n");
    }
  }
}

template <typename T>
std::string Reference(const Table& table) {
  T defaults;
  std::string out = "| key | value | default | meaning |\n|---|---|---|---|\n";
  AppendRows(table.fields, &defaults, "", out);
  return out;
}

}  // namespace

std::string RunConfigReference() {
  return Reference<RunConfig>(RunTable());
}
std::string CoordinatorConfigReference() {
  return Reference<CoordinatorConfig>(CoordinatorTable());
}

}  // namespace lockstep::config
