// predict: a few pictures at a time through the model, answers in the order of the arguments.
#include <algorithm>
#include <cstdio>
#include <iostream>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "config/exit_code.h"
#include "config/run_directory.h"
#include "trainer/inference/commands.h"
#include "trainer/inference/predictor.h"

namespace lockstep::trainer {
namespace {

using Json = nlohmann::ordered_json;

constexpr size_t kBatch = 16;
constexpr size_t kMaxFileBytes = 1u << 30;

struct Answer {
  std::string picture;
  Prediction prediction;
  std::string error;  // In place of a prediction.
};

std::vector<std::string> Expand(const std::vector<std::string>& pictures) {
  std::vector<std::string> all;
  for (const std::string& picture : pictures) {
    if (picture != "-") {
      all.push_back(picture);
      continue;
    }
    std::string line;
    while (std::getline(std::cin, line)) {
      if (!line.empty()) all.push_back(line);
    }
  }
  return all;
}

// The picture as the model sees it; what is wrong with it otherwise.
std::string ReadPicture(const std::string& path, const Preprocessing& preprocessing, Picture& out) {
  const auto bytes = config::ReadFile(path, kMaxFileBytes);
  if (!bytes.ok()) return std::string(bytes.status().message());
  try {
    Prepare(std::as_bytes(std::span(*bytes)), path, preprocessing, out);
  } catch (const DataError& error) {
    return error.what();
  }
  return {};
}

Json ToJson(const Answer& answer) {
  Json json = {{"picture", answer.picture}};
  if (!answer.error.empty()) json["error"] = answer.error;
  for (const auto& [name, probability] : answer.prediction.labels) {
    json["labels"].push_back({{"name", name}, {"probability", probability}});
  }
  for (const auto& [name, value] : answer.prediction.numbers) {
    json["numbers"].push_back({{"name", name}, {"value", value}});
  }
  return json;
}

void PrintTable(const std::vector<Answer>& answers) {
  size_t width = 0;
  for (const Answer& answer : answers) {
    if (answer.error.empty()) width = std::max(width, answer.picture.size());
  }
  for (const Answer& answer : answers) {
    if (!answer.error.empty()) continue;
    std::printf("%-*s  %s\n", static_cast<int>(width), answer.picture.c_str(),
                ToText(answer.prediction).c_str());
  }
}

}  // namespace

int Run(const PredictCommand& command) {
  const auto model = OpenChosen(command.model);
  if (!model.ok()) return Fail("predict", model.status());
  Predictor predictor(*model);
  std::vector<Answer> answers;
  for (const std::string& picture : Expand(command.pictures)) answers.push_back({picture, {}, {}});
  for (size_t begin = 0; begin < answers.size(); begin += kBatch) {
    const size_t end = std::min(answers.size(), begin + kBatch);
    std::vector<Picture> pictures;
    std::vector<Answer*> asked;
    for (size_t i = begin; i < end; ++i) {
      Picture picture;
      answers[i].error = ReadPicture(answers[i].picture, model->card.preprocessing, picture);
      if (!answers[i].error.empty()) {
        std::fprintf(stderr, "lockstep-trainer predict: %s\n", answers[i].error.c_str());
        continue;
      }
      pictures.push_back(std::move(picture));
      asked.push_back(&answers[i]);
    }
    if (pictures.empty()) continue;
    const auto rows = predictor.Logits(pictures);
    for (size_t i = 0; i < rows.size(); ++i) {
      asked[i]->prediction = Interpret(rows[i], model->card, command.top_k);
    }
  }
  if (command.json) {
    Json json = {{"checkpoint", model->checkpoint.string()},
                 {"step", model->step},
                 {"pictures", Json::array()}};
    for (const Answer& answer : answers) json["pictures"].push_back(ToJson(answer));
    std::printf("%s\n", json.dump(2, ' ', false, Json::error_handler_t::replace).c_str());
  } else {
    PrintTable(answers);
  }
  const bool all_good = std::all_of(answers.begin(), answers.end(),
                                    [](const Answer& answer) { return answer.error.empty(); });
  return static_cast<int>(all_good ? config::ExitCode::kOk : config::ExitCode::kRunFailed);
}

}  // namespace lockstep::trainer
