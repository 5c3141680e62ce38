#include "launch/cli/spending.h"

#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "launch/cli/format.h"
#include "launch/cli/progress.h"

namespace lockstep::cli {
namespace {

constexpr double kJoulesPerKwh = 3.6e6;
// From here on people count in kilowatt hours.
constexpr double kSmallestKwh = 0.1;

double Units(int64_t micros) {
  return static_cast<double>(micros) * 1e-6;
}

}  // namespace

int WarningPercent(const v1::Run& run) {
  if (IsFinal(run.state())) return 0;
  const double ratio = run.spending().limit_ratio();
  return ratio >= kLastWarningRatio ? 95 : ratio >= kFirstWarningRatio ? 80 : 0;
}

std::string DescribeProjected(const v1::Run& run) {
  const v1::Spending& spending = run.spending();
  if (!run.has_spending() || IsFinal(run.state()) || spending.projected_cost() <= 0) return "";
  return absl::StrCat(FormatCost(spending.projected_cost(), run.currency()), " at the end");
}

std::string DescribeLimit(const v1::Run& run) {
  if (run.spending().limit().empty()) return "";
  return absl::StrCat(FormatRatio(run.spending().limit_ratio()), " of ",
                      Printable(run.spending().limit()));
}

std::string DescribeWarning(const v1::Run& run) {
  std::string text = absl::StrCat(DescribeLimit(run), " is used up");
  if (const std::string projected = DescribeProjected(run); !projected.empty()) {
    absl::StrAppend(&text, "; ", projected);
  }
  return text;
}

std::string DescribeCost(const v1::Run& run) {
  std::string text = FormatCost(run.cost(), run.currency());
  const v1::Spending& spending = run.spending();
  if (spending.energy_micros() == 0 && spending.transfer_micros() == 0) return text;
  absl::StrAppend(&text, " (hardware ", FormatCost(Units(spending.hardware_micros()), ""),
                  ", energy ", FormatCost(Units(spending.energy_micros()), ""));
  if (spending.transfer_micros() != 0) {
    absl::StrAppend(&text, ", transfer ", FormatCost(Units(spending.transfer_micros()), ""));
  }
  return text + ")";
}

std::string DescribeEnergy(const v1::Run& run) {
  const v1::Spending& spending = run.spending();
  std::string text = FormatJoules(spending.energy_joules());
  if (spending.energy_estimated()) text += ", partly estimated";
  if (spending.watts() > 0) absl::StrAppend(&text, ", ", FormatWatts(spending.watts()), " now");
  return text;
}

std::string DescribeStraggler(const v1::Straggler& straggler) {
  std::string text = straggler.text().empty()
                         ? absl::StrCat("rank ", straggler.rank(), " is the slowest in ",
                                        FormatRatio(straggler.share()), " of the steps")
                         : Printable(straggler.text());
  if (!straggler.cause().empty()) absl::StrAppend(&text, " (", Printable(straggler.cause()), ")");
  return text;
}

std::string FormatJoules(double joules) {
  if (!std::isfinite(joules) || joules < 0) return "-";
  if (joules >= kSmallestKwh * kJoulesPerKwh) {
    return absl::StrFormat("%.3g kWh", joules / kJoulesPerKwh);
  }
  return joules >= 1000 ? absl::StrFormat("%.3g kJ", joules / 1000)
                        : absl::StrFormat("%.0f J", joules);
}

std::string FormatWatts(double watts) {
  if (!std::isfinite(watts) || watts < 0) return "-";
  return watts >= 999.5 ? absl::StrFormat("%.2f kW", watts / 1000)
                        : absl::StrFormat("%.0f W", watts);
}

}  // namespace lockstep::cli
