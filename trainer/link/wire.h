// The structs of trainer/link/reports.h as messages of lockstep.v1, and orders back. Only for
// sources that see no LibTorch.
#pragma once

#include <optional>
#include <string>

#include "lockstep/v1/rank.pb.h"
#include "trainer/link/coordinator_link.h"

namespace lockstep::trainer {

v1::Progress ToWire(const ProgressReport& progress);
v1::Evaluation ToWire(const EvaluationReport& evaluation);
v1::CheckpointEvent ToWire(const CheckpointReport& checkpoint);
v1::Hello ToWire(const LinkOptions& options, const std::optional<ProgressReport>& progress);
/// Nothing for an order of a kind that this trainer does not know.
std::optional<Order> FromWire(const v1::Order& order);

}  // namespace lockstep::trainer
