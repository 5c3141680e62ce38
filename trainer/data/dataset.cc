#include "trainer/data/dataset.h"

#include <algorithm>

#include "trainer/pictures/fingerprint.h"
#include "trainer/pictures/preprocessing.h"

namespace lockstep::trainer {

const std::vector<Target>& Dataset::targets() const {
  static const std::vector<Target> none;
  return none;
}

int64_t Dataset::LabelOf(int64_t index) const {
  Sample sample;
  Read(index, sample);
  return sample.label;
}

std::vector<int64_t> Dataset::ClassCounts() const {
  std::vector<int64_t> counts(classes().size());
  if (counts.empty()) return counts;
  for (int64_t i = 0; i < size(); ++i) ++counts.at(static_cast<size_t>(LabelOf(i)));
  return counts;
}

std::string Dataset::NameOf(int64_t index) const {
  return "sample " + std::to_string(index);
}

std::string Dataset::Fingerprint() const {
  class Fingerprint fingerprint;
  fingerprint.Add(Describe());
  fingerprint.Add(size());
  fingerprint.Add(preprocessing().ToJson());
  return fingerprint.Hex();
}

void Dataset::ReadWhole(int64_t index, const PartOf& /*part*/, Sample& sample) const {
  Read(index, sample);
}

const char* ToString(Split split) {
  switch (split) {
    case Split::kTrain:
      return "train";
    case Split::kEval:
      return "held-out";
    case Split::kTest:
      break;
  }
  return "test";
}

std::string DescribeCounts(const std::vector<std::string>& classes,
                           const std::vector<int64_t>& counts) {
  constexpr size_t kNamed = 5;
  if (counts.empty()) return "no classes";
  std::vector<int64_t> sorted = counts;
  std::sort(sorted.begin(), sorted.end());
  const int64_t median = sorted[sorted.size() / 2];
  std::string text = std::to_string(counts.size()) + " classes of ";
  if (sorted.front() == sorted.back()) {
    text += std::to_string(median);
  } else {
    text += std::to_string(sorted.front()) + " to " + std::to_string(sorted.back()) + " (median " +
            std::to_string(median) + ")";
  }
  // Rare: less than a tenth of the median.
  const auto list = [&](const char* word, auto is_in) {
    size_t found = 0;
    std::string names;
    for (size_t i = 0; i < counts.size(); ++i) {
      if (!is_in(counts[i])) continue;
      if (++found <= kNamed) {
        names += (found == 1 ? "" : ", ") + classes[i];
        if (counts[i] > 0) names += " (" + std::to_string(counts[i]) + ")";
      }
    }
    if (found > kNamed) names += " and " + std::to_string(found - kNamed) + " more";
    if (found > 0) text += std::string("; ") + word + ": " + names;
  };
  list("empty", [](int64_t count) { return count == 0; });
  list("rare", [&](int64_t count) { return count > 0 && count * 10 < median; });
  return text;
}

std::string ListProblems(const std::string& head, const std::vector<std::string>& problems) {
  constexpr size_t kNamed = 20;
  std::string text = head;
  for (size_t i = 0; i < std::min(problems.size(), kNamed); ++i) text += "\n  " + problems[i];
  if (problems.size() > kNamed) {
    text += "\n  and " + std::to_string(problems.size() - kNamed) + " more";
  }
  return text;
}

}  // namespace lockstep::trainer
