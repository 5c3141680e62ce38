#include "launch/cli/served.h"

#include <filesystem>
#include <fstream>
#include <iostream>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "config/run_directory.h"
#include "launch/cli/format.h"
#include "launch/cli/run_json.h"
#include "launch/cli/table.h"
#include "launch/cli/verbs.h"

namespace lockstep::cli {
namespace {

using config::ExitCode;

constexpr size_t kMaxPictureBytes = 32u << 20;  // As the coordinator takes.
// The first question waits until the model is in memory.
constexpr double kPredictSeconds = 120;

std::string Answer(const v1::Prediction& prediction) {
  std::vector<std::string> parts;
  for (const auto& label : prediction.labels()) {
    parts.push_back(absl::StrCat(Printable(label.name()), " ", FormatRatio(label.probability())));
  }
  for (const auto& number : prediction.numbers()) {
    parts.push_back(
        absl::StrCat(Printable(number.name()), " ", absl::StrFormat("%.6g", number.value())));
  }
  return absl::StrJoin(parts, ", ");
}

Json ToJson(const v1::Prediction& prediction) {
  Json json = Json::object();
  for (const auto& label : prediction.labels()) {
    json["labels"].push_back({{"name", label.name()}, {"probability", label.probability()}});
  }
  for (const auto& number : prediction.numbers()) {
    json["numbers"].push_back({{"name", number.name()}, {"value", number.value()}});
  }
  return json;
}

// `-` stands for a list of paths on standard input.
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

v1::PredictRequest RequestFor(const std::string& model) {
  v1::PredictRequest request;
  std::error_code error;
  if (std::filesystem::is_directory(model, error)) {
    request.set_checkpoint(std::filesystem::absolute(model, error).lexically_normal().string());
  } else {
    request.set_run(model);
  }
  return request;
}

}  // namespace

int PredictServed(Context& context, const ServedPredict& options) {
  v1::PredictRequest request = RequestFor(options.model);
  request.set_top_k(options.top_k);
  Client client = MakeClient(context, kPredictSeconds);
  Table table({{"PICTURE"}, {"PREDICTION"}});
  Json json = {{"checkpoint", nullptr}, {"step", nullptr}, {"pictures", Json::array()}};
  int bad = 0;
  for (const std::string& picture : Expand(options.pictures)) {
    const auto bytes = config::ReadFile(picture, kMaxPictureBytes);
    absl::Status status = bytes.status();
    if (bytes.ok()) {
      request.set_picture(*bytes);
      request.set_picture_name(picture);
      const auto response = client.Read(&ControlStub::Predict, request);
      status = response.status();
      if (response.ok()) {
        json["checkpoint"] = response->checkpoint();
        json["step"] = response->step();
        Json one = {{"picture", picture}};
        one.update(ToJson(response->prediction()));
        json["pictures"].push_back(one);
        table.Add({Printable(picture), Answer(response->prediction())});
        continue;
      }
      // Of the model or the coordinator, not of this picture: the others would fare alike.
      if (!absl::IsInvalidArgument(status)) return Fail(context, "predict", status);
    }
    ++bad;
    json["pictures"].push_back({{"picture", picture}, {"error", status.message()}});
    context.Say(absl::StrCat("lockstep predict: ", Printable(status.message())));
  }
  if (context.json()) {
    context.out.Write(Document(json));
  } else if (!table.empty()) {
    context.out.Write(table.Render());
  }
  return Code(bad == 0 ? ExitCode::kOk : ExitCode::kRunFailed);
}

}  // namespace lockstep::cli
