// A snapshot in which every field has a value, as a run in its middle would leave it; moved along
// by `seconds`, so that rates over a scraped series are not zero.
#pragma once

#include <cmath>
#include <cstdint>
#include <string>

#include "metrics/ledger.h"
#include "metrics/pricing.h"
#include "metrics/snapshot.h"

namespace lockstep::metrics {

inline Histogram SampleHistogram(double seconds, double mean) {
  Histogram histogram;
  histogram.counts.assign(kStepBuckets.size() + 1, 0);
  for (size_t i = 0; i < histogram.counts.size(); ++i) {
    histogram.counts[i] = static_cast<uint64_t>((i + 1) * (1 + seconds));
    histogram.sum += mean * static_cast<double>(histogram.counts[i]);
  }
  return histogram;
}

// Time, energy and money in every phase; moved bytes in the phases that can move some.
inline void FillSpent(int ranks, double since_start, Account::Totals& spent) {
  for (int i = 0; i < config::kPhaseCount; ++i) {
    const auto phase = static_cast<size_t>(i);
    spent.seconds[phase] = i + 1 + 0.05 * since_start;
    spent.joules[phase] = 250 * ranks * spent.seconds[phase];
    spent.money[phase].hardware = std::llround(900 * ranks * spent.seconds[phase]);
    spent.money[phase].energy = std::llround(30 * ranks * spent.seconds[phase]);
    if (TransferOf(static_cast<config::Phase>(i))) {
      spent.money[phase].transfer = std::llround(5 * spent.seconds[phase]);
    }
  }
}

inline GpuReading SampleGpu(int index, double since_start) {
  GpuReading gpu;
  gpu.index = index;
  gpu.uuid = "GPU-8f6d0a2b-" + std::to_string(index);
  gpu.name = "NVIDIA H200";
  gpu.pci_bus_id = "00000000:0" + std::to_string(index) + ":00.0";
  gpu.utilization_ratio = 0.97;
  gpu.memory_used_bytes = 61e9;
  gpu.memory_total_bytes = 141e9;
  gpu.temperature_celsius = 61 + index;
  gpu.power_watts = 640;
  gpu.power_limit_watts = 700;
  gpu.sm_clock_hertz = 1.98e9;
  gpu.memory_clock_hertz = 3.2e9;
  gpu.energy_joules = 640 * since_start;
  for (const char* reason :
       {"power", "thermal", "power_brake", "sync_boost", "hardware_slowdown", "other"}) {
    gpu.throttle_seconds[reason] = 0.01 * since_start;
  }
  gpu.xid_errors = 1;
  gpu.last_xid = 31;
  gpu.pcie_width = gpu.pcie_width_max = 16;
  gpu.pcie_generation = gpu.pcie_generation_max = 5;
  return gpu;
}

/// `since_start` seconds after the daemon's start at Unix time `start`.
inline RunSample SampleRun(const std::string& id, int ranks, double start, double since_start) {
  RunSample run;
  run.run = id;
  run.name = "cifar10-resnet18";
  run.model = "resnet18";
  run.dataset = "cifar10";
  run.config_hash = "0123abcd";
  run.world_size = ranks;
  run.steps = 100 + static_cast<int64_t>(10 * since_start);
  run.samples = run.steps * 512;
  run.epoch = static_cast<double>(run.samples) / 50000;
  run.progress_ratio = 0.25;
  run.eta_timestamp_seconds = start + since_start + 600;
  run.last_step_timestamp_seconds = start + since_start;
  run.step_duration = SampleHistogram(since_start, 0.1);
  FillSpent(ranks, since_start, run.spent);
  run.allreduce_duration = SampleHistogram(since_start, 0.01);
  run.allreduce_bytes = run.steps * 44'700'000;
  for (int rank = 0; rank < ranks; ++rank) {
    run.ranks.push_back(
        {rank, 0.01 * (rank + 1) * since_start, run.steps / ranks, start + since_start});
  }
  run.has_train = true;
  run.train_loss = 1.5 / (1 + since_start);
  run.train_accuracy_ratio = 0.6;
  run.has_eval = true;
  run.eval_loss = 1.4;
  run.eval_accuracy_ratio = 0.62;
  run.learning_rate = 0.4;
  run.gradient_norm = 2.5;
  run.nonfinite_steps = 1;
  run.checkpoint_write_duration = SampleHistogram(since_start, 0.2);
  run.checkpoint_writes_ok = 3;
  run.checkpoint_writes_error = 1;
  run.checkpoint_last_size_bytes = 89'000'000;
  run.checkpoint_last_success_step = 100;
  run.checkpoint_last_success_timestamp_seconds = start;
  run.restarts = {{"rank_crash", 1}};
  run.lost_steps = 7;
  run.recovery_duration = SampleHistogram(0, 2);
  const double cost = static_cast<double>(run.spent.cost().total()) / kMicrosPerUnit;
  run.projected_cost = 4 * cost;
  run.max_cost = 5 * cost;
  run.budget_remaining = run.max_cost - cost;
  run.limit_ratio = 0.2;
  run.flops_utilization = 0.41;
  run.effective_ratio = 0.9;
  run.loaded_samples = run.samples + 64;
  run.corrupt_samples = 3;
  run.straggler = {ranks - 1, 0.7, "data_loader"};
  return run;
}

// The daemon's own: every method of its services, every change of state a run can make.
inline void FillService(double since_start, Snapshot& snapshot) {
  snapshot.rpcs_handled = {{{"GetRun", "NOT_FOUND"}, 1}, {{"SubmitRun", "INVALID_ARGUMENT"}, 1}};
  for (const char* method :
       {"SubmitRun",       "GetRun",           "ListRuns", "WatchRun", "PauseRun",
        "ResumeRun",       "CheckpointRun",    "StopRun",  "KillRun",  "StreamLogs",
        "ListCheckpoints", "VerifyCheckpoint", "Predict",  "GetCost",  "GetStatus",
        "Shutdown",        "Connect",          "Check",    "Watch",    "ServerReflectionInfo",
        "unknown"}) {
    snapshot.rpcs_handled[{method, "OK"}] = 3;
    Histogram& histogram = snapshot.rpc_seconds[method];
    histogram.counts.assign(kServiceBuckets.size() + 1, 1);
    histogram.counts[1] += static_cast<uint64_t>(since_start);
    histogram.sum = 40 + 0.001 * since_start;
    snapshot.rpcs_inflight[method] = 1;
  }
  snapshot.store_seconds.counts.assign(kServiceBuckets.size() + 1, 2);
  snapshot.store_seconds.counts[2] += static_cast<uint64_t>(since_start);
  snapshot.store_seconds.sum = 80 + 0.005 * since_start;
  snapshot.log_messages = {{"info", 20 + static_cast<int64_t>(since_start)}, {"warning", 2}};
  snapshot.watchdog_fired = {{"hang", 1}};
}

struct SampleSize {
  int ranks = 2;
  int ended_runs = 1;
  int gpus = 2;
};

inline Snapshot SampleSnapshot(const SampleSize& size, double start, double since_start) {
  Snapshot snapshot;
  snapshot.build.version = "0.1.0";
  snapshot.build.git_sha = "abcdef0";
  snapshot.build.torch = "2.11.0";
  snapshot.build.nccl = "2.28.9";
  snapshot.start_time_seconds = start;
  snapshot.runs_by_state = {{"running", 1}, {"completed", size.ended_runs}};
  snapshot.transitions = {{{"queued", "starting"}, 1 + size.ended_runs},
                          {{"starting", "running"}, 1 + size.ended_runs},
                          {{"running", "completed"}, size.ended_runs}};
  snapshot.slots = 8;
  snapshot.free_slots = 8 - size.ranks;
  snapshot.queue_depth = 2;
  snapshot.queue_oldest_wait_seconds = 30;
  snapshot.currency = "USD";
  snapshot.monthly_budget = 400;
  snapshot.month_cost = 120 + 0.001 * since_start;
  snapshot.price_per_joule = 0.3 / kJoulesPerKwh;
  FillService(since_start, snapshot);
  for (int gpu = 0; gpu < size.gpus; ++gpu) {
    snapshot.devices.gpus.push_back(SampleGpu(gpu, since_start));
    snapshot.gpu_holders.push_back({gpu, "live", gpu});
  }
  // So that an alert fires.
  if (size.gpus > 1) snapshot.devices.gpus[1].healthy = false;
  snapshot.devices.cpu_energy_joules = 80 * since_start;
  snapshot.devices.rounds = 10 + static_cast<int64_t>(since_start);
  snapshot.devices.read_seconds = 0.004;
  snapshot.runs.push_back(SampleRun("live", size.ranks, start, since_start));
  snapshot.runs.back().live = true;
  for (int i = 0; i < size.ended_runs; ++i) {
    snapshot.runs.push_back(SampleRun("ended" + std::to_string(i), size.ranks, start, 0));
  }
  return snapshot;
}

}  // namespace lockstep::metrics
