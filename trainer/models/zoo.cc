// The table of models.
#include <stdexcept>
#include <string>

#include "absl/strings/str_cat.h"
#include "trainer/models/cnn.h"
#include "trainer/models/graph.h"
#include "trainer/models/inception.h"
#include "trainer/models/mobilenet.h"
#include "trainer/models/resnet.h"
#include "trainer/models/vgg.h"

namespace lockstep::trainer {

Graph BuildGraph(const config::ModelConfig& config, const InputShape& input) {
  if (config.num_classes <= 0) {
    throw std::invalid_argument(absl::StrCat(
        "model.num_classes: a model needs at least one class, not ", config.num_classes, "."));
  }
  if (input.channels <= 0 || input.height <= 0 || input.width <= 0) {
    throw std::invalid_argument(absl::StrCat("A model cannot take pictures of ", input.height, "x",
                                             input.width, " pixels and ", input.channels,
                                             " channels."));
  }
  std::string known;
  const auto is = [&](const char* name) {
    absl::StrAppend(&known, known.empty() ? "" : ", ", name);
    return config.name == name;
  };
  if (is("cnn")) return BuildCnn(config, input);
  for (const ResNetDesign& design : kResNets) {
    if (is(design.name)) return BuildResNet(design, config, input);
  }
  for (const VggDesign& design : kVggs) {
    if (is(design.name)) return BuildVgg(design, config, input);
  }
  if (is("inception_v3")) return BuildInceptionV3(config, input);
  if (is("mobilenet_v2")) return BuildMobileNetV2(config, input);
  throw std::invalid_argument(
      absl::StrCat("model.name: unknown model '", config.name, "'; known are ", known, "."));
}

}  // namespace lockstep::trainer
