// cost: the ledger, summed up.
#include <CLI/CLI.hpp>
#include <array>
#include <ctime>
#include <memory>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "config/rank_board.h"
#include "launch/cli/format.h"
#include "launch/cli/run_json.h"
#include "launch/cli/table.h"
#include "launch/cli/verbs.h"

namespace lockstep::cli {
namespace {

using config::ExitCode;
using config::Phase;

constexpr double kMicro = 1e-6;
constexpr double kJoulesPerKwh = 3.6e6;

struct CostOptions {
  std::string run;
  std::string by;
  std::string since;  // YYYY-MM-DD
};

int64_t Micros(const v1::CostLine& line) {
  return line.hardware_micros() + line.energy_micros() + line.transfer_micros();
}

// All six digits, so that the lines add up to the total as they stand there.
std::string Amount(int64_t micros) {
  const int64_t whole = micros / 1'000'000;
  return absl::StrFormat("%s%d.%06d", micros < 0 ? "-" : "", std::abs(whole),
                         std::abs(micros % 1'000'000));
}

double Kwh(const v1::CostLine& line) {
  return static_cast<double>(line.microjoules()) * kMicro / kJoulesPerKwh;
}

// What a phase is, for people.
const char* Explain(const std::string& phase) {
  switch (config::ParsePhase(phase)) {
    case Phase::kStartup:
      return "starting the ranks, opening data, loading weights";
    case Phase::kDataWait:
      return "waiting for the data loader";
    case Phase::kH2d:
      return "copying batches to the device";
    case Phase::kForward:
      return "forward pass and loss";
    case Phase::kBackward:
      return "backward pass";
    case Phase::kAllreduceExposed:
      return "all-reduce that nothing hides";
    case Phase::kOptimizer:
      return "clipping and the optimizer";
    case Phase::kCheckpointStall:
      return "standing still for a checkpoint";
    case Phase::kEval:
      return "evaluation and cached features";
    case Phase::kRecovery:
      return "between a failure and the next attempt";
    case Phase::kPaused:
      return "paused, or no daemon was there; costs only while held";
    case Phase::kDevice:
      return "waiting for the GPU, not told what for";
    case Phase::kStragglerWait:
      return "waiting for the slowest rank";
    case Phase::kRedone:
      return "steps done again after a failure";
    case Phase::kOther:
      break;
  }
  return "everything else between steps";
}

const char* Title(v1::CostGrouping by) {
  switch (by) {
    case v1::COST_GROUPING_RANK:
      return "RANK";
    case v1::COST_GROUPING_DAY:
      return "DAY (UTC)";
    case v1::COST_GROUPING_RUN:
      return "RUN";
    default:
      return "PHASE";
  }
}

std::string CostTable(const v1::GetCostResponse& report) {
  using Align = Table::Align;
  const bool by_phase = report.by() == v1::COST_GROUPING_PHASE;
  const bool by_run = report.by() == v1::COST_GROUPING_RUN;
  const bool transfers = report.total().transfer_micros() != 0;
  std::vector<Table::Column> columns = {{Title(report.by())}};
  if (by_run) columns.push_back({"NAME"});
  // Of one run by phase, what passed on the clock; otherwise rank by rank added up.
  const bool wall = by_phase && report.ranks() > 0;
  columns.push_back({wall ? "TIME" : "RANK TIME", Align::kRight});
  columns.push_back({"SHARE", Align::kRight});
  columns.push_back({"kWh", Align::kRight});
  columns.push_back({"HARDWARE", Align::kRight});
  columns.push_back({"ENERGY", Align::kRight});
  if (transfers) columns.push_back({"TRANSFER", Align::kRight});
  columns.push_back({report.currency(), Align::kRight});
  if (by_phase) columns.push_back({""});
  Table table(columns);
  const auto add = [&](const v1::CostLine& line, const std::string& explained) {
    const int64_t all = Micros(report.total());
    const double seconds =
        static_cast<double>(line.rank_microseconds()) * kMicro / (wall ? report.ranks() : 1);
    std::vector<std::string> cells = {Printable(line.key())};
    if (by_run) cells.push_back(Clip(Printable(line.name()), 28));
    cells.push_back(FormatSeconds(seconds));
    cells.push_back(
        all == 0 ? "-" : FormatRatio(static_cast<double>(Micros(line)) / static_cast<double>(all)));
    cells.push_back(absl::StrFormat("%s%.6f", line.energy_estimated() ? "~" : "", Kwh(line)));
    cells.push_back(Amount(line.hardware_micros()));
    cells.push_back(Amount(line.energy_micros()));
    if (transfers) cells.push_back(Amount(line.transfer_micros()));
    cells.push_back(Amount(Micros(line)));
    if (by_phase) cells.push_back(explained);
    table.Add(std::move(cells));
  };
  for (const v1::CostLine& line : report.lines()) {
    add(line, by_phase ? Explain(line.key()) : "");
  }
  add(report.total(), "");
  return table.Render();
}

Json ToJson(const v1::CostLine& line) {
  return Json{{"key", line.key()},
              {"name", line.name()},
              {"rank_seconds", static_cast<double>(line.rank_microseconds()) * kMicro},
              {"rank_microseconds", line.rank_microseconds()},
              {"microjoules", line.microjoules()},
              {"energy_estimated", line.energy_estimated()},
              {"bytes", line.bytes()},
              {"hardware_micros", line.hardware_micros()},
              {"energy_micros", line.energy_micros()},
              {"transfer_micros", line.transfer_micros()},
              {"cost_micros", Micros(line)},
              {"cost", static_cast<double>(Micros(line)) * kMicro}};
}

std::string GroupName(v1::CostGrouping by) {
  constexpr std::array<const char*, 5> kNames = {"", "phase", "rank", "day", "run"};
  return kNames.at(static_cast<size_t>(by));
}

// Text in a CSV field (RFC 4180).
std::string Quoted(const std::string& text) {
  if (text.find_first_of(",\"\r\n") == std::string::npos) return text;
  std::string quoted = "\"";
  for (const char c : text) quoted += c == '"' ? std::string("\"\"") : std::string(1, c);
  return quoted + "\"";
}

// Lines only: a total in their midst would be counted twice by whoever sums a column.
std::string Csv(const v1::GetCostResponse& report) {
  std::string csv = absl::StrCat(GroupName(report.by()),
                                 ",name,rank_seconds,joules,energy_estimated,bytes,hardware,energy,"
                                 "transfer,cost,currency\n");
  for (const v1::CostLine& line : report.lines()) {
    absl::StrAppend(
        &csv, Quoted(line.key()), ",", Quoted(line.name()), ",", Amount(line.rank_microseconds()),
        ",", Amount(line.microjoules()), ",", line.energy_estimated() ? "true" : "false", ",",
        line.bytes(), ",", Amount(line.hardware_micros()), ",", Amount(line.energy_micros()), ",",
        Amount(line.transfer_micros()), ",", Amount(Micros(line)), ",", report.currency(), "\n");
  }
  return csv;
}

absl::StatusOr<double> ParseDay(const std::string& day) {
  tm date{};
  const char* end = strptime(day.c_str(), "%Y-%m-%d", &date);
  const int day_of_month = date.tm_mday;
  const time_t seconds = timegm(&date);
  // The 31st of February would be the 3rd of March.
  if (end == nullptr || *end != '\0' || date.tm_mday != day_of_month) {
    return absl::InvalidArgumentError(
        absl::StrCat("--since: '", day, "' is no day; expected YYYY-MM-DD (UTC)"));
  }
  return static_cast<double>(seconds);
}

int CostVerb(Context& context, const CostOptions& options) {
  v1::GetCostRequest request;
  request.set_run(options.run);
  for (int by = v1::COST_GROUPING_PHASE; by <= v1::COST_GROUPING_RUN; ++by) {
    if (options.by == GroupName(static_cast<v1::CostGrouping>(by))) {
      request.set_by(static_cast<v1::CostGrouping>(by));
    }
  }
  if (!options.since.empty()) {
    const auto since = ParseDay(options.since);
    if (!since.ok()) return Fail(context, "cost", since.status());
    request.set_since_unix_seconds(*since);
  }
  auto report = MakeClient(context, kReadSeconds).Read(&ControlStub::GetCost, request);
  if (!report.ok()) return Fail(context, "cost", report.status());
  switch (context.format) {
    case OutputFormat::kCsv:
      context.out.Write(Csv(*report));
      return Code(ExitCode::kOk);
    case OutputFormat::kJson: {
      Json json{{"currency", report->currency()}, {"by", GroupName(report->by())}};
      json["lines"] = Json::array();
      for (const v1::CostLine& line : report->lines()) json["lines"].push_back(ToJson(line));
      json["total"] = ToJson(report->total());
      if (report->ranks() > 0) {
        json["wall_seconds"] = report->wall_seconds();
        json["ranks"] = report->ranks();
      }
      context.out.Write(Document(json));
      return Code(ExitCode::kOk);
    }
    case OutputFormat::kTable:
      break;
  }
  if (report->lines().empty()) {
    context.Say("nothing has been spent yet");
    return Code(ExitCode::kOk);
  }
  context.out.Write(CostTable(*report));
  if (report->total().energy_estimated()) {
    context.Say("~ some of this energy was not metered but estimated from price.power");
  }
  if (report->total().hardware_micros() == 0) {
    context.Say(
        "hardware costs nothing here: set price.per_rank_hour or price.devices in the "
        "coordinator's config");
  }
  return Code(ExitCode::kOk);
}

}  // namespace

void AddCostCommands(CLI::App& app, Context& context) {
  auto options = std::make_shared<CostOptions>();
  CLI::App* verb =
      AddVerb(app, "cost", "What a run, or all runs, have cost, and where the money went",
              kWatchingGroup, "lockstep cost 3fa1 --by rank -o csv");
  verb->add_option("RUN", options->run, absl::StrCat(kRunHelp, "; without it all runs"))
      ->type_name("");
  verb->add_option("--by", options->by, "phase (of a run), rank, day or run (of all)")
      ->type_name("")
      ->check(CLI::IsMember({"phase", "rank", "day", "run"}));
  verb->add_option("--since", options->since, "Only what was spent from this day (UTC) on")
      ->type_name("YYYY-MM-DD");
  OnCsvVerb(verb, context, [&context, options] { return CostVerb(context, *options); });
}

}  // namespace lockstep::cli
