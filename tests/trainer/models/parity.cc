// parity MODEL PIXELS CLASSES AUXILIARY_WEIGHT load FILE: the logits of two pictures (recipe.h) in
//   evaluation, with the weights of FILE, as JSON rows.
// parity MODEL PIXELS CLASSES AUXILIARY_WEIGHT save FILE: the model's weights after the recipe, as
//   safetensors.
// The C++ side of parity_test.py.
#include <ATen/core/grad_mode.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iostream>

#include "tests/trainer/models/recipe.h"
#include "trainer/checkpoint/safetensors.h"
#include "trainer/models/weights.h"

namespace lockstep::trainer {
namespace {

int Load(const std::string& file, const config::ModelConfig& config, const InputShape& input,
         Model& model) {
  const absl::StatusOr<WeightsReport> report = LoadWeights(file, config, model);
  if (!report.ok()) {
    std::cerr << report.status().message() << "\n";
    return 1;
  }
  std::cerr << report->Summary(file) << "\n";
  model.SetTraining(false);
  const at::NoGradGuard no_grad;
  const at::Tensor logits = model.Forward(RecipePictures(2, input)).logits;
  for (int64_t row = 0; row < logits.size(0); ++row) {
    for (int64_t i = 0; i < logits.size(1); ++i) {
      std::printf("%s%.9g", i == 0 ? "[" : ", ", logits[row][i].item<double>());
    }
    std::printf("]\n");
  }
  return 0;
}

int Save(const std::string& file, const Model& model) {
  FillByRecipe(model);
  std::vector<TensorBytes> tensors;
  for (const NamedTensors& group : {model.Parameters(), model.Buffers()}) {
    for (const auto& [name, tensor] : group) {
      tensors.push_back(
          {.name = name,
           .dtype = tensor.is_floating_point() ? "F32" : "I64",
           .shape = tensor.sizes().vec(),
           .bytes = {static_cast<const std::byte*>(tensor.const_data_ptr()), tensor.nbytes()}});
    }
  }
  std::ofstream out(file, std::ios::binary);
  out << SafetensorsHeader(tensors, {});
  for (const TensorBytes& tensor : tensors) {
    out.write(reinterpret_cast<const char*>(tensor.bytes.data()),
              static_cast<std::streamsize>(tensor.bytes.size()));
  }
  return out.flush() ? 0 : 1;
}

int Run(const std::vector<std::string>& arguments) {
  if (arguments.size() != 7) {
    std::cerr << "usage: parity MODEL PIXELS CLASSES AUXILIARY_WEIGHT load|save FILE\n";
    return 2;
  }
  config::ModelConfig config;
  config.name = arguments[1];
  config.stem = "imagenet";
  config.num_classes = std::atoi(arguments[3].c_str());
  config.auxiliary_loss_weight = std::atof(arguments[4].c_str());
  const int pixels = std::atoi(arguments[2].c_str());
  const InputShape input{3, pixels, pixels};
  const auto model = MakeModel(config, input, 1);
  if (arguments[5] == "save") return Save(arguments[6], *model);
  return Load(arguments[6], config, input, *model);
}

}  // namespace
}  // namespace lockstep::trainer

int main(int argc, char** argv) {
  return lockstep::trainer::Run(std::vector<std::string>(argv, argv + argc));
}
