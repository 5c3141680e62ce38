// What every row of the tables must have, and where it must turn up.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <nlohmann/json.hpp>
#include <set>
#include <string>

#include "config/coordinator_config.h"
#include "config/field.h"
#include "config/load.h"

namespace lockstep::config {
namespace {

using Visit = std::function<void(const Field&, const std::string& path)>;

void ForEach(const std::vector<Field>& fields, const std::string& prefix, const Visit& visit) {
  for (const Field& field : fields) {
    visit(field, prefix + field.name);
    const bool is_list = field.type == FieldType::kGroupList;
    ForEach(field.fields, prefix + field.name + (is_list ? "[]." : "."), visit);
  }
}

void ExpectWellFormed(const Table& table) {
  std::set<std::string> paths;
  ForEach(table.fields, "", [&](const Field& field, const std::string& path) {
    EXPECT_TRUE(paths.insert(path).second) << path << " stands twice";
    EXPECT_FALSE(field.doc.empty()) << path;
    EXPECT_TRUE(field.doc.ends_with('.')) << path << ": " << field.doc;
    EXPECT_EQ(field.name.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789_"),
              std::string::npos)
        << path;
    if (field.type == FieldType::kChoice) {
      EXPECT_GE(field.choices.size(), 2u) << path;
    }
    if (field.type == FieldType::kDuration) {
      EXPECT_FALSE(field.units.empty()) << path;
    }
    if (field.type == FieldType::kNumber) {
      EXPECT_GT(field.min_number, -1e300) << path;
    }
    if (field.type == FieldType::kNumber) {
      EXPECT_LT(field.max_number, 1e300) << path;
    }
  });
  EXPECT_GT(paths.size(), 5u);
}

// The schema of the value at a table path.
nlohmann::json At(const nlohmann::json& schema, const std::string& path) {
  nlohmann::json here = schema;
  std::string rest = path;
  while (!rest.empty()) {
    const size_t dot = rest.find('.');
    std::string key = rest.substr(0, dot);
    rest = dot == std::string::npos ? "" : rest.substr(dot + 1);
    const bool is_list = key.ends_with("[]");
    if (is_list) key.resize(key.size() - 2);
    if (!here.contains("properties") || !here["properties"].contains(key)) return nullptr;
    here = nlohmann::json(here["properties"][key]);
    if (is_list) here = nlohmann::json(here["items"]);
  }
  return here;
}

void ExpectInSchema(const Table& table, const std::string& text) {
  const nlohmann::json schema = nlohmann::json::parse(text);
  EXPECT_EQ(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
  ForEach(table.fields, "", [&](const Field& field, const std::string& path) {
    const nlohmann::json here = At(schema, path);
    ASSERT_FALSE(here.is_null()) << path;
    EXPECT_EQ(here["description"], field.doc) << path;
  });
}

void ExpectInReference(const Table& table, const std::string& reference) {
  ForEach(table.fields, "", [&](const Field& field, const std::string& path) {
    if (field.type == FieldType::kGroup) return;
    EXPECT_THAT(reference, testing::HasSubstr("| `" + path + "` | ")) << path;
    EXPECT_THAT(reference, testing::HasSubstr(field.doc)) << path;
  });
}

// Every key, also those of a list's items: the config must hold an item.
void ExpectInYaml(const Table& table, const std::string& yaml) {
  size_t from = 0;
  ForEach(table.fields, "", [&](const Field& field, const std::string& path) {
    const size_t found = yaml.find(field.name + ":", from);
    ASSERT_NE(found, std::string::npos) << path << " is missing or out of order in\n" << yaml;
    from = found;
  });
}

TEST(RunTable, IsWellFormed) {
  ExpectWellFormed(RunTable());
}
TEST(CoordinatorTable, IsWellFormed) {
  ExpectWellFormed(CoordinatorTable());
}

TEST(RunTable, EveryKeyIsInTheSchema) {
  ExpectInSchema(RunTable(), RunConfigJsonSchema());
}
TEST(CoordinatorTable, EveryKeyIsInTheSchema) {
  ExpectInSchema(CoordinatorTable(), CoordinatorConfigJsonSchema());
}

TEST(RunTable, EveryKeyIsInTheReference) {
  ExpectInReference(RunTable(), RunConfigReference());
}
TEST(CoordinatorTable, EveryKeyIsInTheReference) {
  ExpectInReference(CoordinatorTable(), CoordinatorConfigReference());
}

TEST(RunTable, EveryKeyIsInTheYaml) {
  RunConfig config;
  config.model.cnn.blocks.resize(1);
  ExpectInYaml(RunTable(), ToYaml(config));
}
TEST(CoordinatorTable, EveryKeyIsInTheYaml) {
  CoordinatorConfig config;
  config.weights.resize(1);
  config.price.devices.resize(1);
  config.price.energy.resize(1);
  config.price.transfers.resize(1);
  ExpectInYaml(CoordinatorTable(), ToYaml(config));
}

// Reads the default back through the row: the range must hold it, the words must name it.
TEST(RunTable, EveryDefaultIsAccepted) {
  RunConfig defaults;
  defaults.name = "a";
  defaults.training.duration = Duration::Epochs(1);
  defaults.training.global_batch_size = 1;
  defaults.model.cnn.blocks.resize(1);
  const auto loaded = LoadRunConfig(ToYaml(defaults), "defaults.yaml");
  EXPECT_TRUE(loaded.ok()) << loaded.Report();
  EXPECT_EQ(loaded.config, defaults);
}

TEST(ToYaml, QuotesTextThatWouldReadAsSomethingElse) {
  for (const std::string text : {"no",
                                 "010",
                                 "null",
                                 "~",
                                 "1.5",
                                 "",
                                 " ",
                                 "a: b",
                                 "#x",
                                 "[a]",
                                 "it's",
                                 "say \"hi\"",
                                 "back\\slash",
                                 "tab\there",
                                 "line\nbreak",
                                 "größe",
                                 "-",
                                 "- a",
                                 "?",
                                 "&a",
                                 "*a",
                                 "!a",
                                 "%",
                                 "@",
                                 "`",
                                 ".nan",
                                 "a #b",
                                 "trailing ",
                                 "/plain/path.txt",
                                 "true"}) {
    RunConfig config;
    config.name = "a";
    config.training.duration = Duration::Steps(1);
    config.training.global_batch_size = 1;
    config.data.kind = DatasetKind::kImageFolder;
    config.data.path = text.empty() ? "x" : text;
    const auto loaded = LoadRunConfig(ToYaml(config), "w.yaml");
    EXPECT_TRUE(loaded.ok()) << text << "\n" << loaded.Report();
    EXPECT_EQ(loaded.config, config) << text;
  }
}

}  // namespace
}  // namespace lockstep::config
