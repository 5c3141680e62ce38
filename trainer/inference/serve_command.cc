// serve: one model in memory, asked by the coordinator.
#include <memory>
#include <stdexcept>

#include "config/exit_code.h"
#include "trainer/inference/commands.h"
#include "trainer/inference/predictor.h"
#include "trainer/inference/serve.h"

namespace lockstep::trainer {

int Run(const ServeCommand& command) {
  const auto load = [&]() -> absl::StatusOr<ServedModel> {
    const auto model = OpenChosen(command.model);
    if (!model.ok()) return model.status();
    try {
      // Shared: a function is copied.
      const auto predictor = std::make_shared<Predictor>(*model);
      return ServedModel{
          .checkpoint = model->checkpoint.string(),
          .step = model->step,
          .predict = [predictor](auto... arguments) { return predictor->Predict(arguments...); }};
    } catch (const std::invalid_argument& error) {
      return absl::FailedPreconditionError(error.what());
    }
  };
  const absl::Status served = Serve(command.socket, load);
  if (!served.ok()) return Fail("serve", served);
  return static_cast<int>(config::ExitCode::kOk);
}

}  // namespace lockstep::trainer
