// Every model gives torchvision's logits (golden.json, written by parity_test.py --write-golden)
// for weights and pictures of a recipe: the parity check where torchvision is not installed.
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>

#include "tests/trainer/models/recipe.h"

namespace lockstep::trainer {
namespace {

nlohmann::json Golden() {
  const char* source = std::getenv("LOCKSTEP_SOURCE_DIR");
  if (source == nullptr) return nlohmann::json::array();
  std::ifstream in(std::string(source) + "/tests/trainer/models/golden.json");
  return nlohmann::json::parse(in);
}

TEST(GoldenTest, EveryModelGivesTorchvisionsLogits) {
  const at::NoGradGuard no_grad;
  std::set<std::string> seen;
  for (const nlohmann::json& row : Golden()) {
    const std::string name = row["model"];
    SCOPED_TRACE(name);
    seen.insert(name);
    config::ModelConfig config;
    config.name = name;
    config.stem = "imagenet";
    config.num_classes = row["classes"];
    config.auxiliary_loss_weight = 0;
    const InputShape input{3, row["pixels"], row["pixels"]};
    const auto model = MakeModel(config, input, 1);
    FillByRecipe(*model);
    model->SetTraining(false);
    const at::Tensor logits = model->Forward(RecipePictures(2, input)).logits;
    double largest = 0, apart = 0;
    for (int64_t i = 0; i < logits.size(0); ++i) {
      for (int64_t j = 0; j < logits.size(1); ++j) {
        const double expected = row["logits"][i][j];
        largest = std::max(largest, std::abs(expected));
        apart = std::max(apart, std::abs(logits[i][j].item<double>() - expected));
      }
    }
    ASSERT_GT(largest, 0);
    EXPECT_LE(apart / largest, 1e-4);
  }
  EXPECT_EQ(seen.size(), 15u);
}

}  // namespace
}  // namespace lockstep::trainer
