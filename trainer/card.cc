#include "trainer/card.h"

#include <array>
#include <cmath>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"

namespace lockstep::trainer {

using config::LossKind;
using nlohmann::json;

namespace {

constexpr int kFormatVersion = 1;

// The words of training.loss.name.
constexpr std::array<std::pair<LossKind, const char*>, 5> kLossNames = {{
    {LossKind::kCrossEntropy, "cross_entropy"},
    {LossKind::kBinaryCrossEntropy, "binary_cross_entropy"},
    {LossKind::kMse, "mse"},
    {LossKind::kMae, "mae"},
    {LossKind::kHuber, "huber"},
}};

absl::Status Wrong(const std::string& key, const std::string& what) {
  return absl::InvalidArgumentError(absl::StrCat("model card: ", key, ": ", what));
}

absl::StatusOr<LossKind> LossFrom(const std::string& word) {
  for (const auto& [kind, name] : kLossNames) {
    if (word == name) return kind;
  }
  return Wrong("loss", absl::StrCat("'", word, "' is no loss of this program"));
}

absl::StatusOr<std::vector<Target>> TargetsFrom(const json& list) {
  std::vector<Target> targets;
  for (const json& one : list) {
    Target target{one.at("name").get<std::string>(), one.at("mean").get<double>(),
                  one.at("std").get<double>()};
    if (!std::isfinite(target.mean) || !std::isfinite(target.std) || target.std <= 0) {
      return Wrong(absl::StrCat("targets[", targets.size(), "]"),
                   "mean must be finite and std above 0");
    }
    targets.push_back(std::move(target));
  }
  return targets;
}

}  // namespace

std::string ModelCard::ToJson() const {
  json list = json::array();
  for (const Target& target : targets) {
    list.push_back({{"name", target.name}, {"mean", target.mean}, {"std", target.std}});
  }
  const char* loss_name = kLossNames.front().second;
  for (const auto& [kind, name] : kLossNames) {
    if (kind == loss) loss_name = name;
  }
  const json card = {{"format_version", kFormatVersion},
                     {"run_yaml", run_yaml},
                     {"loss", loss_name},
                     {"preprocessing", json::parse(preprocessing.ToJson())},
                     {"classes", classes},
                     {"targets", list}};
  // A class may be named by a folder whose name is not UTF-8.
  return card.dump(2, ' ', false, json::error_handler_t::replace) + "\n";
}

absl::StatusOr<ModelCard> ModelCard::FromJson(const std::string& text) {
  ModelCard card;
  const char* key = "format_version";
  try {
    const json j = json::parse(text);
    const int version = j.at(key).get<int>();
    if (version != kFormatVersion) {
      return Wrong(key, absl::StrCat("is ", version, ", this program reads ", kFormatVersion));
    }
    card.run_yaml = j.at(key = "run_yaml").get<std::string>();
    const auto loss = LossFrom(j.at(key = "loss").get<std::string>());
    if (!loss.ok()) return loss.status();
    card.loss = *loss;
    card.preprocessing = Preprocessing::FromJson(j.at(key = "preprocessing").dump());
    card.classes = j.at(key = "classes").get<std::vector<std::string>>();
    auto targets = TargetsFrom(j.at(key = "targets"));
    if (!targets.ok()) return targets.status();
    card.targets = *std::move(targets);
  } catch (const json::exception& error) {
    return Wrong(key, error.what());
  } catch (const DataError& error) {
    return Wrong(key, error.what());
  }
  const bool classifier = card.loss == LossKind::kCrossEntropy;
  if (classifier == card.classes.empty() || classifier != card.targets.empty()) {
    return Wrong(classifier ? "classes" : "targets",
                 classifier ? "a classifier has classes and no targets"
                            : "a model of this loss has targets and no classes");
  }
  return card;
}

}  // namespace lockstep::trainer
