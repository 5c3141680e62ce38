// The report as one HTML page: styles inside, charts as SVG, pictures as data. Every text that
// comes from elsewhere (class names, file names) is escaped.
#include <algorithm>
#include <cmath>
#include <map>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/strip.h"
#include "trainer/inference/charts.h"
#include "trainer/inference/evaluation_report.h"

namespace lockstep::trainer {
namespace {

constexpr size_t kMostClassesDrawn = 30;
constexpr size_t kMostPairs = 30;  // Where the matrix is not drawn.
constexpr size_t kMostPairsBesideMatrix = 8;
constexpr size_t kMostTargetsDrawn = 8;

constexpr char kStyle[] = R"(
:root { color-scheme: light dark; --line: #8884; --soft: #8882; }
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 76rem; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin-bottom: .2rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
p.sub { color: gray; margin-top: 0; overflow-wrap: anywhere; }
table { border-collapse: collapse; } td, th { padding: .25rem .6rem; border-bottom: 1px solid var(--line); }
th { text-align: left; } td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; }
.scores { display: flex; flex-wrap: wrap; gap: 1rem; }
.scores div { background: var(--soft); border-radius: .5rem; padding: .6rem 1rem; }
.scores b { display: block; font-size: 1.5rem; }
.charts { display: flex; flex-wrap: wrap; gap: 1rem; } .charts svg { width: 35rem; max-width: 100%; }
svg text { font: 11px system-ui, sans-serif; fill: currentColor; } svg .grid { stroke: var(--line); }
svg .same { stroke: gray; stroke-dasharray: 4 3; }
.wide { overflow-x: auto; } table.matrix td { border: 1px solid var(--soft); text-align: center; min-width: 2rem; padding: .2rem; }
table.matrix th { font-weight: normal; white-space: nowrap; }
table.matrix th.down { writing-mode: vertical-rl; transform: rotate(180deg); border: 0; }
.wrong { display: grid; grid-template-columns: repeat(auto-fill, minmax(10rem, 1fr)); gap: 1rem; }
.wrong figure { margin: 0; background: var(--soft); border-radius: .5rem; padding: .6rem; }
.wrong img { width: 100%; aspect-ratio: 1; object-fit: contain; image-rendering: auto; }
.wrong figcaption { font-size: .85rem; overflow-wrap: anywhere; }
.wrong small { color: gray; }
)";

std::string Section(const std::string& title, const std::string& inside) {
  if (inside.empty()) return "";
  return absl::StrCat("<h2>", EscapeHtml(title), "</h2>\n", inside, "\n");
}

std::string Scores(const EvaluationReport& report) {
  std::string out = "<div class=\"scores\">";
  const auto add = [&](const std::string& name, const std::string& value) {
    absl::StrAppend(&out, "<div><b>", EscapeHtml(value), "</b>", EscapeHtml(name), "</div>");
  };
  for (const auto& [name, value] : report.measures.scores) add(name, ScoreText(name, value));
  add("loss", absl::StrFormat("%.4f", report.measures.loss));
  add("samples", absl::StrCat(report.measures.samples));
  return out + "</div>";
}

// Training and held-out curves of one measure share a chart.
std::string Curves(const std::vector<Curve>& curves) {
  std::vector<std::pair<std::string, std::vector<ChartSeries>>> charts;
  for (const Curve& curve : curves) {
    const std::string measure(
        absl::StripPrefix(absl::StripPrefix(curve.name, "training "), "held-out "));
    if (charts.empty() || charts.back().first != measure) charts.push_back({measure, {}});
    charts.back().second.push_back({curve.name, curve.points});
  }
  std::string out;
  for (const auto& [measure, series] : charts) out += LineChart(series, "step");
  return out.empty() ? "" : absl::StrCat("<div class=\"charts\">", out, "</div>");
}

std::string Matrix(const EvaluationReport& report) {
  const std::vector<std::string>& names = report.card.classes;
  std::string out = "<div class=\"wide\"><table class=\"matrix\"><tr><th>true \\ predicted</th>";
  for (const std::string& name : names) {
    absl::StrAppend(&out, "<th class=\"down\">", EscapeHtml(name), "</th>");
  }
  out += "</tr>\n";
  for (size_t row = 0; row < names.size(); ++row) {
    absl::StrAppend(&out, "<tr><th>", EscapeHtml(names[row]), "</th>");
    const auto support =
        static_cast<double>(std::max<int64_t>(1, report.measures.classes[row].support));
    for (size_t column = 0; column < names.size(); ++column) {
      const int64_t count = report.measures.confusion[row * names.size() + column];
      const double share = static_cast<double>(count) / support;
      const char* color = row == column ? "16,150,90" : "220,60,40";
      absl::StrAppendFormat(&out, "<td style=\"background:rgba(%s,%.2f)\">%s</td>", color,
                            count == 0 ? 0.0 : 0.1 + 0.7 * share,
                            count == 0 ? std::string() : absl::StrCat(count));
    }
    out += "</tr>\n";
  }
  return out + "</table></div>";
}

std::string Pairs(const EvaluationReport& report, size_t most) {
  const std::vector<std::string>& names = report.card.classes;
  const auto pairs = MostConfused(report.measures, names.size(), most);
  if (pairs.empty()) return "";
  std::string out =
      "<table><tr><th>true</th><th>taken for</th><th class=\"n\">samples</th>"
      "<th class=\"n\">of the class</th></tr>\n";
  for (const Confused& pair : pairs) {
    const auto support = static_cast<double>(report.measures.classes[pair.truth].support);
    absl::StrAppendFormat(
        &out, "<tr><td>%s</td><td>%s</td><td class=\"n\">%d</td><td class=\"n\">%.1f%%</td></tr>\n",
        EscapeHtml(names[pair.truth]), EscapeHtml(names[pair.predicted]), pair.count,
        100.0 * static_cast<double>(pair.count) / support);
  }
  return out + "</table>";
}

std::string Classes(const EvaluationReport& report) {
  const MeasureResult& m = report.measures;
  if (m.classes.empty()) return "";
  std::string out =
      "<table><tr><th>class</th><th class=\"n\">samples</th><th class=\"n\">precision</th>"
      "<th class=\"n\">recall</th><th class=\"n\">F1</th></tr>\n";
  for (size_t i = 0; i < m.classes.size(); ++i) {
    const std::string& name =
        report.card.classes.empty() ? report.card.targets[i].name : report.card.classes[i];
    const ClassMeasures& one = m.classes[i];
    absl::StrAppendFormat(&out,
                          "<tr><td>%s</td><td class=\"n\">%d</td><td class=\"n\">%.1f%%</td>"
                          "<td class=\"n\">%.1f%%</td><td class=\"n\">%.1f%%</td></tr>\n",
                          EscapeHtml(name), one.support, 100 * one.precision, 100 * one.recall,
                          100 * one.f1);
  }
  return out + "</table>";
}

std::string Numbers(const EvaluationReport& report) {
  const MeasureResult& m = report.measures;
  if (m.numbers.empty()) return "";
  std::string out =
      "<table><tr><th>target</th><th class=\"n\">mean absolute error</th>"
      "<th class=\"n\">mean squared error</th><th class=\"n\">R²</th></tr>\n";
  for (size_t i = 0; i < m.numbers.size(); ++i) {
    absl::StrAppendFormat(&out,
                          "<tr><td>%s</td><td class=\"n\">%.5g</td><td class=\"n\">%.5g</td>"
                          "<td class=\"n\">%.4f</td></tr>\n",
                          EscapeHtml(report.card.targets[i].name), m.numbers[i].mae,
                          m.numbers[i].mse, m.numbers[i].r2);
  }
  return out + "</table>";
}

std::string Scatters(const EvaluationReport& report) {
  std::string out;
  for (size_t i = 0; i < std::min(report.scatter.size(), kMostTargetsDrawn); ++i) {
    const std::string& name = report.card.targets[i].name;
    out += ScatterChart(report.scatter[i], "true " + name, "predicted " + name);
  }
  return out.empty() ? "" : absl::StrCat("<div class=\"charts\">", out, "</div>");
}

std::string Wrong(const EvaluationReport& report) {
  if (report.worst.empty()) return "";
  std::string out = "<div class=\"wrong\">\n";
  for (const WrongSample& one : report.worst) {
    out += "<figure>";
    if (!one.picture.empty()) {
      absl::StrAppend(&out, "<img alt=\"\" src=\"data:image/jpeg;base64,",
                      absl::Base64Escape(one.picture), "\">");
    }
    absl::StrAppendFormat(&out,
                          "<figcaption>true <b>%s</b><br>predicted <b>%s</b><br>loss %.3f<br>"
                          "<small>%s</small></figcaption></figure>\n",
                          EscapeHtml(one.truth), EscapeHtml(one.predicted), one.loss,
                          EscapeHtml(one.name));
  }
  return out + "</div>";
}

}  // namespace

std::string ToHtml(const EvaluationReport& report) {
  const std::string title = absl::StrCat(report.run, ": evaluation at step ", report.step);
  std::string out = absl::StrCat(
      "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n"
      "<meta name=\"viewport\" content=\"width=device-width\">\n<title>",
      EscapeHtml(title), "</title>\n<style>", kStyle, "</style></head><body>\n<h1>",
      EscapeHtml(title), "</h1>\n<p class=\"sub\">", EscapeHtml(report.model), " · ",
      EscapeHtml(report.split), " samples · ", EscapeHtml(report.data), "<br>",
      EscapeHtml(report.checkpoint), "</p>\n");
  out += Scores(report);
  out += Section("Training", Curves(report.curves));
  const bool drawn =
      !report.measures.confusion.empty() && report.card.classes.size() <= kMostClassesDrawn;
  if (drawn) out += Section("Confusion matrix", Matrix(report));
  if (!report.measures.confusion.empty())
    out += Section("Most confused", Pairs(report, drawn ? kMostPairsBesideMatrix : kMostPairs));
  out += Section(report.card.classes.empty() ? "Labels" : "Classes", Classes(report));
  out += Section("Targets", Numbers(report));
  out += Section("Predicted against true", Scatters(report));
  out += Section("Most wrong", Wrong(report));
  return out + "</body></html>\n";
}

}  // namespace lockstep::trainer
