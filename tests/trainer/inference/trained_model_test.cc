// Finding a model on disk: which checkpoint of a run, and what is said of one that cannot be used.
#include "trainer/inference/trained_model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "config/load.h"
#include "tests/trainer/pictures/temp_folder.h"
#include "trainer/checkpoint/store.h"
#include "trainer/training_state.h"

namespace lockstep::trainer {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

constexpr char kYaml[] = R"(name: demo
data: {kind: shapes, image_size: 16, train_samples: 100, eval_samples: 10}
model: {name: cnn, num_classes: 2, cnn: {blocks: [{filters: 4}], global_pool: true}}
training: {duration: 100st, global_batch_size: 8}
)";

class TrainedModelTest : public ::testing::Test {
 protected:
  TrainedModelTest() {
    card_.run_yaml = kYaml;
    card_.classes = {"cat", "dog"};
    card_.preprocessing = {3,        16, 16, config::ResizeRule::kCrop, 16, false, {0.5, 0.5, 0.5},
                           {1, 1, 1}};
    std::filesystem::create_directories(run());
    WriteYaml(kYaml);
  }
  std::filesystem::path run() const { return folder_.path() / "run"; }
  void WriteYaml(const std::string& yaml) { std::ofstream(run() / "run.yaml") << yaml; }

  void Commit(int64_t step, std::optional<double> metric, const std::string& card) {
    TrainingState state;
    state.step = step;
    state.card = card;
    const std::vector<float> values = {1, 2};
    const TensorBytes tensor{"w", "F32", {2}, std::as_bytes(std::span(values))};
    CheckpointStore store(run() / "checkpoints", 1, {.keep_last = 100});
    ASSERT_TRUE(store.Open().ok());
    const absl::Status committed = store.Commit(step, {{tensor}, {tensor}, state.ToJson()}, metric);
    ASSERT_TRUE(committed.ok()) << committed;
  }
  void Commit(int64_t step, std::optional<double> metric = {}) {
    Commit(step, metric, card_.ToJson());
  }
  void Damage(int64_t step) {
    const CheckpointStore store(run() / "checkpoints", 0, {});
    std::ofstream(store.PathOf(step) / "weights.safetensors", std::ios::app) << "x";
  }
  int64_t StepOf() {
    const auto model = OpenTrainedModel(run());
    EXPECT_TRUE(model.ok()) << model.status();
    return model.ok() ? model->step : -1;
  }

  TempFolder folder_;
  ModelCard card_;
};

TEST_F(TrainedModelTest, OfARunItIsTheBestAndOfEqualOnesTheNewest) {
  Commit(10, 0.7);
  Commit(20, 0.9);
  Commit(30, 0.9);
  Commit(40, 0.8);
  Commit(50);
  EXPECT_EQ(StepOf(), 30);
}

TEST_F(TrainedModelTest, WhereLowerIsBetterItIsTheLowest) {
  WriteYaml(std::string(kYaml) + "checkpoint: {best_metric: val_loss}\n");
  Commit(10, 0.7);
  Commit(20, 0.3);
  Commit(30, 0.9);
  EXPECT_EQ(StepOf(), 20);
}

TEST_F(TrainedModelTest, WithoutMetricsItIsTheNewest) {
  Commit(10);
  Commit(30);
  Commit(20);
  EXPECT_EQ(StepOf(), 30);
}

TEST_F(TrainedModelTest, ADamagedOneIsPassedOverAndNamed) {
  Commit(10, 0.7);
  Commit(20, 0.9);
  Damage(20);
  const auto model = OpenTrainedModel(run());
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_EQ(model->step, 10);
  ASSERT_EQ(model->passed.size(), 1u);
  EXPECT_THAT(model->passed[0], HasSubstr("step-000000020"));
  Damage(10);
  EXPECT_TRUE(absl::IsDataLoss(OpenTrainedModel(run()).status()));
}

TEST_F(TrainedModelTest, ANamedCheckpointIsTakenOrRefusedAndNoOther) {
  Commit(10, 0.7);
  Commit(20, 0.9);
  const std::filesystem::path ten = run() / "checkpoints/step-000000010/";
  const auto model = OpenTrainedModel(ten);
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_EQ(model->step, 10);
  EXPECT_EQ(model->run_dir, run());
  EXPECT_EQ(model->outputs(), 2);
  EXPECT_TRUE(model->loaded.optimizer_file.empty());
  EXPECT_EQ(OpenTrainedModel(run(), 10)->step, 10);
  EXPECT_TRUE(absl::IsInvalidArgument(OpenTrainedModel(ten, 20).status()));
  Damage(10);
  EXPECT_TRUE(absl::IsDataLoss(OpenTrainedModel(ten).status()));
  EXPECT_TRUE(absl::IsDataLoss(OpenTrainedModel(run(), 10).status()));
}

TEST_F(TrainedModelTest, WhatIsNotThereIsNotFound) {
  EXPECT_TRUE(absl::IsNotFound(OpenTrainedModel(folder_.path() / "nothing").status()));
  const absl::Status neither = OpenTrainedModel(folder_.path()).status();
  EXPECT_TRUE(absl::IsNotFound(neither));
  EXPECT_THAT(std::string(neither.message()), HasSubstr("manifest.json"));
  std::filesystem::create_directories(run() / "checkpoints");
  EXPECT_TRUE(absl::IsNotFound(OpenTrainedModel(run()).status()));
  Commit(10);
  EXPECT_TRUE(absl::IsNotFound(OpenTrainedModel(run(), 7).status()));
}

TEST_F(TrainedModelTest, ACheckpointWithoutACardSaysHowToGetOne) {
  Commit(10, 0.5, "");
  const absl::Status status = OpenTrainedModel(run()).status();
  EXPECT_TRUE(absl::IsFailedPrecondition(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("Resume the run"));
}

TEST_F(TrainedModelTest, ACardThatDoesNotFitIsNamed) {
  card_.classes.push_back("emu");
  Commit(10);
  EXPECT_THAT(std::string(OpenTrainedModel(run()).status().message()),
              HasSubstr("2 outputs, but its card names 3"));
  card_.classes.pop_back();
  card_.run_yaml = "name: demo\nmodel: {nam: cnn}\n";
  Commit(20);
  EXPECT_THAT(std::string(OpenTrainedModel(run(), 20).status().message()), HasSubstr("nam"));
  json broken =
      json::parse(ModelCard{kYaml, card_.loss, card_.preprocessing, {"a", "b"}, {}}.ToJson());
  broken["preprocessing"]["mean"] = "grey";
  Commit(30, {}, broken.dump());
  const absl::Status status = OpenTrainedModel(run(), 30).status();
  EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("preprocessing"));
}

}  // namespace
}  // namespace lockstep::trainer
