// What every verb begins and ends with.
#include <cstdio>

#include "config/exit_code.h"
#include "trainer/inference/commands.h"

namespace lockstep::trainer {
namespace {

using config::ExitCode;

ExitCode CodeOf(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kOk:
      return ExitCode::kOk;
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kAlreadyExists:
      return ExitCode::kUsage;
    case absl::StatusCode::kNotFound:
      return ExitCode::kNotFound;
    case absl::StatusCode::kFailedPrecondition:
      return ExitCode::kWrongState;
    case absl::StatusCode::kPermissionDenied:
      return ExitCode::kDenied;
    default:
      return ExitCode::kRunFailed;
  }
}

}  // namespace

int Fail(const char* verb, const absl::Status& status) {
  std::fprintf(stderr, "lockstep-trainer %s: %s\n", verb, std::string(status.message()).c_str());
  return static_cast<int>(CodeOf(status));
}

absl::StatusOr<TrainedModel> OpenChosen(const ModelChoice& choice) {
  auto model = OpenTrainedModel(choice.path, choice.step);
  if (!model.ok()) return model;
  for (const std::string& line : model->passed) std::fprintf(stderr, "%s\n", line.c_str());
  std::fprintf(stderr, "%s: %s\n", model->config.model.name.c_str(),
               model->checkpoint.string().c_str());
  return model;
}

}  // namespace lockstep::trainer
