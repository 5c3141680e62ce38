#include "trainer/inference/charts.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace lockstep::trainer {
namespace {

using Points = std::vector<std::pair<double, double>>;

constexpr double kLeft = 62, kRight = 14, kTop = 26, kBottom = 40;
constexpr std::array<const char*, 4> kColors = {"#2563eb", "#d97706", "#059669", "#be185d"};

struct Range {
  double low = 0;
  double high = 1;

  double span() const { return high - low; }
};

struct Plane {
  Range x, y;
  double width = 560, height = 260;

  double X(double value) const {
    return kLeft + (value - x.low) / x.span() * (width - kLeft - kRight);
  }
  double Y(double value) const {
    return height - kBottom - (value - y.low) / y.span() * (height - kTop - kBottom);
  }
};

Points Finite(const Points& points) {
  Points finite;
  for (const auto& [x, y] : points) {
    if (std::isfinite(x) && std::isfinite(y)) finite.emplace_back(x, y);
  }
  return finite;
}

Range Around(const std::vector<double>& values) {
  const auto [low, high] = std::minmax_element(values.begin(), values.end());
  if (*high > *low) return {*low, *high};
  const double margin = *low == 0 ? 1 : std::abs(*low) * 0.1;
  return {*low - margin, *high + margin};
}

// About five round numbers: 1, 2 or 5 times a power of ten apart.
std::vector<double> Ticks(const Range& range) {
  const double raw = range.span() / 5;
  const double power = std::pow(10.0, std::floor(std::log10(raw)));
  double step = 10 * power;
  for (const double factor : {1.0, 2.0, 5.0}) {
    if (factor * power >= raw) {
      step = factor * power;
      break;
    }
  }
  std::vector<double> ticks;
  for (double tick = std::ceil(range.low / step) * step; tick <= range.high + step * 1e-9;
       tick += step) {
    ticks.push_back(std::abs(tick) < step * 1e-9 ? 0 : tick);
  }
  return ticks;
}

std::string Text(double x, double y, const char* anchor, const std::string& text) {
  return absl::StrFormat("<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\">%s</text>", x, y, anchor,
                         EscapeHtml(text));
}

std::string Axes(const Plane& plane, const std::string& x_title, const std::string& y_title) {
  std::string out;
  const double bottom = plane.height - kBottom;
  for (const double tick : Ticks(plane.x)) {
    absl::StrAppendFormat(&out,
                          "<line class=\"grid\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\"/>",
                          plane.X(tick), plane.X(tick), kTop, bottom);
    out += Text(plane.X(tick), bottom + 15, "middle", absl::StrFormat("%.6g", tick));
  }
  for (const double tick : Ticks(plane.y)) {
    absl::StrAppendFormat(&out,
                          "<line class=\"grid\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\"/>",
                          kLeft, plane.width - kRight, plane.Y(tick), plane.Y(tick));
    out += Text(kLeft - 6, plane.Y(tick) + 4, "end", absl::StrFormat("%.6g", tick));
  }
  out += Text((kLeft + plane.width - kRight) / 2, plane.height - 6, "middle", x_title);
  if (!y_title.empty()) {
    absl::StrAppendFormat(
        &out, "<text transform=\"translate(13 %.1f) rotate(-90)\" text-anchor=\"middle\">%s</text>",
        (kTop + bottom) / 2, EscapeHtml(y_title));
  }
  return out;
}

std::string Svg(const Plane& plane, const std::string& inside) {
  return absl::StrFormat("<svg viewBox=\"0 0 %.0f %.0f\" role=\"img\">%s</svg>\n", plane.width,
                         plane.height, inside);
}

}  // namespace

std::string EscapeHtml(const std::string& text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      case '\'':
        out += "&#39;";
        break;
      default:
        out += static_cast<unsigned char>(c) < 0x20 ? ' ' : c;
    }
  }
  return out;
}

std::string LineChart(const std::vector<ChartSeries>& series, const std::string& x_title) {
  std::vector<double> xs, ys;
  std::vector<Points> lines;
  for (const ChartSeries& one : series) {
    lines.push_back(Finite(one.points));
    for (const auto& [x, y] : lines.back()) {
      xs.push_back(x);
      ys.push_back(y);
    }
  }
  if (xs.empty()) return "";
  const Plane plane{Around(xs), Around(ys)};
  std::string out = Axes(plane, x_title, "");
  double legend = kLeft;
  for (size_t i = 0; i < lines.size(); ++i) {
    if (lines[i].empty()) continue;
    const char* color = kColors[i % kColors.size()];
    std::string path;
    for (const auto& [x, y] : lines[i]) {
      absl::StrAppendFormat(&path, "%.1f,%.1f ", plane.X(x), plane.Y(y));
    }
    absl::StrAppendFormat(
        &out, "<polyline fill=\"none\" stroke=\"%s\" stroke-width=\"1.8\" points=\"%s\"/>", color,
        path);
    if (lines[i].size() == 1) {  // A line of one point shows nothing.
      absl::StrAppendFormat(&out, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"3\" fill=\"%s\"/>",
                            plane.X(lines[i][0].first), plane.Y(lines[i][0].second), color);
    }
    absl::StrAppendFormat(&out,
                          "<rect x=\"%.1f\" y=\"%.1f\" width=\"10\" height=\"10\" fill=\"%s\"/>",
                          legend, kTop - 18, color);
    out += Text(legend + 14, kTop - 9, "start", series[i].name);
    legend += 30 + 6.6 * static_cast<double>(series[i].name.size());
  }
  return Svg(plane, out);
}

std::string ScatterChart(const Points& points, const std::string& x_title,
                         const std::string& y_title) {
  const Points finite = Finite(points);
  if (finite.empty()) return "";
  std::vector<double> both;
  for (const auto& [x, y] : finite) {
    both.push_back(x);
    both.push_back(y);
  }
  const Range range = Around(both);
  const Plane plane{range, range, 420, 400};
  std::string out = Axes(plane, x_title, y_title);
  absl::StrAppendFormat(
      &out, "<line class=\"same\" x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\"/>",
      plane.X(range.low), plane.Y(range.low), plane.X(range.high), plane.Y(range.high));
  for (const auto& [x, y] : finite) {
    absl::StrAppendFormat(
        &out, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"2.5\" fill=\"%s\" fill-opacity=\"0.45\"/>",
        plane.X(x), plane.Y(y), kColors[0]);
  }
  return Svg(plane, out);
}

}  // namespace lockstep::trainer
