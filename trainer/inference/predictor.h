// A trained model in memory, ready to be asked. No LibTorch in this header, so that the process
// that speaks with the coordinator can use it.
//
// Pictures go the way they go in evaluation: the card's preprocessing, float32. One thread at a
// time may ask.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "trainer/data/dataset.h"
#include "trainer/inference/prediction.h"
#include "trainer/inference/trained_model.h"

namespace lockstep::trainer {

class Predictor {
 public:
  /// On the CPU. Throws std::invalid_argument listing the tensors that do not fit the model.
  explicit Predictor(const TrainedModel& model);
  ~Predictor();

  /// One row of logits for each picture, all of which are prepared
  /// (trainer/pictures/preprocessing.h).
  std::vector<std::vector<float>> Logits(std::span<const Picture> pictures);

  /// Decodes, prepares, asks. Throws DataError "NAME: reason".
  Prediction Predict(std::span<const std::byte> bytes, const std::string& name, int top_k);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace lockstep::trainer
