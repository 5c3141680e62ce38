#include "trainer/models/model.h"

#include "trainer/models/graph_model.h"

namespace lockstep::trainer {

std::unique_ptr<Model> MakeModel(const config::ModelConfig& config, const InputShape& input,
                                 uint64_t seed, Communicator* communicator) {
  // One rank alone has all the samples.
  const bool synchronized =
      config.sync_batch_norm && communicator != nullptr && communicator->size() > 1;
  return std::make_unique<GraphModel>(BuildGraph(config, input), seed,
                                      synchronized ? communicator : nullptr);
}

}  // namespace lockstep::trainer
