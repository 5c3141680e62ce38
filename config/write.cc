// Config out: YAML text by the same rows that read it.
#include "absl/strings/str_cat.h"
#include "config/coordinator_config.h"
#include "config/field.h"
#include "config/load.h"

namespace lockstep::config {
namespace {

void WriteGroup(const std::vector<Field>& fields, void* object, const std::string& indent,
                std::string& out);

void WriteField(const Field& field, void* object, const std::string& indent, std::string& out) {
  absl::StrAppend(&out, field.name, ":");
  if (field.type == FieldType::kGroup) {
    out += "\n";
    WriteGroup(field.fields, field.group(object), indent + "  ", out);
  } else if (field.type != FieldType::kGroupList) {
    absl::StrAppend(&out, " ", ValueToYaml(field, field.get(object)), "\n");
  } else if (field.size(object) == 0) {
    out += " []\n";
  } else {
    out += "\n";
    for (size_t i = 0; i < field.size(object); ++i) {
      std::string item;
      const std::string item_indent = indent + "    ";
      WriteGroup(field.fields, field.item(object, i), item_indent, item);
      // The item's first line carries the dash in place of the last two blanks.
      absl::StrAppend(&out, indent, "  - ", item.substr(item_indent.size()));
    }
  }
}

void WriteGroup(const std::vector<Field>& fields, void* object, const std::string& indent,
                std::string& out) {
  for (const Field& field : fields) {
    out += indent;
    WriteField(field, object, indent, out);
  }
}

void CollectSettings(const std::vector<Field>& fields, void* object, const std::string& prefix,
                     std::vector<Setting>& out) {
  for (const Field& field : fields) {
    const std::string path = prefix + field.name;
    if (field.type == FieldType::kGroup) {
      CollectSettings(field.fields, field.group(object), path + ".", out);
    } else if (field.type == FieldType::kGroupList) {
      for (size_t i = 0; i < field.size(object); ++i) {
        CollectSettings(field.fields, field.item(object, i), absl::StrCat(path, "[", i, "]."), out);
      }
    } else {
      out.push_back({path, ValueToYaml(field, field.get(object))});
    }
  }
}

// Rows reach into an object through a plain pointer; the copy keeps that away from the caller's.
template <typename T>
std::string Write(const Table& table, T config) {
  std::string out;
  WriteGroup(table.fields, &config, "", out);
  return out;
}

}  // namespace

std::string ToYaml(const RunConfig& config) {
  RunConfig copy = config;
  TrainingConfig& training = copy.training;
  // A resolved config holds both sizes; the file may only say one, and the other follows from it.
  if (training.global_batch_size != 0) training.batch_size_per_rank = 0;
  return Write(RunTable(), std::move(copy));
}

std::vector<Setting> SettingsOf(const RunConfig& config) {
  RunConfig copy = config;
  std::vector<Setting> settings;
  CollectSettings(RunTable().fields, &copy, "", settings);
  return settings;
}

std::string PriceYaml(const PriceConfig& prices) {
  CoordinatorConfig config;
  config.price = prices;
  std::string out;
  for (const Field& field : CoordinatorTable().fields) {
    if (field.name == "price") WriteField(field, &config, "", out);
  }
  return out;
}

std::string ToYaml(const CoordinatorConfig& config) {
  return Write(CoordinatorTable(), config);
}

}  // namespace lockstep::config
