#include "trainer/models/model.h"

#include <stdexcept>
#include <string>

#include "absl/strings/str_cat.h"
#include "trainer/models/cnn.h"
#include "trainer/models/resnet.h"

namespace lockstep::trainer {
namespace {

struct Row {
  const char* name;
  std::unique_ptr<Model> (*make)(const config::ModelConfig&, const InputShape&, uint64_t seed,
                                 Communicator* communicator);
};

template <const ResNetDesign& design>
std::unique_ptr<Model> MakeResNetOf(const config::ModelConfig& config, const InputShape& input,
                                    uint64_t seed, Communicator* communicator) {
  return MakeResNet(design, config, input, seed, communicator);
}

constexpr Row kModels[] = {
    {"cnn", MakeCnn},
    {"resnet18", MakeResNetOf<kResNet18>},
};

}  // namespace

std::unique_ptr<Model> MakeModel(const config::ModelConfig& config, const InputShape& input,
                                 uint64_t seed, Communicator* communicator) {
  if (config.num_classes <= 0) {
    throw std::invalid_argument(absl::StrCat(
        "model.num_classes: a model needs at least one class, not ", config.num_classes, "."));
  }
  if (input.channels <= 0 || input.height <= 0 || input.width <= 0) {
    throw std::invalid_argument(absl::StrCat("A model cannot take pictures of ", input.height, "x",
                                             input.width, " pixels and ", input.channels,
                                             " channels."));
  }
  // One rank alone has all the samples.
  const bool synchronized =
      config.sync_batch_norm && communicator != nullptr && communicator->size() > 1;
  std::string known;
  for (const Row& row : kModels) {
    if (config.name == row.name) {
      return row.make(config, input, seed, synchronized ? communicator : nullptr);
    }
    absl::StrAppend(&known, known.empty() ? "" : ", ", row.name);
  }
  throw std::invalid_argument(
      absl::StrCat("model.name: unknown model '", config.name, "'; known are ", known, "."));
}

}  // namespace lockstep::trainer
