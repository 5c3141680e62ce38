// config check|show|schema: no coordinator is there.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "tests/launch/cli/fake_coordinator.h"
#include "tests/launch/cli/process.h"

namespace lockstep::cli {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using Json = nlohmann::json;

constexpr const char* kGood =
    "name: tiny\n"
    "resources: {ranks: 2}\n"
    "data: {kind: shapes}\n"
    "model: {name: cnn, cnn: {blocks: [{filters: 8}]}}\n"
    "training: {duration: 1ep, global_batch_size: 32}\n";

class ConfigVerbsTest : public ::testing::Test {
 protected:
  Result Lockstep(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), LOCKSTEP_PROGRAM);
    return RunToEnd(arguments, {.environment = environment_, .folder = folder_.path().string()});
  }
  TempFolder folder_;
  std::map<std::string, std::string> environment_;
};

TEST_F(ConfigVerbsTest, AGoodFileIsOk) {
  folder_.Write("run.yaml", kGood);
  const Result result = Lockstep({"config", "check", "run.yaml"});
  EXPECT_EQ(result.code, 0) << result.err;
  EXPECT_EQ(result.out, "run.yaml: ok\n");
}

TEST_F(ConfigVerbsTest, EveryProblemHasItsPlaceAndGoesToStderr) {
  folder_.Write(
      "run.yaml",
      "name: tiny\ndata: {kind: shapes}\ntraining: {duration: 1ep, global_batch_siez: 32}\n"
      "optimizer: {learning_rate: fast}\n");
  const Result result = Lockstep({"config", "check", "run.yaml"});
  EXPECT_EQ(result.code, 2);
  EXPECT_THAT(result.err, AllOf(HasSubstr("run.yaml:3:"), HasSubstr("run.yaml:4:"),
                                HasSubstr("global_batch_size")));
  EXPECT_THAT(result.out, IsEmpty());
}

TEST_F(ConfigVerbsTest, ProblemsAsJson) {
  folder_.Write("run.yaml", "name: tiny\nwrong: 1\n");
  folder_.Write("good.yaml", kGood);
  const Result result = Lockstep({"config", "check", "run.yaml", "good.yaml", "-o", "json"});
  EXPECT_EQ(result.code, 2);
  const Json json = Json::parse(result.out);
  EXPECT_EQ(json["files"][0]["ok"], false);
  EXPECT_EQ(json["files"][0]["problems"][0]["file"], "run.yaml");
  EXPECT_GE(json["files"][0]["problems"][0]["line"], 1);
  EXPECT_EQ(json["files"][1]["ok"], true);
}

TEST_F(ConfigVerbsTest, ShowAppliesVariablesAndSets) {
  folder_.Write("run.yaml", kGood);
  environment_["LOCKSTEP_TRAINING__DURATION"] = "7ep";
  environment_["LOCKSTEP_SEED"] = "not an override";
  const Result result =
      Lockstep({"config", "show", "run.yaml", "--set", "optimizer.learning_rate=0.25"});
  EXPECT_EQ(result.code, 0) << result.err;
  EXPECT_THAT(result.out, AllOf(HasSubstr("7ep"), HasSubstr("0.25"), HasSubstr("tiny")));
}

TEST_F(ConfigVerbsTest, WhatShowPrintsIsAConfigThatShowsTheSame) {
  folder_.Write("run.yaml", kGood);
  const Result first = Lockstep({"config", "show", "run.yaml", "--keep-auto"});
  folder_.Write("again.yaml", first.out);
  const Result second = Lockstep({"config", "show", "again.yaml", "--keep-auto"});
  EXPECT_EQ(second.code, 0) << second.err;
  EXPECT_EQ(first.out, second.out);
}

TEST_F(ConfigVerbsTest, AWrongOverrideNamesItself) {
  folder_.Write("run.yaml", kGood);
  const Result result = Lockstep({"config", "show", "run.yaml", "--set", "training.duration"});
  EXPECT_EQ(result.code, 2);
  EXPECT_THAT(result.err, HasSubstr("training.duration"));
}

TEST_F(ConfigVerbsTest, TheDaemonsConfigIsCheckedToo) {
  folder_.Write("lockstepd.yaml", "slots: 4\n");
  EXPECT_EQ(Lockstep({"config", "check", "--daemon", "lockstepd.yaml"}).code, 0);
  EXPECT_EQ(Lockstep({"config", "check", "lockstepd.yaml"}).code, 2);
  EXPECT_THAT(Lockstep({"config", "show", "--daemon", "lockstepd.yaml"}).out,
              HasSubstr("slots: 4"));
}

TEST_F(ConfigVerbsTest, TheSchemaIsJsonAndTheReferenceMarkdown) {
  const Json schema = Json::parse(Lockstep({"config", "schema"}).out);
  EXPECT_TRUE(schema["properties"].contains("training"));
  EXPECT_TRUE(
      Json::parse(Lockstep({"config", "schema", "--daemon"}).out)["properties"].contains("slots"));
  const std::string markdown = Lockstep({"config", "schema", "--markdown"}).out;
  EXPECT_THAT(markdown, AllOf(HasSubstr("| `training.duration` |"),
                              HasSubstr("| `optimizer.learning_rate` |")));
}

TEST_F(ConfigVerbsTest, EveryExampleIsGood) {
  const std::string folder = std::string(getenv("LOCKSTEP_SOURCE_DIR")) + "/config/examples";
  int examples = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (entry.path().extension() != ".yaml") continue;
    std::vector<std::string> arguments = {"config", "check", entry.path().string()};
    if (entry.path().filename().string().starts_with("lockstepd")) arguments.push_back("--daemon");
    const Result result = Lockstep(arguments);
    EXPECT_EQ(result.code, 0) << result.err;
    ++examples;
  }
  EXPECT_GT(examples, 0);
}

}  // namespace
}  // namespace lockstep::cli
