// Are the replicas still equal? Compares a hash of parameters and buffers over all ranks and names
// the rank that differs.
#pragma once

#include <cstdint>
#include <stdexcept>

#include "trainer/comm/communicator.h"
#include "trainer/step/gradient_arena.h"

namespace lockstep::trainer {

class ReplicasDiffer : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// Collective. Throws ReplicasDiffer on every rank, with the same text: which ranks differ from the
/// majority (from rank 0 on a tie) and the step.
void CheckReplicas(const GradientArena& arena, Communicator& communicator, int64_t step);

/// 64-bit hash of the bytes of parameters() and buffers().
uint64_t ReplicaHash(const GradientArena& arena);

}  // namespace lockstep::trainer
