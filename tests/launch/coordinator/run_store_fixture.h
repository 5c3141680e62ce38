// A run store in a folder of its own, and a run with something in every field.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <memory>
#include <string>
#include <utility>

#include "launch/coordinator/run_store.h"
#include "tests/launch/temporary_folder.h"

namespace lockstep::launch {

namespace fs = std::filesystem;

class RunStoreTest : public ::testing::Test {
 protected:
  fs::path File() const { return folder_.path() / "lockstep.db"; }
  fs::path Backups() const { return folder_.path() / "backup"; }
  absl::StatusOr<std::unique_ptr<RunStore>> Open() const {
    return RunStore::Open(File(), Backups());
  }
  std::unique_ptr<RunStore> MustOpen() const {
    auto store = Open();
    EXPECT_TRUE(store.ok()) << store.status();
    return store.ok() ? *std::move(store) : nullptr;
  }

  static StoredRun Full(const std::string& id) {
    StoredRun stored;
    launch::Run& run = stored.run;
    run.spec.id = id;
    run.spec.name = "name";
    run.spec.run_dir = "/runs/" + id;
    run.spec.submitted_by = "ada";
    run.spec.config_yaml = "name: demo\n";
    run.spec.config_hash = "abc";
    run.spec.model = "cnn";
    run.spec.dataset = "shapes";
    run.spec.ranks = 3;
    run.spec.priority = -2;
    run.spec.submitted_unix = 1e9 + 0.25;
    run.spec.restart = {7, 0.5, 30, 12};
    run.spec.limits = {60, 5, 3.6e6, true, 0.25, "top1"};
    run.state = RunState::kPausing;
    run.reason = "\xff is no UTF-8";
    run.number = 4;
    run.queue_order = 9;
    run.sequence = 123;
    run.attempt = 2;
    run.token = "token";
    run.has_processes = true;
    run.gang = {4711, 99};
    run.rank_processes = {{1, 2}, {3, 4}};
    run.rank_devices = {{"NVIDIA H200", "GPU-1", false}, {"", "", true}};
    run.held = true;
    run.has_goodbye = true;
    run.goodbye_exit = 10;
    run.goodbye_reason = "paused";
    run.kill_reason = "killed";
    run.hang = true;
    run.orders = {{"order", OrderKind::kHold, "asked for", true, 500}};
    run.step = 77;
    run.progress_attempt = 2;
    run.failed_step = 5;
    run.settled_step = 6;
    run.last_checkpoint = {70, 1000, 0.5, 0.1, true, "", "/path", 1e9};
    run.crashes_in_a_row = 1;
    run.restarts = 3;
    run.retry_at = 600;
    run.recovery_began_at = 590;
    run.started_unix = 1e9 + 1;
    run.queued_at = 400;
    const metrics::Pricing pricing({.per_rank_hour = 3600, .per_kwh = 0.5}, "host");
    run.account.Switch(metrics::Account::Interval::kAttempt, 1, 3, {400, 1e9}, pricing);
    run.account.Switch(metrics::Account::Interval::kPausedFree, 1, 3, {430, 1e9 + 30}, pricing);
    run.account.Switch(metrics::Account::Interval::kAttempt, 2, 3, {450, 1e9 + 50}, pricing);
    std::vector<metrics::RankUsage> ranks(3);
    for (metrics::RankUsage& rank : ranks) {
      rank.known = true;
      rank.phase_seconds[3] = 20;
      rank.dataset_bytes = 1000;
      rank.device = "NVIDIA H200";
    }
    run.account.Observe(ranks, {475, 1e9 + 75}, pricing);
    (void)run.account.TakeLines();
    run.checkpoint_costs = {{50, 1000}, {70, 2000}};
    run.metric_points = {{50, 0.5, 1000}};
    run.warned_percent = 80;
    run.restarts_by_reason = {{"hang", 1}, {"rank_crash", 2}};
    run.lost_steps = 12;
    run.checkpoints_ok = 8;
    run.checkpoints_failed = 1;
    run.checkpoint_write_counts = {0, 1, 2};
    run.checkpoint_write_sum = 0.75;
    run.recovery_counts = {3};
    run.recovery_sum = 4;
    stored.progress = std::string("with\0zero", 9);
    stored.totals = "totals";
    return stored;
  }
  static RunStore::Batch BatchOf(StoredRun run) {
    RunStore::Batch batch;
    batch.runs.push_back(std::move(run));
    batch.clocks = {1000, 1e9, "boot"};
    return batch;
  }

  TemporaryFolder folder_;
};

}  // namespace lockstep::launch
