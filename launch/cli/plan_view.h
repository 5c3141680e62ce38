// What `lockstep plan` answers: a table and a few sentences, or one JSON document. Pure.
#pragma once

#include <string>
#include <vector>

#include "config/probe_report.h"
#include "launch/plan/advice.h"
#include "launch/plan/planner.h"

namespace lockstep::cli {

struct PlanAnswer {
  config::RunConfig config;
  plan::Plan plan;
  plan::Advice advice;
  std::vector<config::ProbeReport> probes;
  std::string price_source;  // "--prices FILE", "the coordinator", or why there is none.
};

std::string PlanTable(const PlanAnswer& answer);
std::string PlanJson(const PlanAnswer& answer);

}  // namespace lockstep::cli
