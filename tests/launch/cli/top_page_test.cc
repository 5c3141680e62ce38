#include "launch/cli/top_page.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "launch/cli/format.h"

namespace lockstep::cli {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

v1::Run Run(const std::string& id, v1::RunState state) {
  v1::Run run;
  run.set_run_id(id);
  run.set_name("cifar10-resnet18");
  run.set_state(state);
  run.set_ranks(2);
  run.set_cost(1.25);
  run.set_currency("EUR");
  v1::Progress* progress = run.mutable_progress();
  progress->set_step(100);
  progress->set_total_steps(400);
  progress->set_loss(0.4123);
  progress->mutable_score()->set_name("top1");
  progress->mutable_score()->set_value(0.871);
  progress->set_samples(51200);
  progress->set_steps(100);
  progress->set_samples_per_second(10240);
  progress->set_eta_seconds(95);
  v1::Spending* spending = run.mutable_spending();
  spending->set_cost_per_hour(0.84);
  spending->set_watts(640);
  spending->set_projected_cost(5.5);
  spending->set_limit_ratio(0.25);
  spending->set_limit("cost.max_cost 5.00 EUR");
  return run;
}

TopData Data(int live, int ended, int gpus) {
  TopData data;
  data.unix_seconds = 1'800'000'000;
  v1::GetStatusResponse& status = data.status;
  status.set_slots(8);
  status.set_free_slots(6);
  status.set_running(live);
  status.set_queued(1);
  status.set_uptime_seconds(3725);
  status.set_currency("EUR");
  status.set_month_micros(12'340'000);
  status.set_monthly_budget(50);
  status.set_cpu_watts(-1);
  for (int i = 0; i < live; ++i) {
    data.runs.push_back(Run(absl::StrCat("live", i), v1::RUN_STATE_RUNNING));
  }
  for (int i = 0; i < ended; ++i) {
    data.runs.push_back(Run(absl::StrCat("ended", i), v1::RUN_STATE_COMPLETED));
  }
  for (int i = 0; i < gpus; ++i) {
    v1::Gpu& gpu = *status.add_gpus();
    gpu.set_index(i);
    gpu.set_name("NVIDIA H200");
    gpu.set_healthy(true);
    gpu.set_utilization_ratio(0.97);
    gpu.set_memory_used_bytes(61.0 * (1 << 30));
    gpu.set_memory_total_bytes(141.0 * (1 << 30));
    gpu.set_temperature_celsius(61);
    gpu.set_power_watts(640);
    gpu.set_power_limit_watts(700);
  }
  if (gpus > 0) {
    status.mutable_gpus(0)->set_run("live0");
    status.mutable_gpus(0)->set_rank(0);
  }
  return data;
}

std::string Text(const TopData& data, const TopStyle& style) {
  return absl::StrJoin(TopPage(data, style), "\n");
}

TEST(TopPageTest, FitsAnyTerminal) {
  TopData data = Data(6, 5, 8);
  data.runs[0].mutable_spending()->set_limit_ratio(0.97);
  data.runs[1].mutable_straggler()->set_cause("data_loader");
  data.status.mutable_gpus(1)->set_healthy(false);
  data.status.mutable_gpus(1)->set_trouble("XID 79: the GPU has fallen off the bus");
  data.lost_seconds = 12;
  for (const int rows : {1, 2, 5, 10, 24, 60}) {
    for (int columns = 1; columns <= 200; columns += columns < 30 ? 1 : 7) {
      for (const bool color : {false, true}) {
        const auto page = TopPage(data, {.columns = columns, .rows = rows, .color = color});
        EXPECT_LE(page.size(), static_cast<size_t>(rows));
        for (const std::string& line : page) EXPECT_LE(DisplayWidth(line), columns) << line;
      }
    }
  }
}

TEST(TopPageTest, EightyByTwentyFourShowsWhatMattersMost) {
  const std::string page = Text(Data(2, 1, 2), {});
  EXPECT_THAT(page, AllOf(HasSubstr("live0"), HasSubstr("RUNNING"), HasSubstr("25.0%"),
                          HasSubstr("1m35s"), HasSubstr("10,240"), HasSubstr("1.25")));
  EXPECT_THAT(page, AllOf(HasSubstr("AT END"), HasSubstr("5.50"), HasSubstr("LIMIT")));
  EXPECT_THAT(page, AllOf(HasSubstr("97%"), HasSubstr("61/141 GiB"), HasSubstr("61 C"),
                          HasSubstr("640/700 W"), HasSubstr("live0 rank 0"), HasSubstr("free")));
  EXPECT_THAT(page, AllOf(HasSubstr("2 of 8 slots busy"), HasSubstr("1.68 EUR an hour now"),
                          HasSubstr("12.34 EUR this month, 24.7% of 50.00")));
}

TEST(TopPageTest, AWidePageHasEveryColumn) {
  const std::string page = Text(Data(1, 0, 1), {.columns = 160});
  EXPECT_THAT(page, AllOf(HasSubstr("cifar10-resnet18"), HasSubstr("50ms"), HasSubstr("0.4123"),
                          HasSubstr("top1 87.1%"), HasSubstr("RANKS"), HasSubstr("640 W")));
}

TEST(TopPageTest, ANarrowPageKeepsIdStateProgressAndTime) {
  const std::string page = Text(Data(1, 0, 0), {.columns = 40});
  EXPECT_THAT(page, AllOf(HasSubstr("live0"), HasSubstr("RUNNING"), HasSubstr("25.0%"),
                          HasSubstr("1m35s")));
  EXPECT_THAT(page, Not(HasSubstr("0.4123")));
}

TEST(TopPageTest, EndedRunsGoBeforeLiveOnesAndItSaysSo) {
  const std::string page = Text(Data(3, 5, 0), {.columns = 80, .rows = 12});
  EXPECT_THAT(page, AllOf(HasSubstr("live0"), HasSubstr("live2"), HasSubstr("ended0")));
  EXPECT_THAT(page, AllOf(Not(HasSubstr("ended4")), HasSubstr(" more; `lockstep list`")));
}

TEST(TopPageTest, TroubleIsTold) {
  TopData data = Data(2, 0, 2);
  data.runs[0].mutable_spending()->set_limit_ratio(0.97);
  v1::Straggler* straggler = data.runs[1].mutable_straggler();
  straggler->set_rank(3);
  straggler->set_share(0.8);
  straggler->set_cause("gpu_throttled");
  data.status.mutable_gpus(1)->set_healthy(false);
  data.status.mutable_gpus(1)->set_trouble("XID 79");
  data.status.mutable_gpus(0)->set_throttled("thermal");
  data.lost_seconds = 12;
  const std::string page = Text(data, {.columns = 120, .rows = 40});
  EXPECT_THAT(page, HasSubstr("live0: 97.0% of cost.max_cost 5.00 EUR is used up"));
  EXPECT_THAT(page, HasSubstr("live1: rank 3 is the slowest in 80.0%"));
  EXPECT_THAT(page, AllOf(HasSubstr("GPU 1: XID 79"), HasSubstr("FAILED"), HasSubstr("thermal")));
  EXPECT_THAT(page, HasSubstr("has not answered for 12s"));
}

TEST(TopPageTest, ALongNoteGoesOnInTheNextLineInItsColour) {
  TopData data = Data(1, 0, 0);
  data.runs[0].mutable_straggler()->set_text(
      "rank 1 is the slowest in 92 % of the steps and costs 41 ms a step: its process does not get "
      "the CPU");
  const auto page = TopPage(data, {.columns = 60, .rows = 30, .color = true});
  const auto note = std::find_if(page.begin(), page.end(), [](const std::string& line) {
    return line.find("live0: rank 1") != std::string::npos;
  });
  ASSERT_NE(note, page.end());
  EXPECT_EQ(*note, "\x1b[33mlive0: rank 1 is the slowest in 92 % of the steps and costs\x1b[0m");
  EXPECT_EQ(*(note + 1), "\x1b[33m  41 ms a step: its process does not get the CPU\x1b[0m");
}

TEST(TopPageTest, ColoursAreUsedOnlyWhenAskedFor) {
  TopData data = Data(1, 0, 1);
  data.runs[0].mutable_spending()->set_limit_ratio(0.97);
  EXPECT_THAT(Text(data, {.columns = 120}), Not(HasSubstr("\x1b")));
  EXPECT_THAT(Text(data, {.columns = 120, .color = true}), HasSubstr("\x1b[31m97.0%\x1b[0m"));
}

TEST(TopPageTest, AHostWithoutGpusRunsOrBudgetSaysSo) {
  TopData data = Data(0, 0, 0);
  data.status.set_monthly_budget(0);
  data.status.set_cpu_watts(45);
  const std::string page = Text(data, {});
  EXPECT_THAT(page, AllOf(HasSubstr("no runs yet"), HasSubstr("no GPUs"), HasSubstr("45 W"),
                          HasSubstr("this month, no budget")));
}

TEST(TopPageTest, WhatAGpuDoesNotTellIsADash) {
  TopData data = Data(0, 0, 1);
  v1::Gpu* gpu = data.status.mutable_gpus(0);
  for (auto set : {&v1::Gpu::set_utilization_ratio, &v1::Gpu::set_memory_used_bytes,
                   &v1::Gpu::set_temperature_celsius, &v1::Gpu::set_power_watts}) {
    (gpu->*set)(-1);
  }
  EXPECT_THAT(Text(data, {}), AllOf(Not(HasSubstr("-1")), Not(HasSubstr("MEMORY"))));
}

}  // namespace
}  // namespace lockstep::cli
