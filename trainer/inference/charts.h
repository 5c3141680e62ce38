// Small charts as SVG text, for the report's page: no script, nothing from outside.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace lockstep::trainer {

/// The five characters that HTML gives a meaning, written so that they have none.
std::string EscapeHtml(const std::string& text);

struct ChartSeries {
  std::string name;
  std::vector<std::pair<double, double>> points;
};

/// Lines over a common pair of axes, with a legend. Points that are not finite are left out; ""
/// when none is left.
std::string LineChart(const std::vector<ChartSeries>& series, const std::string& x_title);

/// Points over equal axes, with the line on which both are the same.
std::string ScatterChart(const std::vector<std::pair<double, double>>& points,
                         const std::string& x_title, const std::string& y_title);

}  // namespace lockstep::trainer
