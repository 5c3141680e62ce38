// What a model says of one picture, as people read it.
#pragma once

#include <span>
#include <string>
#include <utility>
#include <vector>

#include "trainer/card.h"

namespace lockstep::trainer {

struct Prediction {
  std::vector<std::pair<std::string, double>> labels;   // Name, probability: of a classifier the
                                                        // most probable first; of a multi-label
                                                        // model all, in the data's order.
  std::vector<std::pair<std::string, double>> numbers;  // Target, value in the data's own units.
};

/// `logits`: one per output. `top_k` counts for classifiers.
Prediction Interpret(std::span<const float> logits, const ModelCard& card, int top_k);

/// "cat 93.1%, dog 4.2%", "price 1250.5"
std::string ToText(const Prediction& prediction);

}  // namespace lockstep::trainer
