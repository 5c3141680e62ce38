#include "trainer/inference/evaluation_report.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "config/run_directory.h"

namespace lockstep::trainer {
namespace {

using Json = nlohmann::ordered_json;

constexpr size_t kCurvePoints = 400;
constexpr size_t kMostClassesInText = 50;
constexpr size_t kMaxMetricsBytes = 512u << 20;

Json Number(double value) {
  return std::isfinite(value) ? Json(value) : Json(nullptr);
}

// Means of neighbours, so that a long run stays a short page.
std::vector<std::pair<double, double>> Thin(const std::vector<std::pair<double, double>>& points) {
  const size_t group = (points.size() + kCurvePoints - 1) / kCurvePoints;
  if (group <= 1) return points;
  std::vector<std::pair<double, double>> thin;
  for (size_t begin = 0; begin < points.size(); begin += group) {
    const size_t end = std::min(points.size(), begin + group);
    double x = 0, y = 0;
    for (size_t i = begin; i < end; ++i) {
      x += points[i].first;
      y += points[i].second;
    }
    const auto count = static_cast<double>(end - begin);
    thin.emplace_back(x / count, y / count);
  }
  return thin;
}

Json ClassJson(const std::string& name, const ClassMeasures& one) {
  return {{"name", name},       {"support", one.support},     {"predicted", one.predicted},
          {"right", one.right}, {"precision", one.precision}, {"recall", one.recall},
          {"f1", one.f1}};
}

std::vector<std::string> OutputNames(const ModelCard& card) {
  if (!card.classes.empty()) return card.classes;
  std::vector<std::string> names;
  for (const Target& target : card.targets) names.push_back(target.name);
  return names;
}

}  // namespace

std::string ScoreText(const std::string& name, double value) {
  const bool ratio = name != "mae" && name != "mse" && name != "r2" && name != "loss";
  return ratio ? absl::StrFormat("%.2f%%", 100 * value) : absl::StrFormat("%.5g", value);
}

std::vector<Confused> MostConfused(const MeasureResult& measures, size_t classes, size_t most) {
  std::vector<Confused> pairs;
  for (size_t i = 0; i < measures.confusion.size(); ++i) {
    const Confused one{i / classes, i % classes, measures.confusion[i]};
    if (one.truth != one.predicted && one.count > 0) pairs.push_back(one);
  }
  std::stable_sort(pairs.begin(), pairs.end(),
                   [](const Confused& a, const Confused& b) { return a.count > b.count; });
  if (pairs.size() > most) pairs.resize(most);
  return pairs;
}

std::string ToJson(const EvaluationReport& report) {
  const MeasureResult& m = report.measures;
  const std::vector<std::string> names = OutputNames(report.card);
  Json json = {
      {"run", report.run},    {"model", report.model},     {"checkpoint", report.checkpoint},
      {"step", report.step},  {"data", report.data},       {"split", report.split},
      {"samples", m.samples}, {"seconds", report.seconds}, {"loss", Number(m.loss)}};
  for (const auto& [name, value] : m.scores) json["scores"][name] = Number(value);
  for (size_t i = 0; i < m.classes.size() && i < names.size(); ++i) {
    json["classes"].push_back(ClassJson(names[i], m.classes[i]));
  }
  for (size_t row = 0; row * names.size() < m.confusion.size(); ++row) {
    const auto begin = m.confusion.begin() + static_cast<std::ptrdiff_t>(row * names.size());
    json["confusion"].push_back(
        std::vector<int64_t>(begin, begin + static_cast<std::ptrdiff_t>(names.size())));
  }
  for (size_t i = 0; i < m.numbers.size() && i < names.size(); ++i) {
    json["targets"].push_back({{"name", names[i]},
                               {"mse", Number(m.numbers[i].mse)},
                               {"mae", Number(m.numbers[i].mae)},
                               {"r2", Number(m.numbers[i].r2)}});
  }
  json["worst"] = Json::array();
  for (const WrongSample& one : report.worst) {
    json["worst"].push_back({{"name", one.name},
                             {"loss", Number(one.loss)},
                             {"truth", one.truth},
                             {"predicted", one.predicted}});
  }
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

std::string ToText(const EvaluationReport& report) {
  const MeasureResult& m = report.measures;
  const std::vector<std::string> names = OutputNames(report.card);
  std::string out =
      absl::StrFormat("samples  %d (%s)\nloss     %.4f\n", m.samples, report.split, m.loss);
  for (const auto& [name, value] : m.scores) {
    absl::StrAppend(&out, name, std::string(name.size() < 8 ? 9 - name.size() : 1, ' '),
                    ScoreText(name, value), "\n");
  }
  size_t width = 6;
  for (const std::string& name : names) width = std::max(width, name.size());
  const int w = static_cast<int>(width);
  if (!m.classes.empty() && names.size() <= kMostClassesInText) {
    absl::StrAppendFormat(&out, "\n%-*s  %8s  %9s  %7s  %7s\n", w, "class", "samples", "precision",
                          "recall", "f1");
    for (size_t i = 0; i < m.classes.size() && i < names.size(); ++i) {
      const ClassMeasures& one = m.classes[i];
      absl::StrAppendFormat(&out, "%-*s  %8d  %8.1f%%  %6.1f%%  %6.1f%%\n", w, names[i],
                            one.support, 100 * one.precision, 100 * one.recall, 100 * one.f1);
    }
  }
  if (!m.numbers.empty()) {
    absl::StrAppendFormat(&out, "\n%-*s  %12s  %12s  %8s\n", w, "target", "mae", "mse", "r2");
    for (size_t i = 0; i < m.numbers.size() && i < names.size(); ++i) {
      const NumberMeasures& one = m.numbers[i];
      absl::StrAppendFormat(&out, "%-*s  %12.5g  %12.5g  %8.4f\n", w, names[i], one.mae, one.mse,
                            one.r2);
    }
  }
  return out;
}

std::vector<Curve> ReadCurves(const std::filesystem::path& run_dir) {
  const auto text = config::ReadFile(config::RunDirectory(run_dir).metrics(), kMaxMetricsBytes);
  if (!text.ok()) return {};
  std::map<std::string, Curve> curves;
  for (const absl::string_view line : absl::StrSplit(*text, '\n')) {
    const Json row = Json::parse(line.begin(), line.end(), nullptr, /*allow_exceptions=*/false);
    if (!row.is_object() || !row.contains("step") || !row.contains("kind")) continue;
    const std::string kind = row.at("kind").is_string() ? row.at("kind").get<std::string>() : "";
    if (kind != "step" && kind != "eval") continue;
    for (const auto& [key, value] : row.items()) {
      const bool measure = key != "step" && key != "epoch" && key != "samples" &&
                           key != "seconds" && key != "lr" && key != "kind";
      if (!measure || !value.is_number() || !row.at("step").is_number()) continue;
      // Sorted by measure, the training's before the held-out one.
      Curve& curve = curves[absl::StrCat(key, kind == "step" ? " 0" : " 1")];
      curve.name = absl::StrCat(kind == "step" ? "training " : "held-out ", key);
      curve.points.emplace_back(row.at("step").get<double>(), value.get<double>());
    }
  }
  std::vector<Curve> all;
  for (auto& [key, curve] : curves) {
    curve.points = Thin(curve.points);
    all.push_back(std::move(curve));
  }
  return all;
}

}  // namespace lockstep::trainer
