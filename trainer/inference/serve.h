// The process that holds a model for the coordinator: its side of the talk over a socket
// (proto/lockstep/v1/predict.proto, config/frame.h). Neither protobuf nor LibTorch in this header.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "trainer/inference/prediction.h"

namespace lockstep::trainer {

struct ServedModel {
  std::string checkpoint;
  int64_t step = 0;
  /// Throws DataError where the bytes are no picture; any other exception ends the process.
  std::function<Prediction(std::span<const std::byte> picture, const std::string& name, int top_k)>
      predict;
};

/// Loads, says so (or why not), then answers until the other end closes, which is OK. What `load`
/// says is returned too; DATA_LOSS: the other end spoke garbage.
absl::Status Serve(int socket, const std::function<absl::StatusOr<ServedModel>()>& load);

}  // namespace lockstep::trainer
