// What the runs use: each rank's time from its board, energy from the meters, and the ledger's
// sums.
#include <spdlog/spdlog.h>

#include <algorithm>
#include <cmath>
#include <ctime>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "config/rank_board.h"
#include "config/run_directory.h"
#include "launch/launcher/process.h"
#include "launch/supervisor/supervisor.h"

namespace lockstep::launch {
namespace {

using config::Phase;
using config::RankState;

// An end that is at least so long ago was not watched.
constexpr double kUnwatchedSeconds = 2;
constexpr double kBoardSeconds = 1;
// An attempt this young has used nothing worth an estimate.
constexpr double kFreshSeconds = 0.5;

double MonthBegan(double unix) {
  const auto seconds = static_cast<time_t>(std::floor(unix));
  tm date{};
  gmtime_r(&seconds, &date);
  tm first{};
  first.tm_year = date.tm_year;
  first.tm_mon = date.tm_mon;
  first.tm_mday = 1;
  return static_cast<double>(timegm(&first));
}

// A reduce that is under way may turn out as all-reduce or as waiting for the slowest rank.
bool IsUnsettled(Phase phase) {
  return phase == Phase::kAllreduceExposed || phase == Phase::kDevice;
}

metrics::RankUsage FromBoard(const RankState& rank, double now) {
  metrics::RankUsage usage;
  usage.known = true;
  usage.phase_seconds = rank.phase_seconds;
  usage.unsettled_seconds = rank.unsettled_seconds;
  usage.dataset_bytes = rank.loaded_bytes;
  // The open phase counts while somebody is in it; what a dead rank did last is not known.
  const double open = std::max(0.0, now - rank.entered_seconds);
  if (!IsAlive(rank.pid, rank.start_time_ticks)) return usage;
  if (IsUnsettled(rank.open_phase)) {
    usage.unsettled_seconds += open;
  } else {
    usage.phase_seconds[static_cast<size_t>(rank.open_phase)] += open;
  }
  return usage;
}

// What rank 0 tells over its link, where no board can be read.
metrics::RankUsage FromProgress(const v1::Progress& progress) {
  metrics::RankUsage usage;
  usage.known = progress.phase_seconds_size() > 0;
  const int phases = std::min(progress.phase_seconds_size(), config::kPhaseCount);
  for (int i = 0; i < phases; ++i) {
    const double seconds = progress.phase_seconds(i);
    usage.phase_seconds[static_cast<size_t>(i)] =
        std::isfinite(seconds) ? std::max(0.0, seconds) : 0;
  }
  return usage;
}

// `gpu` is an entry of CUDA_VISIBLE_DEVICES: a number or the beginning of a UUID.
const metrics::GpuReading* FindGpu(const metrics::DeviceReadings& readings,
                                   const std::string& gpu) {
  int index = -1;
  const bool numbered = absl::SimpleAtoi(gpu, &index);
  for (const metrics::GpuReading& reading : readings.gpus) {
    if (numbered ? reading.index == index : reading.uuid.starts_with(gpu)) return &reading;
  }
  return nullptr;
}

// When each rank was last heard of. A rank that waits for one that is behind or stands still writes
// nothing to the board, and lives.
std::vector<double> LastHeard(const std::vector<RankState>& ranks, double now) {
  const auto place = [](const RankState& rank) {
    return std::make_pair(rank.step, rank.collectives);
  };
  std::pair<int64_t, uint64_t> furthest{-1, 0};
  for (const RankState& rank : ranks) furthest = std::max(furthest, place(rank));
  std::vector<bool> ready;
  ready.reserve(ranks.size());
  for (const RankState& rank : ranks) {
    const auto process = ReadProcessStat(rank.pid, rank.start_time_ticks);
    ready.push_back(process && process->alive() && !process->stopped() && place(rank) == furthest);
  }
  const bool somebody_waits = std::count(ready.begin(), ready.end(), false) > 0;
  std::vector<double> heard;
  heard.reserve(ranks.size());
  for (size_t rank = 0; rank < ranks.size(); ++rank) {
    heard.push_back(somebody_waits && ready[rank] ? now : ranks[rank].updated_seconds);
  }
  return heard;
}

DataRead ReadOf(const std::vector<RankState>& ranks) {
  DataRead read;
  for (const RankState& rank : ranks) {
    read.samples += rank.loaded_samples;
    read.replaced += rank.replaced_samples;
  }
  return read;
}

}  // namespace

// The GPU of a rank: its slot's, or where slots are no GPUs, or it has none, the one that it told
// of; empty = it trains on the CPU.
std::string Supervisor::GpuOf(const Run& run, size_t rank) const {
  if (rank < run.slots.size()) {
    const auto slot = static_cast<size_t>(run.slots[rank]);
    if (slot < options_.gpus.size()) return options_.gpus[slot];
  }
  return rank < run.rank_devices.size() ? run.rank_devices[rank].uuid : std::string();
}

// What `gpu`, the rank's, is called in prices: as the host's driver says, or for a GPU that it does
// not know, as the rank does.
std::string Supervisor::NameOfGpu(const Run& run, size_t rank, const metrics::GpuReading* reading) {
  if (reading != nullptr && !reading->name.empty()) return reading->name;
  const bool told = rank < run.rank_devices.size() && !run.rank_devices[rank].name.empty();
  return told ? run.rank_devices[rank].name : "gpu";
}

// Energy that this rank's devices have used since the monitor began: its GPU, and its share of the
// host's CPUs.
std::optional<double> Supervisor::MeterOf(const Run& run, size_t rank,
                                          const metrics::DeviceReadings& readings) const {
  if (rank < run.rank_devices.size() && run.rank_devices[rank].elsewhere) return std::nullopt;
  const std::string gpu = GpuOf(run, rank);
  std::optional<double> joules;
  if (!gpu.empty()) {
    const metrics::GpuReading* reading = FindGpu(readings, gpu);
    if (reading == nullptr || readings.stale) return std::nullopt;
    if (reading->energy_joules == 0 && reading->energy_estimated) return std::nullopt;
    joules = reading->energy_joules;
  }
  if (readings.cpu_energy_joules) {
    joules = joules.value_or(0) + *readings.cpu_energy_joules / coordinator_.slots();
  }
  return joules;
}

std::vector<metrics::GpuHolder> Supervisor::GpuHolders(
    const metrics::DeviceReadings& readings) const {
  std::vector<metrics::GpuHolder> holders;
  for (const auto& [gpu, holder] : MakeOverview().gpu_holders) {
    const metrics::GpuReading* reading = FindGpu(readings, gpu);
    if (reading != nullptr) holders.push_back({reading->index, holder.first, holder.second});
  }
  return holders;
}

void Supervisor::NoteMeters(const Run& run, const metrics::DeviceReadings& readings) {
  Meters& meters = meters_[run.spec.id];
  meters.attempt = run.attempt;
  meters.joules.clear();
  meters.gpus.clear();
  for (int rank = 0; rank < run.spec.ranks; ++rank) {
    meters.joules.push_back(MeterOf(run, static_cast<size_t>(rank), readings));
    meters.gpus.push_back(GpuOf(run, static_cast<size_t>(rank)));
  }
}

std::vector<metrics::RankUsage> Supervisor::UsageOf(const Run& run,
                                                    const std::vector<RankState>& board, Now now) {
  const Detail& detail = details_[run.spec.id];
  const bool reported = run.progress_attempt == run.attempt;
  const metrics::RankUsage told = reported ? FromProgress(detail.progress) : metrics::RankUsage();
  const metrics::DeviceReadings readings = Devices();
  const Meters before = std::exchange(meters_[run.spec.id], {});
  NoteMeters(run, readings);
  const Meters& meters = meters_[run.spec.id];
  std::vector<metrics::RankUsage> ranks;
  for (size_t rank = 0; rank < static_cast<size_t>(run.spec.ranks); ++rank) {
    const bool shown =
        rank < board.size() && board[rank].pid > 0 && board[rank].entered_seconds > 0;
    metrics::RankUsage usage = shown ? FromBoard(board[rank], now.monotonic) : told;
    if (reported) usage.allreduce_bytes = detail.progress.allreduce_bytes();
    const std::string gpu = GpuOf(run, rank);
    if (!gpu.empty()) {
      const metrics::GpuReading* reading = FindGpu(readings, gpu);
      usage.device = NameOfGpu(run, rank, reading);
      usage.joules_estimated = reading != nullptr && reading->energy_estimated;
    }
    if (!meters.joules[rank]) {
      // Nobody meters it now.
    } else if (before.attempt == run.attempt && before.joules[rank] && before.gpus[rank] == gpu) {
      usage.joules = std::max(0.0, *meters.joules[rank] - *before.joules[rank]);
    } else if (now.monotonic - run.account.state().interval_began < kFreshSeconds) {
      usage.joules = 0;  // It has only begun: metered from here on.
    }
    ranks.push_back(std::move(usage));
  }
  return ranks;
}

metrics::DeviceReadings Supervisor::Devices() const {
  return options_.devices ? options_.devices() : metrics::DeviceReadings();
}

// A GPU that its driver or its own errors call bad gets no new rank. XIDs of any kind go to the
// log.
void Supervisor::LookAtGpus() {
  const metrics::DeviceReadings readings = Devices();
  for (const metrics::GpuReading& gpu : readings.gpus) {
    int64_t& told = xids_told_[gpu.index];
    const int64_t more = gpu.xid_errors - std::exchange(told, gpu.xid_errors);
    if (more <= 0) continue;
    spdlog::warn("GPU {} ({}): {} XID error{}, the newest is XID {}; `dmesg | grep -i xid` has all",
                 gpu.index, gpu.name, more, more == 1 ? "" : "s", gpu.last_xid);
  }
  // While the driver is silent what it said last holds: a GPU that made it hang is not good again.
  if (readings.stale) return;
  std::map<int, std::string> bad;
  for (size_t slot = 0; slot < options_.gpus.size(); ++slot) {
    const metrics::GpuReading* gpu = FindGpu(readings, options_.gpus[slot]);
    if (gpu == nullptr || gpu->healthy) continue;
    bad[static_cast<int>(slot)] = absl::StrCat("GPU ", gpu->index, ": ", gpu->trouble);
  }
  for (const auto& [slot, why] : bad) {
    if (bad_slots_.count(slot) == 0) spdlog::warn("slot {} is given to no run: {}", slot, why);
  }
  for (const auto& [slot, why] : bad_slots_) {
    if (bad.count(slot) == 0) spdlog::info("slot {} is good again", slot);
  }
  bad_slots_ = bad;
  coordinator_.SetBadSlots(std::move(bad));
}

void Supervisor::MeasureCpu(double seconds) {
  const std::optional<double> joules = Devices().cpu_energy_joules;
  cpu_watts_ = joules && cpu_joules_ && seconds > 0 ? (*joules - *cpu_joules_) / seconds : -1;
  cpu_joules_ = joules;
}

void Supervisor::ReadBoards(Now now) {
  if (now.monotonic - boards_at_ < kBoardSeconds) return;
  MeasureCpu(now.monotonic - boards_at_);
  LookAtGpus();
  boards_at_ = now.monotonic;
  std::vector<std::pair<std::string, int>> runs;
  for (const auto& [id, run] : coordinator_.runs()) {
    if (run.has_processes) runs.emplace_back(id, run.attempt);
  }
  for (const auto& [id, attempt] : runs) ReadBoard(id, attempt, now);
}

// Who keeps the others waiting?
void Supervisor::WatchRanks(const Run& run, const std::vector<RankState>& board, Now now) {
  if (run.progress_attempt != run.attempt) return;
  const v1::Progress& progress = details_[run.spec.id].progress;
  ArrivalCounts counts;
  counts.steps = progress.steps();
  counts.slowest_steps.resize(static_cast<size_t>(run.spec.ranks));
  for (const v1::RankStraggling& rank : progress.ranks()) {
    if (rank.rank() < 0 || rank.rank() >= run.spec.ranks) continue;
    counts.slowest_steps[static_cast<size_t>(rank.rank())] = rank.slowest_steps();
  }
  std::map<int, metrics::GpuReading> gpus;
  const metrics::DeviceReadings readings = Devices();
  for (int rank = 0; rank < run.spec.ranks; ++rank) {
    const std::string gpu = GpuOf(run, static_cast<size_t>(rank));
    if (gpu.empty()) continue;
    if (const auto* reading = FindGpu(readings, gpu)) gpus[rank] = *reading;
  }
  watches_[run.spec.id].Look(now.monotonic, run.attempt, board, counts, gpus);
}

std::vector<RankState> Supervisor::BoardOf(const Run& run) {
  auto ranks = config::RankBoard::Read(config::RunDirectory(run.spec.run_dir).board(run.attempt));
  return ranks.ok() ? *std::move(ranks) : std::vector<RankState>();
}

void Supervisor::ReadBoard(const std::string& id, int attempt, Now now) {
  const Run* run = coordinator_.Find(id);
  if (run == nullptr || run->attempt != attempt) return;
  const std::vector<RankState> ranks = BoardOf(*run);
  coordinator_.DataWasRead(id, attempt, ReadOf(ranks));
  coordinator_.Used(id, attempt, UsageOf(*run, ranks, now), now);
  WatchRanks(*run, ranks, now);
  const RankState* behind = nullptr;
  BoardFacts facts;
  for (const RankState& rank : ranks) {
    if (rank.pid == 0) continue;
    facts.activity += rank.collectives;
    if (behind == nullptr || std::make_pair(rank.step, rank.collectives) <
                                 std::make_pair(behind->step, behind->collectives)) {
      behind = &rank;
    }
  }
  Detail& detail = details_[id];
  detail.heard = LastHeard(ranks, now.monotonic);
  if (behind == nullptr) return;
  facts.step = behind->step;
  facts.phase = behind->phase;
  coordinator_.Observed(id, attempt, facts, now);
}

// The last look at an attempt whose processes are gone: counts what its ranks told before. At the
// first look after a start of the daemon that may be long ago, in another boot even; then it is
// said when.
std::optional<double> Supervisor::LastLook(const std::string& id, int attempt, Now now) {
  const Run* run = coordinator_.Find(id);
  if (run == nullptr || run->attempt != attempt) return std::nullopt;
  const std::vector<RankState> ranks = BoardOf(*run);
  coordinator_.DataWasRead(id, attempt, ReadOf(ranks));
  const std::vector<metrics::RankUsage> usage = UsageOf(*run, ranks, now);
  const double lived = run->account.LivedUntil(usage);
  std::optional<double> ended_at;
  Now end = now;
  if (polled_first_ && now.monotonic - lived > kUnwatchedSeconds) {
    ended_at = lived;
    end = {lived, now.unix - (now.monotonic - lived)};
  }
  coordinator_.Used(id, attempt, usage, end);
  watches_.erase(id);
  meters_.erase(id);
  return ended_at;
}

// --- The ledger.

absl::Status Supervisor::LoadLedger(std::vector<Run>& runs, Now now) {
  const metrics::Pricing& pricing = coordinator_.pricing();
  const bool spent = std::any_of(runs.begin(), runs.end(), [](const Run& run) {
    return run.account.cost() != metrics::Money();
  });
  absl::Status status = store_->UseCurrency(pricing.currency(), /*may_change=*/!spent);
  if (!status.ok()) return status;
  for (Run& run : runs) {
    if (!run.account.unpriced()) continue;
    const double at = run.ended_unix > 0 ? run.ended_unix : now.unix;
    run.account.PriceOpenLines({now.monotonic, at}, pricing);
    dirty_.insert(run.spec.id);  // Once, also for runs that have ended.
  }
  return absl::OkStatus();
}

absl::Status Supervisor::LoadMonth(Now now) {
  const auto lines = AllLines("", MonthBegan(now.unix));
  if (!lines.ok()) return lines.status();
  int64_t micros = 0;
  for (const StoredLine& stored : *lines) micros += stored.line.money.total();
  coordinator_.SetMonth(micros, now);
  return absl::OkStatus();
}

// Another month: it began, or the clock was set.
void Supervisor::NewMonth(Now now) {
  const absl::Status status = LoadMonth(now);
  if (status.ok()) return;
  ++store_errors_;
  spdlog::error("the monthly budget counts from now on: {}", std::string(status.message()));
  coordinator_.SetMonth(0, now);
}

absl::StatusOr<std::vector<StoredLine>> Supervisor::AllLines(const std::string& run,
                                                             double since_unix) {
  auto lines = store_->SumLines(run, since_unix);
  if (!lines.ok()) return lines.status();
  for (const StoredLine& line : new_lines_) {
    if ((run.empty() || line.run == run) && line.line.to_unix > since_unix) lines->push_back(line);
  }
  for (const auto& [id, one] : coordinator_.runs()) {
    if (!run.empty() && id != run) continue;
    for (const metrics::LedgerLine& line : one.account.PendingLines()) {
      if (line.to_unix > since_unix) lines->push_back({id, line});
    }
  }
  return lines;
}

void Supervisor::Ledger(const std::string& run, double since_unix, const LedgerCallback& done) {
  const auto handle = [this, run, since_unix, done](Now) { done(AllLines(run, since_unix)); };
  const auto refuse = [done] { done(absl::UnavailableError("the coordinator is shutting down")); };
  if (!Post(handle, refuse)) refuse();
}

void Supervisor::CheckpointCosts(
    const std::string& id, const std::function<void(const std::vector<CheckpointCost>&)>& done) {
  const auto handle = [this, id, done](Now) {
    const Run* run = coordinator_.Find(id);
    done(run == nullptr ? std::vector<CheckpointCost>() : run->checkpoint_costs);
  };
  const auto refuse = [done] { done({}); };
  if (!Post(handle, refuse)) refuse();
}

}  // namespace lockstep::launch
