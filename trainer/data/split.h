// Which part of a data set a sample belongs to, where data.split says so: a pure function of the
// seed, the names and the classes, so that every rank and every resume agrees, in whatever order a
// folder lists its files.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "trainer/data/dataset.h"

namespace lockstep::trainer {

// How many samples of each class go to each part.
using PartCounts = std::vector<std::vector<int64_t>>;  // [class][part]

/// Shares out samples class by class. The parts' totals are the shares of all samples, by largest
/// remainder (as seats in a parliament), so [150, 50, 50] of 250 samples gives just that; a class's
/// own parts differ from its exact shares by less than three. A class of as many samples as there
/// are parts has one in each, even where a total then grows by it; where a class has fewer, what it
/// lacks stays 0. shares: 2 or 3 numbers above 0.
PartCounts ShareOut(const std::vector<int64_t>& class_counts, const std::vector<double>& shares);

struct SplitRequest {
  const std::vector<std::string>& names;  // Of the samples; they are told apart by nothing else.
  const std::vector<uint32_t>& labels;    // One for each name.
  const std::vector<std::string>& classes;
  const std::vector<double>& shares;
  uint64_t seed = 0;
};

/// The part of each sample: 0 training, 1 held-out, 2 test. Throws DataError naming every class
/// that has fewer samples than there are parts.
std::vector<uint8_t> SplitSamples(const SplitRequest& request);

/// The part that a split stands for where there are so many parts.
inline uint8_t PartOfSplit(Split split, size_t parts) {
  if (split == Split::kTrain) return 0;
  return split == Split::kTest && parts > 2 ? 2 : 1;
}

}  // namespace lockstep::trainer
