// The model card: what is written is what is read, and what is wrong is named.
#include "trainer/card.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace lockstep::trainer {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

ModelCard Classifier() {
  ModelCard card;
  card.run_yaml = "name: demo\nseed: 7\n";
  card.classes = {"cat", "dög", "a \"quoted\" one"};
  card.preprocessing = {
      3, 224, 200, config::ResizeRule::kCrop, 256, true, {0.1, 0.2, 1.0 / 3}, {0.7, 0.8, 0.9}};
  return card;
}

ModelCard Regression() {
  ModelCard card = Classifier();
  card.loss = config::LossKind::kHuber;
  card.classes.clear();
  card.targets = {{"price", 1.0 / 3, 1e-7}, {"age", -12.5, 1e9}};
  return card;
}

std::string ErrorOf(const json& j) {
  return std::string(ModelCard::FromJson(j.dump()).status().message());
}

TEST(CardTest, EveryDoubleComesBackToTheBit) {
  for (const ModelCard& card : {Classifier(), Regression()}) {
    const auto read = ModelCard::FromJson(card.ToJson());
    ASSERT_TRUE(read.ok()) << read.status();
    EXPECT_EQ(read->run_yaml, card.run_yaml);
    EXPECT_EQ(read->loss, card.loss);
    EXPECT_EQ(read->preprocessing, card.preprocessing);
    EXPECT_EQ(read->classes, card.classes);
    ASSERT_EQ(read->targets.size(), card.targets.size());
    for (size_t i = 0; i < card.targets.size(); ++i) {
      EXPECT_EQ(read->targets[i].name, card.targets[i].name);
      EXPECT_EQ(read->targets[i].mean, card.targets[i].mean);
      EXPECT_EQ(read->targets[i].std, card.targets[i].std);
    }
  }
}

TEST(CardTest, WhatIsMissingOrOfAnotherTypeIsNamed) {
  const json good = json::parse(Classifier().ToJson());
  for (const auto& [key, value] : good.items()) {
    json without = good;
    without.erase(key);
    EXPECT_THAT(ErrorOf(without), HasSubstr(key));
    json other = good;
    other[key] = json::object({{"x", 1}});
    EXPECT_THAT(ErrorOf(other), HasSubstr(key));
  }
}

TEST(CardTest, TextThatIsNoCardIsAnError) {
  for (const char* text : {"", "{", "[]", "null", "7"}) {
    EXPECT_TRUE(absl::IsInvalidArgument(ModelCard::FromJson(text).status())) << text;
  }
}

TEST(CardTest, ContradictionsAreRefused) {
  json card = json::parse(Classifier().ToJson());
  card["loss"] = "mse";
  EXPECT_THAT(ErrorOf(card), HasSubstr("targets"));
  card["loss"] = "guess";
  EXPECT_THAT(ErrorOf(card), HasSubstr("'guess'"));
  json regression = json::parse(Regression().ToJson());
  regression["targets"][1]["std"] = 0;
  EXPECT_THAT(ErrorOf(regression), HasSubstr("targets[1]"));
  regression = json::parse(Regression().ToJson());
  regression["format_version"] = 2;
  EXPECT_THAT(ErrorOf(regression), HasSubstr("is 2"));
}

}  // namespace
}  // namespace lockstep::trainer
