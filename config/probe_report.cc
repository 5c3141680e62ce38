#include "config/probe_report.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "absl/strings/str_cat.h"

namespace lockstep::config {
namespace {

using nlohmann::json;

constexpr int kFormat = 3;

json ToValue(const std::vector<ProbedStep>& steps) {
  json values = json::array();
  for (const ProbedStep& step : steps) {
    values.push_back({{"local_batch", step.local_batch},
                      {"timed", step.timed},
                      {"seconds", step.seconds},
                      {"phase_seconds", step.phase_seconds},
                      {"peak_bytes", step.peak_bytes}});
  }
  return values;
}

std::vector<ProbedStep> ToSteps(const json& values) {
  std::vector<ProbedStep> steps;
  for (const json& value : values) {
    ProbedStep step;
    value.at("local_batch").get_to(step.local_batch);
    value.at("timed").get_to(step.timed);
    value.at("seconds").get_to(step.seconds);
    value.at("phase_seconds").get_to(step.phase_seconds);
    value.at("peak_bytes").get_to(step.peak_bytes);
    steps.push_back(std::move(step));
  }
  return steps;
}

json ToValue(const ProbedStage& stage) {
  return {{"steps", ToValue(stage.steps)},
          {"reduced_bytes", stage.reduced_bytes},
          {"evaluated_samples", stage.evaluated_samples},
          {"evaluation_seconds", stage.evaluation_seconds},
          {"first_read_seconds", stage.first_read_seconds},
          {"first_evaluation_seconds", stage.first_evaluation_seconds},
          {"checkpoint_bytes", stage.checkpoint_bytes},
          {"checkpoint_stall_seconds", stage.checkpoint_stall_seconds},
          {"checkpoint_write_seconds", stage.checkpoint_write_seconds}};
}

ProbedStage ToStage(const json& value) {
  ProbedStage stage;
  stage.steps = ToSteps(value.at("steps"));
  value.at("reduced_bytes").get_to(stage.reduced_bytes);
  value.at("evaluated_samples").get_to(stage.evaluated_samples);
  value.at("evaluation_seconds").get_to(stage.evaluation_seconds);
  value.at("first_read_seconds").get_to(stage.first_read_seconds);
  value.at("first_evaluation_seconds").get_to(stage.first_evaluation_seconds);
  value.at("checkpoint_bytes").get_to(stage.checkpoint_bytes);
  value.at("checkpoint_stall_seconds").get_to(stage.checkpoint_stall_seconds);
  value.at("checkpoint_write_seconds").get_to(stage.checkpoint_write_seconds);
  return stage;
}

}  // namespace

std::vector<int64_t> ProbeBatches(int64_t own, const std::vector<int64_t>& others) {
  std::set<int64_t> batches = {own, std::max<int64_t>(1, own / 2), std::max<int64_t>(1, own / 4)};
  if (!others.empty()) {
    batches.insert(std::max<int64_t>(1, *std::min_element(others.begin(), others.end())));
  }
  for (int64_t multiple = 2; batches.size() < 3; multiple *= 2) batches.insert(own * multiple);
  return {batches.begin(), batches.end()};
}

std::string ToJson(const ProbeReport& report) {
  json all_reduces = json::array();
  for (const ProbedAllReduce& one : report.all_reduces) {
    all_reduces.push_back({{"bytes", one.bytes}, {"seconds", one.seconds}});
  }
  const json value = {{"format", kFormat},
                      {"ranks", report.ranks},
                      {"threads_per_rank", report.threads_per_rank},
                      {"device", report.device},
                      {"gpu", report.gpu},
                      {"train_samples", report.train_samples},
                      {"eval_samples", report.eval_samples},
                      {"micro_batch_size", report.micro_batch_size},
                      {"available_bytes", report.available_bytes},
                      {"startup_seconds", report.startup_seconds},
                      {"first", ToValue(report.first)},
                      {"unfrozen", ToValue(report.unfrozen)},
                      {"all_reduces", all_reduces},
                      {"cached_samples", report.cached_samples},
                      {"cache_seconds", report.cache_seconds},
                      {"opened_bytes", report.opened_bytes},
                      {"sample_bytes", report.sample_bytes},
                      {"sample_bytes_again", report.sample_bytes_again},
                      {"kept_bytes", report.kept_bytes},
                      {"attempting", report.attempting},
                      {"does_not_fit", report.does_not_fit},
                      {"does_not_fit_why", report.does_not_fit_why}};
  return value.dump(2, ' ', false, json::error_handler_t::replace) + "\n";
}

absl::StatusOr<ProbeReport> ParseProbeReport(std::string_view text) {
  try {
    const json value = json::parse(text);
    if (value.at("format").get<int>() != kFormat) {
      return absl::InvalidArgumentError(absl::StrCat(
          "a probe's report of format ", value.at("format").get<int>(), "; expected ", kFormat));
    }
    ProbeReport report;
    value.at("ranks").get_to(report.ranks);
    value.at("threads_per_rank").get_to(report.threads_per_rank);
    value.at("device").get_to(report.device);
    value.at("gpu").get_to(report.gpu);
    value.at("train_samples").get_to(report.train_samples);
    value.at("eval_samples").get_to(report.eval_samples);
    value.at("micro_batch_size").get_to(report.micro_batch_size);
    value.at("available_bytes").get_to(report.available_bytes);
    value.at("startup_seconds").get_to(report.startup_seconds);
    report.first = ToStage(value.at("first"));
    report.unfrozen = ToStage(value.at("unfrozen"));
    for (const json& one : value.at("all_reduces")) {
      report.all_reduces.push_back(
          {one.at("bytes").get<int64_t>(), one.at("seconds").get<double>()});
    }
    value.at("cached_samples").get_to(report.cached_samples);
    value.at("cache_seconds").get_to(report.cache_seconds);
    value.at("opened_bytes").get_to(report.opened_bytes);
    value.at("sample_bytes").get_to(report.sample_bytes);
    value.at("sample_bytes_again").get_to(report.sample_bytes_again);
    value.at("kept_bytes").get_to(report.kept_bytes);
    value.at("attempting").get_to(report.attempting);
    value.at("does_not_fit").get_to(report.does_not_fit);
    value.at("does_not_fit_why").get_to(report.does_not_fit_why);
    return report;
  } catch (const json::exception& error) {
    return absl::InvalidArgumentError(absl::StrCat("not a probe's report: ", error.what()));
  }
}

}  // namespace lockstep::config
