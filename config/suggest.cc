#include "config/suggest.h"

#include <algorithm>
#include <numeric>

#include "absl/strings/ascii.h"

namespace lockstep::config {
namespace {

constexpr size_t kLongestWord = 64;  // Bounds the work; no key is as long.

// Optimal string alignment distance: insertions, deletions, substitutions and swaps of neighbours.
size_t Distance(absl::string_view a, absl::string_view b) {
  std::vector<size_t> before(b.size() + 1), previous(b.size() + 1), current(b.size() + 1);
  std::iota(previous.begin(), previous.end(), size_t{0});
  for (size_t i = 1; i <= a.size(); ++i) {
    current[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t substitution = previous[j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1);
      current[j] = std::min({previous[j] + 1, current[j - 1] + 1, substitution});
      const bool swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
      if (swapped) current[j] = std::min(current[j], before[j - 2] + 1);
    }
    before.swap(previous);
    previous.swap(current);
  }
  return previous[b.size()];
}

}  // namespace

std::string Closest(absl::string_view text, const std::vector<std::string>& words) {
  if (text.empty() || text.size() > kLongestWord) return "";
  std::string lower = absl::AsciiStrToLower(text);
  std::replace(lower.begin(), lower.end(), '-', '_');
  std::string best;
  // A third of the letters may be wrong: two of "epochs", one of "pool".
  size_t best_distance = std::max<size_t>(1, text.size() / 3) + 1;
  for (const std::string& word : words) {
    const size_t distance = Distance(lower, word);
    if (distance < best_distance) {
      best_distance = distance;
      best = word;
    }
  }
  return best;
}

}  // namespace lockstep::config
