#include "launch/plan/time_model.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <optional>
#include <set>

#include "absl/strings/str_cat.h"

namespace lockstep::plan {
namespace {

constexpr int kTerms = 3;  // Per sample, per step, all-reduce.
using Row = std::array<double, kTerms>;

constexpr int kRounds = 30;
// Three numbers are fitted: below this, each observation could be the outlier to the others.
constexpr size_t kFewestForOutliers = 5;
// Relative errors up to this are measurement, not outliers, however well the others fit.
constexpr double kOrdinaryError = 0.02;
// Huber's threshold in standard deviations (95 % efficiency for normal errors), and the factor from
// a median absolute deviation to a standard deviation.
constexpr double kHuber = 1.345;
constexpr double kDeviation = 1.4826;

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const size_t middle = values.size() / 2;
  return values.size() % 2 == 1 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
}

double Dot(const Row& a, const Row& b) {
  double sum = 0;
  for (size_t i = 0; i < kTerms; ++i) sum += a[i] * b[i];
  return sum;
}

// Minimizes sum w (row . x - 1)^2 over the terms of `used`, the others 0, by Gauss's normal
// equations. Nothing where the terms cannot be told apart.
std::optional<Row> Solve(const std::vector<Row>& rows, const std::vector<double>& weights,
                         unsigned used) {
  std::vector<size_t> terms;
  for (size_t i = 0; i < kTerms; ++i) {
    if ((used >> i & 1u) != 0) terms.push_back(i);
  }
  const size_t n = terms.size();
  // Columns of unit length: seconds per sample and seconds per step differ by many orders.
  std::vector<double> scale(n, 0);
  for (size_t i = 0; i < n; ++i) {
    for (const Row& row : rows) scale[i] = std::max(scale[i], std::abs(row[terms[i]]));
    if (scale[i] == 0) return std::nullopt;
  }
  std::vector<std::vector<double>> a(n, std::vector<double>(n + 1, 0));
  for (size_t k = 0; k < rows.size(); ++k) {
    for (size_t i = 0; i < n; ++i) {
      const double left = weights[k] * rows[k][terms[i]] / scale[i];
      for (size_t j = 0; j < n; ++j) a[i][j] += left * rows[k][terms[j]] / scale[j];
      a[i][n] += left;
    }
  }
  for (size_t i = 0; i < n; ++i) {
    size_t pivot = i;
    for (size_t k = i + 1; k < n; ++k) {
      if (std::abs(a[k][i]) > std::abs(a[pivot][i])) pivot = k;
    }
    std::swap(a[i], a[pivot]);
    if (std::abs(a[i][i]) < 1e-10) return std::nullopt;
    for (size_t k = i + 1; k < n; ++k) {
      const double factor = a[k][i] / a[i][i];
      for (size_t j = i; j <= n; ++j) a[k][j] -= factor * a[i][j];
    }
  }
  Row x{};
  for (size_t i = n; i-- > 0;) {
    double sum = a[i][n];
    for (size_t j = i + 1; j < n; ++j) sum -= a[i][j] * x[terms[j]] * scale[j];
    x[terms[i]] = sum / a[i][i] / scale[i];
  }
  return x;
}

// The best solution without a negative coefficient. With three terms trying all seven choices of
// them is the whole of non-negative least squares (Lawson, Hanson 1974), without its bookkeeping.
Row SolveNonNegative(const std::vector<Row>& rows, const std::vector<double>& weights) {
  Row best{};
  double least = INFINITY;
  for (unsigned used = 1; used < 1u << kTerms; ++used) {
    const auto x = Solve(rows, weights, used);
    if (!x || std::any_of(x->begin(), x->end(), [](double v) { return v < 0; })) continue;
    double cost = 0;
    for (size_t k = 0; k < rows.size(); ++k) {
      const double error = Dot(rows[k], *x) - 1;
      cost += weights[k] * error * error;
    }
    // Fewer terms come first and stay where more of them explain nothing.
    if (cost < least * (1 - 1e-9) - 1e-15) {
      least = cost;
      best = *x;
    }
  }
  return best;
}

absl::Status Check(const std::vector<StepObservation>& observations) {
  std::set<double> batches;
  for (const StepObservation& one : observations) {
    if (!(one.local_batch > 0) || !(one.step_seconds > 0) || !(one.reduce_seconds >= 0) ||
        !std::isfinite(one.local_batch + one.step_seconds + one.reduce_seconds)) {
      return absl::InvalidArgumentError(
          absl::StrCat("a step of ", one.local_batch, " samples that took ", one.step_seconds,
                       " s and ", one.reduce_seconds, " s of all-reduce cannot have been timed"));
    }
    batches.insert(one.local_batch);
  }
  if (observations.size() < 3 || batches.size() < 2) {
    return absl::InvalidArgumentError(
        absl::StrCat("a step time is fitted to three or more timed steps of two or more different "
                     "batch sizes; there are ",
                     observations.size(), " of ", batches.size()));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<StepTimeModel> FitStepTime(const std::vector<StepObservation>& observations) {
  if (absl::Status status = Check(observations); !status.ok()) return status;
  // Divided by the time taken, so that "predicted = 1" is no relative error.
  std::vector<Row> rows;
  rows.reserve(observations.size());
  for (const StepObservation& one : observations) {
    rows.push_back({one.local_batch / one.step_seconds, 1 / one.step_seconds,
                    one.reduce_seconds / one.step_seconds});
  }
  std::vector<double> weights(rows.size(), 1);
  std::vector<double> errors(rows.size());
  Row x{};
  const int rounds = rows.size() < kFewestForOutliers ? 1 : kRounds;
  for (int round = 0; round < rounds; ++round) {
    x = SolveNonNegative(rows, weights);
    for (size_t k = 0; k < rows.size(); ++k) errors[k] = std::abs(Dot(rows[k], x) - 1);
    const double ordinary = std::max(kOrdinaryError, kHuber * kDeviation * Median(errors));
    for (size_t k = 0; k < rows.size(); ++k) weights[k] = std::min(1.0, ordinary / errors[k]);
  }
  return StepTimeModel{.seconds_per_sample = x[0],
                       .seconds_per_step = x[1],
                       .reduce_factor = x[2],
                       .median_error = Median(errors),
                       .worst_error = *std::max_element(errors.begin(), errors.end())};
}

}  // namespace lockstep::plan
