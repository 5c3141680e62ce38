#include "trainer/inference/predictor.h"

#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>

#include <cstring>
#include <stdexcept>

#include "trainer/checkpoint/snapshot.h"
#include "trainer/inference/load_model.h"
#include "trainer/models/model.h"

namespace lockstep::trainer {

struct Predictor::Impl {
  ModelCard card;
  std::unique_ptr<Model> model;
  std::vector<float> table;  // Byte to float, 256 per channel, in the tensor's order.
};

Predictor::Predictor(const TrainedModel& model) : impl_(std::make_unique<Impl>()) {
  impl_->card = model.card;
  impl_->model = LoadModel(model);
  const Preprocessing& p = model.card.preprocessing;
  for (size_t channel = 0; channel < p.mean.size(); ++channel) {
    for (int byte = 0; byte < 256; ++byte) {
      impl_->table.push_back(static_cast<float>((byte / 255.0 - p.mean[channel]) / p.std[channel]));
    }
  }
}

Predictor::~Predictor() = default;

std::vector<std::vector<float>> Predictor::Logits(std::span<const Picture> pictures) {
  const at::NoGradGuard no_grad;
  const Preprocessing& p = impl_->card.preprocessing;
  const auto count = static_cast<int64_t>(pictures.size());
  const at::Tensor images = at::empty(
      {count, p.channels, p.height, p.width},
      at::TensorOptions().dtype(at::kFloat).memory_format(at::MemoryFormat::ChannelsLast));
  auto* out = images.mutable_data_ptr<float>();
  for (const Picture& picture : pictures) {
    if (picture.width != p.width || picture.height != p.height || picture.channels != p.channels) {
      throw std::logic_error("a picture was not prepared");
    }
    const auto channels = static_cast<size_t>(p.channels);
    for (size_t pixel = 0; pixel < picture.pixels.size(); pixel += channels) {
      for (size_t channel = 0; channel < channels; ++channel) {
        const size_t from = p.bgr ? channels - 1 - channel : channel;
        *out++ = impl_->table[256 * channel + picture.pixels[pixel + from]];
      }
    }
  }
  const at::Tensor logits =
      impl_->model->Forward(images).logits.to(at::kCPU, at::kFloat).contiguous();
  std::vector<std::vector<float>> rows;
  const auto outputs = static_cast<size_t>(logits.size(1));
  const float* row = logits.const_data_ptr<float>();
  for (int64_t i = 0; i < count; ++i, row += outputs) rows.emplace_back(row, row + outputs);
  return rows;
}

Prediction Predictor::Predict(std::span<const std::byte> bytes, const std::string& name,
                              int top_k) {
  Picture picture;
  Prepare(bytes, name, impl_->card.preprocessing, picture);
  return Interpret(Logits({&picture, 1}).front(), impl_->card, top_k);
}

}  // namespace lockstep::trainer
