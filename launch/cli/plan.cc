// plan: what a run will take, in time, money, energy and memory, before it is started.
#include <sched.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <memory>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "config/coordinator_config.h"
#include "config/load.h"
#include "launch/cli/follow.h"
#include "launch/cli/plan_probe.h"
#include "launch/cli/plan_view.h"
#include "launch/cli/run_file.h"
#include "launch/cli/verbs.h"
#include "launch/launcher/host_gpus.h"
#include "metrics/pricing.h"

namespace lockstep::cli {
namespace {

using config::ExitCode;

constexpr int kMostRanks = 4096;
constexpr double kPriceSeconds = 2;  // The daemon answers at once or is not asked.

struct PlanOptions {
  std::string file;
  std::vector<std::string> overrides;
  std::vector<int> ranks;
  std::string interconnect = "auto";
  std::string prices;
  ProbeOptions probe;
};

// As lockstepd counts its slots.
int Slots(const config::RunConfig& config) {
  const bool cpu = config.resources.device == config::DeviceChoice::kCpu;
  const size_t gpus = cpu ? 0 : launch::HostGpus(std::getenv("CUDA_VISIBLE_DEVICES")).size();
  if (gpus > 0) return static_cast<int>(gpus);
  cpu_set_t cpus;
  return sched_getaffinity(0, sizeof(cpus), &cpus) == 0 ? CPU_COUNT(&cpus) : 1;
}

// 1, 2, 4, … up to all slots, and what the run asks for.
std::vector<int> DefaultRanks(const config::RunConfig& config, int slots) {
  std::vector<int> ranks;
  for (int count = 1; count < slots; count *= 2) ranks.push_back(count);
  ranks.push_back(slots);
  if (config.resources.ranks > 0) ranks.push_back(config.resources.ranks);
  std::erase_if(ranks, [&](int count) { return !plan::WhyNotShared(config, count).empty(); });
  std::sort(ranks.begin(), ranks.end());
  ranks.erase(std::unique(ranks.begin(), ranks.end()), ranks.end());
  return ranks;
}

struct PriceTable {
  std::optional<metrics::Pricing> pricing;
  std::string source;
};

std::string HostName() {
  char name[256] = "";
  gethostname(name, sizeof(name) - 1);
  return name;
}

absl::StatusOr<PriceTable> ReadPrices(Context& context, const PlanOptions& options) {
  const auto status =
      MakeClient(context, kPriceSeconds).Read(&ControlStub::GetStatus, v1::GetStatusRequest());
  if (status.ok() && status->running() > 0) {
    context.Say(absl::StrCat("note: ", status->running(),
                             status->running() == 1 ? " run is" : " runs are",
                             " under way here; what is measured is what they leave"));
  }
  PriceTable table;
  std::string yaml;
  if (!options.prices.empty()) {
    auto text = ReadText(options.prices);
    if (!text.ok()) return text.status();
    yaml = *std::move(text);
    table.source = options.prices;
  } else if (status.ok()) {
    yaml = status->price_yaml();
    table.source = "the coordinator's";
  } else {
    table.source =
        "none known: no coordinator answers; --prices lockstepd.yaml names a file with them";
    return table;
  }
  auto loaded = config::LoadCoordinatorConfig(yaml, table.source);
  if (!loaded.ok()) return absl::InvalidArgumentError(loaded.Report());
  table.pricing.emplace(loaded.config.price, HostName());
  return table;
}

plan::Prices PricesFor(const PriceTable& table, const std::string& device, double seconds) {
  plan::Prices prices;
  if (!table.pricing) return prices;
  const double now =
      std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
  const metrics::Pricing& pricing = *table.pricing;
  prices.currency = pricing.currency();
  prices.watts_per_rank = pricing.EstimatedWatts(device);
  prices.hardware_per_rank_hour = seconds > 0 ? pricing.HardwarePerHour(device, now, now + seconds)
                                              : pricing.HardwarePerHour(device, now);
  prices.energy_per_kwh =
      seconds > 0 ? pricing.EnergyPerKwh(now, now + seconds) : pricing.EnergyPerKwh(now);
  prices.dataset_per_gb = pricing.PerGigabyte(config::TransferSource::kDataset);
  prices.checkpoint_per_gb = pricing.PerGigabyte(config::TransferSource::kCheckpoint);
  prices.allreduce_per_gb = pricing.PerGigabyte(config::TransferSource::kAllreduce);
  prices.known = prices.hardware_per_rank_hour > 0 || prices.energy_per_kwh > 0 ||
                 prices.dataset_per_gb > 0 || prices.checkpoint_per_gb > 0 ||
                 prices.allreduce_per_gb > 0;
  return prices;
}

absl::StatusOr<std::optional<plan::Link>> ReadInterconnect(const std::string& name) {
  if (name == "auto" || name == "measured") return std::nullopt;
  const auto link = plan::FindLink(name);
  if (!link.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat(std::string(link.status().message()), ", auto, measured"));
  }
  return *link;
}

// Probes every number of ranks that there is a place for. Others are extrapolated from a full
// machine: what its ranks take of one another, in memory, cores and links, they take in each of
// several.
absl::StatusOr<std::vector<config::ProbeReport>> ProbeAll(Prober& prober,
                                                          const config::RunConfig& config,
                                                          const std::vector<int>& ranks,
                                                          int slots) {
  std::vector<int> probed;
  std::vector<int64_t> beyond;  // Shares of the ranks that are extrapolated to.
  for (const int count : ranks) {
    if (count <= slots) {
      probed.push_back(count);
    } else {
      beyond.push_back(plan::LocalBatch(config.training, count));
    }
  }
  if (!beyond.empty() && (probed.empty() || probed.back() < slots)) probed.push_back(slots);
  std::vector<config::ProbeReport> reports;
  for (const int count : probed) {
    const std::vector<int64_t> others = count == probed.back() ? beyond : std::vector<int64_t>{};
    auto report =
        prober.Probe(count, config::ProbeBatches(plan::LocalBatch(config.training, count), others));
    if (!report.ok()) return report.status();
    reports.push_back(*std::move(report));
  }
  return reports;
}

absl::StatusOr<PlanAnswer> Answer(Context& context, const PlanOptions& options, Prober& prober,
                                  const config::RunConfig& config) {
  const auto interconnect = ReadInterconnect(options.interconnect);
  if (!interconnect.ok()) return interconnect.status();
  auto prices = ReadPrices(context, options);
  if (!prices.ok()) return prices.status();
  const int slots = Slots(config);
  std::vector<int> ranks = options.ranks.empty() ? DefaultRanks(config, slots) : options.ranks;
  std::sort(ranks.begin(), ranks.end());
  ranks.erase(std::unique(ranks.begin(), ranks.end()), ranks.end());
  if (ranks.back() > kMostRanks) {
    return absl::InvalidArgumentError(
        absl::StrCat("--ranks: expected at most ", kMostRanks, ", not ", ranks.back()));
  }
  for (const int count : ranks) {
    if (const std::string why = plan::WhyNotShared(config, count); !why.empty()) {
      return absl::InvalidArgumentError(why);
    }
  }
  auto probes = ProbeAll(prober, config, ranks, slots);
  if (!probes.ok()) return probes.status();
  if (options.interconnect == "measured" && probes->back().ranks < 2) {
    return absl::InvalidArgumentError(
        "--interconnect measured needs two ranks that can be measured; name one instead");
  }
  PlanAnswer answer{.config = config,
                    .plan = {},
                    .advice = {},
                    .probes = *std::move(probes),
                    .price_source = prices->source};
  auto plan = plan::MakePlan({.config = config,
                              .ranks = ranks,
                              .probes = answer.probes,
                              .ranks_per_host = slots,
                              .interconnect = *interconnect,
                              .prices = [&](double seconds) {
                                return PricesFor(*prices, answer.probes.front().device, seconds);
                              }});
  if (!plan.ok()) return plan.status();
  answer.plan = *std::move(plan);
  if (prices->pricing && !answer.plan.prices.known) {
    answer.price_source = absl::StrCat(answer.price_source, ", where ", answer.plan.device,
                                       " costs nothing: set price.per_rank_hour");
  }
  answer.advice = plan::Advise(answer.plan);
  return answer;
}

const char* HintFor(const absl::Status& status) {
  if (absl::IsNotFound(status)) return "`lockstep doctor` looks closer";
  if (absl::IsPermissionDenied(status)) return "or plan as the user whose runs these are";
  if (absl::IsResourceExhausted(status)) {
    return "set training.micro_batch_size, or use a smaller model or smaller pictures";
  }
  return "";
}

int PlanVerb(Context& context, const PlanOptions& options) {
  Interrupts interrupts;
  const auto file = ReadRunFile(options.file, options.overrides);
  if (!file.ok()) return Fail(context, "plan", file.status());
  const auto loaded = config::LoadRunConfig(file->yaml, file->name, file->overrides);
  if (!loaded.ok()) {
    return Fail(context, "plan", absl::InvalidArgumentError(loaded.Report()),
                "nothing was started; `lockstep config schema --markdown` lists every key");
  }
  Prober prober(context, interrupts, *file, options.probe);
  const auto answer = Answer(context, options, prober, loaded.config);
  if (prober.signal() != 0) {
    context.Say("lockstep plan: interrupted; nothing is left of the probe");
    return 128 + prober.signal();
  }
  if (!answer.ok()) {
    return Fail(context, "plan", answer.status(), HintFor(answer.status()));
  }
  context.out.Write(context.json() ? PlanJson(*answer) : PlanTable(*answer));
  return Code(ExitCode::kOk);
}

}  // namespace

void AddPlan(CLI::App& app, Context& context) {
  auto options = std::make_shared<PlanOptions>();
  CLI::App* verb =
      AddVerb(app, "plan",
              "What a run will take in time, money, energy and memory, by number of "
              "ranks; measures a few steps on the real devices",
              kRunsGroup, "lockstep plan run.yaml --ranks 1,2,4,8 --interconnect 10GbE");
  verb->add_option("FILE", options->file, "run.yaml; - reads standard input")
      ->type_name("")
      ->required();
  verb->add_option("--set", options->overrides,
                   "a.b=c: overrides a key of the file; may be repeated")
      ->expected(1)
      ->allow_extra_args(false)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)
      ->type_name("KEY=VALUE");
  verb->add_option(
          "--ranks", options->ranks,
          "Numbers of ranks to plan for (default: 1, 2, 4, … up to what this machine has); "
          "what it has not is extrapolated")
      ->delimiter(',')
      ->check(PositiveValidator())
      ->type_name("N,N");
  verb->add_option(
          "--max-steps", options->probe.max_steps,
          "Make at most so many steps for each number of ranks (default: 60, or what the batch "
          "sizes take at least); more are more exact where steps take milliseconds")
      ->check(PositiveValidator())
      ->type_name("STEPS");
  verb->add_option(
          "--interconnect", options->interconnect,
          "Between ranks that are extrapolated to: auto (measured, else 10GbE), measured, "
          "nvlink2 to nvlink5, pcie3 to pcie5, 1GbE, 10GbE, 25GbE, 100GbE, ib-edr, ib-hdr, "
          "ib-ndr")
      ->default_str("auto")
      ->type_name("NAME");
  verb->add_option("--prices", options->prices,
                   "A lockstepd.yaml to take the prices from (default: the running coordinator's)")
      ->type_name("FILE");
  verb->add_flag("--allow-root-mpirun", options->probe.allow_root, "Run ranks as root");
  OnVerb(verb, context, [&context, options] { return PlanVerb(context, *options); });
}

}  // namespace lockstep::cli
