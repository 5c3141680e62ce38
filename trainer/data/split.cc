#include "trainer/data/split.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "trainer/pictures/counter_rng.h"

namespace lockstep::trainer {
namespace {

struct Shares {
  std::vector<int64_t> whole;    // Rounded down.
  std::vector<double> fraction;  // What rounding lost.
  int64_t left = 0;              // count - the sum of `whole`.
};

Shares ExactShares(int64_t count, const std::vector<double>& shares) {
  const double sum = std::accumulate(shares.begin(), shares.end(), 0.0);
  Shares result;
  result.left = count;
  for (const double share : shares) {
    const double exact = static_cast<double>(count) * (share / sum);
    // A share that is whole but for the rounding of the division is whole.
    const double nearest = std::round(exact);
    const double whole = std::abs(exact - nearest) < 1e-6 ? nearest : std::floor(exact);
    result.whole.push_back(static_cast<int64_t>(whole));
    result.fraction.push_back(std::max(0.0, exact - whole));
    result.left -= result.whole.back();
  }
  return result;
}

// The places of the `count` largest values, the first ones of equal ones.
template <typename T>
std::vector<size_t> Largest(const std::vector<T>& values, int64_t count) {
  std::vector<size_t> order(values.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return values[a] > values[b]; });
  order.resize(static_cast<size_t>(std::clamp<int64_t>(count, 0, std::ssize(order))));
  return order;
}

// Gives a class that came away empty somewhere one of its own samples from its largest part, and
// lets another class, where one can afford it, move one the other way, so that the totals stay.
void FillEmptyParts(const std::vector<int64_t>& class_counts, const std::vector<Shares>& exact,
                    PartCounts& counts) {
  const auto surplus = [&](size_t c, size_t part) {
    return static_cast<double>(counts[c][part] - exact[c].whole[part]) - exact[c].fraction[part];
  };
  for (size_t c = 0; c < counts.size(); ++c) {
    if (class_counts[c] < std::ssize(counts[c])) continue;
    for (size_t part = 0; part < counts[c].size(); ++part) {
      if (counts[c][part] > 0) continue;
      const size_t from = Largest(counts[c], 1).front();
      --counts[c][from];
      ++counts[c][part];
      for (size_t d = 0; d < counts.size(); ++d) {
        const bool can =
            d != c && counts[d][part] > 1 && surplus(d, part) > -1 && surplus(d, from) < 1;
        if (!can) continue;
        --counts[d][part];
        ++counts[d][from];
        break;
      }
    }
  }
}

}  // namespace

PartCounts ShareOut(const std::vector<int64_t>& class_counts, const std::vector<double>& shares) {
  const int64_t total = std::accumulate(class_counts.begin(), class_counts.end(), int64_t{0});
  // What each part still has to get. All classes first get their shares rounded down.
  const Shares all = ExactShares(total, shares);
  std::vector<int64_t> missing = all.whole;
  for (const size_t part : Largest(all.fraction, all.left)) ++missing[part];
  PartCounts counts;
  std::vector<Shares> exact;
  for (const int64_t count : class_counts) {
    exact.push_back(ExactShares(count, shares));
    counts.push_back(exact.back().whole);
    for (size_t part = 0; part < shares.size(); ++part) missing[part] -= counts.back()[part];
  }
  // The rest: classes with the most to give first, each at most one to a part, to the parts that
  // miss the most. That this comes out even is the theorem of Gale and Ryser on matrices of zeros
  // and ones with given sums.
  std::vector<size_t> order(counts.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return exact[a].left > exact[b].left; });
  for (const size_t c : order) {
    std::vector<double> wish;
    for (size_t part = 0; part < shares.size(); ++part) {
      wish.push_back(static_cast<double>(missing[part]) + exact[c].fraction[part]);
    }
    for (const size_t part : Largest(wish, exact[c].left)) {
      ++counts[c][part];
      --missing[part];
    }
  }
  FillEmptyParts(class_counts, exact, counts);
  return counts;
}

std::vector<uint8_t> SplitSamples(const SplitRequest& request) {
  const size_t classes = std::max<size_t>(1, request.classes.size());
  std::vector<std::vector<uint32_t>> members(classes);
  for (size_t i = 0; i < request.names.size(); ++i) {
    members.at(request.labels[i]).push_back(static_cast<uint32_t>(i));
  }
  std::vector<int64_t> class_counts;
  std::vector<std::string> problems;
  for (size_t c = 0; c < classes; ++c) {
    class_counts.push_back(std::ssize(members[c]));
    if (members[c].size() >= request.shares.size()) continue;
    problems.push_back((request.classes.empty() ? std::string("the data set")
                                                : "class '" + request.classes[c] + "'") +
                       " has " + std::to_string(members[c].size()));
  }
  if (!problems.empty()) {
    throw DataError(ListProblems("too few samples to have one in each of the " +
                                     std::to_string(request.shares.size()) +
                                     " parts of data.split; add samples or remove the class:",
                                 problems));
  }
  const PartCounts counts = ShareOut(class_counts, request.shares);
  std::vector<uint8_t> parts(request.names.size());
  for (size_t c = 0; c < classes; ++c) {
    std::vector<uint32_t>& of_class = members[c];
    std::stable_sort(of_class.begin(), of_class.end(),
                     [&](uint32_t a, uint32_t b) { return request.names[a] < request.names[b]; });
    CounterRng rng(request.seed, RandomPurpose::kSplit, static_cast<uint32_t>(c));
    for (size_t i = of_class.size(); i > 1; --i) {  // Fisher-Yates.
      std::swap(of_class[i - 1], of_class[rng.Below(static_cast<uint32_t>(i))]);
    }
    size_t next = 0;
    for (size_t part = 0; part < request.shares.size(); ++part) {
      for (int64_t i = 0; i < counts[c][part]; ++i) {
        parts[of_class[next++]] = static_cast<uint8_t>(part);
      }
    }
  }
  return parts;
}

}  // namespace lockstep::trainer
