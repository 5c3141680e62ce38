// evaluate, predict, export, compare: what is passed on to lockstep-trainer, and what is read.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "tests/launch/cli/fake_coordinator.h"
#include "tests/launch/cli/process.h"

namespace lockstep::cli {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using Json = nlohmann::json;
namespace fs = std::filesystem;

// A copy of the program with a lockstep-trainer beside it that only says what it was told.
class ModelVerbsTest : public ::testing::Test {
 protected:
  ModelVerbsTest() : coordinator_((folder_.path() / "sock").string()) {
    v1::Run run = ExampleRun("a1b2c3", v1::RUN_STATE_COMPLETED);
    run.set_run_dir("/runs/a1b2c3");
    run.set_config_yaml(Yaml("first", "max"));
    coordinator_.Put(run);
    coordinator_.Start();
    fs::create_directory(folder_.path() / "bin");
    fs::copy_file(LOCKSTEP_PROGRAM, Program());
    const fs::path trainer = folder_.Write(
        "bin/lockstep-trainer",
        "#!/bin/sh\nfor one; do echo \"<$one>\"; done\necho talk >&2\nexit ${FAKE_EXIT:-0}\n");
    chmod(trainer.c_str(), 0755);
  }
  std::string Program() const { return (folder_.path() / "bin/lockstep").string(); }
  Result Lockstep(std::vector<std::string> arguments, const std::string& exit = "0") {
    arguments.insert(arguments.begin(), Program());
    return RunToEnd(arguments, {.environment = {{"LOCKSTEP_SOCKET", coordinator_.socket()},
                                                {"FAKE_EXIT", exit}}});
  }
  static std::string Yaml(const std::string& name, const std::string& pool) {
    return "name: " + name +
           "\ndata: {kind: shapes, train_samples: 100, eval_samples: 10}\n"
           "model: {name: cnn, cnn: {blocks: [{filters: 4, pool: " +
           pool + "}]}}\ntraining: {duration: 10st, global_batch_size: 8}\n";
  }
  std::string RunFolder(const std::string& name, const std::string& pool, double loss) {
    fs::create_directory(folder_.path() / name);
    folder_.Write(name + "/run.yaml", Yaml(name, pool));
    folder_.Write(name + "/result.json",
                  Json{{"state", "COMPLETED"},
                       {"steps", 10},
                       {"epochs", 2.5},
                       {"seconds", 61.0},
                       {"last_evaluation", {{"step", 10}, {"loss", loss}, {"top1", 0.5}}},
                       {"best_evaluation", {{"step", 8}, {"loss", loss / 2}, {"top1", 0.6}}}}
                      .dump());
    return (folder_.path() / name).string();
  }

  TempFolder folder_;
  FakeCoordinator coordinator_;
};

TEST_F(ModelVerbsTest, APathAndTheOptionsGoToTheTrainerAsTheyAre) {
  const std::string path = folder_.path().string();
  const Result result = Lockstep({"evaluate", path, "--data", "my photos", "--split", "test",
                                  "--report", "out", "-o", "json"});
  EXPECT_EQ(result.code, 0) << result.err;
  EXPECT_EQ(result.out,
            "<evaluate>\n<--data>\n<my photos>\n<--split>\n<test>\n<--report>\n<out>\n<--output>\n"
            "<json>\n<-->\n<" +
                path + ">\n");
  EXPECT_EQ(result.err, "talk\n");
}

TEST_F(ModelVerbsTest, ARunsNameBecomesItsFolder) {
  EXPECT_THAT(Lockstep({"export", "a1b2", "--format", "onnx", "--fp16"}).out,
              HasSubstr("<export>\n<--format>\n<onnx>\n<--fp16>\n<-->\n</runs/a1b2c3>\n"));
}

TEST_F(ModelVerbsTest, TheTrainersExitCodeIsTheVerbs) {
  EXPECT_EQ(Lockstep({"predict", "a1b2", "x.jpg"}, "22").code, 22);
}

TEST_F(ModelVerbsTest, PicturesComeLastBehindTheModel) {
  const Result result = Lockstep({"predict", "a1b2", "--top-k", "3", "a.jpg", "b.jpg"});
  EXPECT_THAT(result.out, HasSubstr("<--top-k>\n<3>\n<-->\n</runs/a1b2c3>\n<a.jpg>\n<b.jpg>\n"));
}

TEST_F(ModelVerbsTest, AModelThatIsNowhereIsExitThree) {
  const Result path = Lockstep({"evaluate", "/no/such/folder"});
  EXPECT_EQ(path.code, 3);
  EXPECT_THAT(path.err, HasSubstr("/no/such/folder"));
  const Result run = Lockstep({"evaluate", "nobody"});
  EXPECT_EQ(run.code, 3);
  EXPECT_THAT(run.err, HasSubstr("nobody"));
}

TEST_F(ModelVerbsTest, WithoutACoordinatorANameIsExitFiveAndAPathWorks) {
  coordinator_.Stop();
  EXPECT_EQ(Lockstep({"evaluate", "nobody"}).code, 5);
  EXPECT_EQ(Lockstep({"evaluate", folder_.path().string()}).code, 0);
}

TEST_F(ModelVerbsTest, ConfigShowModelAsksTheTrainer) {
  EXPECT_EQ(Lockstep({"config", "show", "--model", "run.yaml", "--set", "a.b=c"}).out,
            "<describe>\n<--set>\n<a.b=c>\n<-->\n<run.yaml>\n");
}

TEST_F(ModelVerbsTest, ServedPredictionsNameTheBadPictureAndGoOn) {
  const std::string good = folder_.Write("good.jpg", "picture").string();
  const std::string bad = folder_.Write("bad.jpg", "text").string();
  const Result result = Lockstep({"predict", "--served", "a1b2", bad, "/no/file.jpg", good});
  EXPECT_EQ(result.code, 1);
  EXPECT_THAT(result.out, AllOf(HasSubstr(good), HasSubstr("cat 93.1%")));
  EXPECT_THAT(result.err, AllOf(HasSubstr("bad.jpg: is no picture"), HasSubstr("/no/file.jpg")));
  EXPECT_EQ(coordinator_.last_predict().run(), "a1b2");
  EXPECT_EQ(coordinator_.last_predict().top_k(), 5);
}

TEST_F(ModelVerbsTest, ServedPredictionsAsJsonHaveTheTrainersForm) {
  const std::string good = folder_.Write("good.jpg", "picture").string();
  const Result result =
      Lockstep({"predict", "--served", folder_.path().string(), good, "-o", "json"});
  ASSERT_EQ(result.code, 0) << result.err;
  const Json json = Json::parse(result.out);
  EXPECT_EQ(json["step"], 12);
  EXPECT_EQ(json["pictures"][0]["picture"], good);
  EXPECT_EQ(json["pictures"][0]["labels"][0]["name"], "cat");
  EXPECT_EQ(coordinator_.last_predict().checkpoint(), folder_.path().string());
}

TEST_F(ModelVerbsTest, ServedPredictionsEndWhenTheModelCannotBeHad) {
  coordinator_.FailNext("Predict", {grpc::StatusCode::DATA_LOSS, "no good checkpoint"});
  const std::string good = folder_.Write("good.jpg", "picture").string();
  const Result result = Lockstep({"predict", "--served", "a1b2", good, good});
  EXPECT_NE(result.code, 0);
  EXPECT_THAT(result.err, HasSubstr("no good checkpoint"));
}

TEST_F(ModelVerbsTest, CompareShowsOnlyTheSettingsThatDiffer) {
  const std::string one = RunFolder("one", "max", 0.4);
  const std::string two = RunFolder("two", "average", 0.3);
  const Result result = Lockstep({"compare", one, two});
  EXPECT_EQ(result.code, 0) << result.err;
  EXPECT_THAT(result.out,
              AllOf(HasSubstr("model.cnn.blocks[0].pool"), HasSubstr("average"),
                    Not(HasSubstr("filters")), HasSubstr("best val_top1"), HasSubstr("1m01s")));
}

TEST_F(ModelVerbsTest, CompareTakesRunsOfTheCoordinatorToo) {
  const Result result =
      Lockstep({"compare", "a1b2", RunFolder("two", "average", 0.3), "-o", "json"});
  ASSERT_EQ(result.code, 0) << result.err;
  const Json json = Json::parse(result.out);
  EXPECT_EQ(json["differing"], Json::array({"model.cnn.blocks[0].pool"}));
  EXPECT_EQ(json["runs"][0]["settings"]["model.cnn.blocks[0].pool"], "max");
  EXPECT_EQ(json["runs"][0]["cost"], 0.0123);
  EXPECT_EQ(json["runs"][1]["best_evaluation"]["top1"], 0.6);
  EXPECT_EQ(json["runs"][1]["cost"], nullptr);
}

TEST_F(ModelVerbsTest, CompareReadsARunThatHasNotEnded) {
  const std::string one = RunFolder("one", "max", 0.4);
  fs::remove(fs::path(one) / "result.json");
  folder_.Write("one/metrics.jsonl",
                "{\"kind\": \"eval\", \"step\": 5, \"epoch\": 1, \"loss\": 0.7, \"seconds\": 3}\n"
                "{\"kind\": \"step\", \"step\": 6, \"epoch\": 1.2, \"loss\": 0.6, \"sec");
  const Result result = Lockstep({"compare", one, "-o", "json"});
  ASSERT_EQ(result.code, 0) << result.err;
  const Json run = Json::parse(result.out)["runs"][0];
  EXPECT_EQ(run["steps"], 5);
  EXPECT_EQ(run["last_evaluation"]["loss"], 0.7);
}

TEST_F(ModelVerbsTest, CompareNamesWhatIsNoRun) {
  const Result result = Lockstep({"compare", folder_.path().string()});
  EXPECT_EQ(result.code, 3);
  EXPECT_THAT(result.err, HasSubstr("is no run directory"));
}

}  // namespace
}  // namespace lockstep::cli
