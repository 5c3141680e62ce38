#include "trainer/inference/prediction.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"

namespace lockstep::trainer {
namespace {

// Softmax, from the largest on so that no power overflows.
std::vector<double> Probabilities(std::span<const float> logits) {
  const double largest = *std::max_element(logits.begin(), logits.end());
  std::vector<double> shares;
  double sum = 0;
  for (const float logit : logits) {
    shares.push_back(std::exp(logit - largest));
    sum += shares.back();
  }
  for (double& share : shares) share /= sum;
  return shares;
}

}  // namespace

Prediction Interpret(std::span<const float> logits, const ModelCard& card, int top_k) {
  Prediction prediction;
  if (card.loss == config::LossKind::kCrossEntropy) {
    const std::vector<double> shares = Probabilities(logits);
    std::vector<size_t> order(shares.size());
    std::iota(order.begin(), order.end(), size_t{0});
    const size_t count = std::min(order.size(), static_cast<size_t>(std::max(1, top_k)));
    // Of equal ones the first: the answer is the same everywhere.
    std::stable_sort(order.begin(), order.end(),
                     [&](size_t a, size_t b) { return shares[a] > shares[b]; });
    for (size_t i = 0; i < count; ++i) {
      prediction.labels.emplace_back(card.classes[order[i]], shares[order[i]]);
    }
    return prediction;
  }
  for (size_t i = 0; i < card.targets.size(); ++i) {
    const Target& target = card.targets[i];
    if (card.loss == config::LossKind::kBinaryCrossEntropy) {
      prediction.labels.emplace_back(target.name, 1.0 / (1.0 + std::exp(-double{logits[i]})));
    } else {
      prediction.numbers.emplace_back(target.name, logits[i] * target.std + target.mean);
    }
  }
  return prediction;
}

std::string ToText(const Prediction& prediction) {
  std::vector<std::string> parts;
  for (const auto& [name, probability] : prediction.labels) {
    parts.push_back(absl::StrFormat("%s %.1f%%", name, 100 * probability));
  }
  for (const auto& [name, value] : prediction.numbers) {
    parts.push_back(absl::StrFormat("%s %.6g", name, value));
  }
  return absl::StrJoin(parts, ", ");
}

}  // namespace lockstep::trainer
