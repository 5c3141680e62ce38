#include "trainer/step/replica_guard.h"

#include <ATen/ops/zeros.h>
#include <xxhash.h>

#include <algorithm>
#include <cstdio>
#include <string>
#include <vector>

namespace lockstep::trainer {
namespace {

std::string Hex(int64_t hash) {
  char text[17];
  std::snprintf(text, sizeof(text), "%016llx", static_cast<unsigned long long>(hash));
  return text;
}

// The hash that most ranks have; rank 0's when it is among several that equally many have.
int64_t MajorityHash(const std::vector<int64_t>& hashes) {
  int64_t majority = hashes[0];
  auto most = std::count(hashes.begin(), hashes.end(), majority);
  for (const int64_t hash : hashes) {
    const auto votes = std::count(hashes.begin(), hashes.end(), hash);
    if (votes > most) {
      most = votes;
      majority = hash;
    }
  }
  return majority;
}

}  // namespace

uint64_t ReplicaHash(const GradientArena& arena) {
  const at::Tensor parameters = arena.parameters().cpu();
  const at::Tensor buffers = arena.buffers().cpu();
  const uint64_t first = XXH3_64bits(parameters.const_data_ptr(), parameters.nbytes());
  return XXH3_64bits_withSeed(buffers.const_data_ptr(), buffers.nbytes(), first);
}

void CheckReplicas(const GradientArena& arena, Communicator& communicator, int64_t step) {
  // Every rank adds its hash to zeros in its own place: an exact gather, int64 has no rounding.
  at::Tensor slots = at::zeros({communicator.size()}, at::kLong);
  auto* values = slots.mutable_data_ptr<int64_t>();
  values[communicator.rank()] = static_cast<int64_t>(ReplicaHash(arena));
  communicator.AllReduce(slots);
  communicator.Wait();
  const std::vector<int64_t> hashes(values, values + communicator.size());
  const int64_t majority = MajorityHash(hashes);
  std::string differing;
  int count = 0;
  for (size_t rank = 0; rank < hashes.size(); ++rank) {
    if (hashes[rank] == majority) continue;
    differing += (count++ ? ", " : "") + std::to_string(rank) + " (" + Hex(hashes[rank]) + ")";
  }
  if (count == 0) return;
  throw ReplicasDiffer("replicas differ at step " + std::to_string(step) + ": " +
                       (count == 1 ? "rank " : "ranks ") + differing +
                       " against the others' hash " + Hex(majority) +
                       ". HINT: a memory or hardware fault, or a rank that computed with another "
                       "number of threads; the last checkpoint before this step is good.");
}

}  // namespace lockstep::trainer
