// What a run costs and what holds it up, in words for a person. Pure functions.
#pragma once

#include <string>

#include "lockstep/v1/run.pb.h"

namespace lockstep::cli {

// Shares of a limit at which people are warned.
inline constexpr double kFirstWarningRatio = 0.8;
inline constexpr double kLastWarningRatio = 0.95;

/// 0, 80 or 95: the warning that a run's nearest limit calls for.
int WarningPercent(const v1::Run& run);
/// "2.04 EUR at the end"; "" while nobody knows, or where the run has ended.
std::string DescribeProjected(const v1::Run& run);
/// "82.0% of cost.max_cost 5.00 EUR"; "" where there is no limit.
std::string DescribeLimit(const v1::Run& run);
/// "82.0% of cost.max_cost 5.00 EUR is used up; 6.10 EUR at the end"
std::string DescribeWarning(const v1::Run& run);
/// "0.42 EUR (hardware 0.40, energy 0.0150, transfer 0.0050)"
std::string DescribeCost(const v1::Run& run);
/// "12.3 kJ, 45 W now", "1.25 kWh, partly estimated"
std::string DescribeEnergy(const v1::Run& run);
/// "rank 1 is the slowest in 82 % of the steps and costs 12 ms a step: … (data_loader)"
std::string DescribeStraggler(const v1::Straggler& straggler);

std::string FormatJoules(double joules);  // "12 J", "12.3 kJ", "1.25 kWh"
std::string FormatWatts(double watts);    // "45 W", "1.23 kW"; "-" below 0

}  // namespace lockstep::cli
