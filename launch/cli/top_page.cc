#include "launch/cli/top_page.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "launch/cli/format.h"
#include "launch/cli/progress.h"
#include "launch/cli/spending.h"
#include "launch/cli/table.h"

namespace lockstep::cli {
namespace {

constexpr const char* kYellow = "\x1b[33m";
constexpr const char* kRed = "\x1b[31m";
constexpr const char* kReverse = "\x1b[7m";

std::string Painted(const std::string& text, const char* sequence, const TopStyle& style) {
  return style.color && *sequence != '\0' ? absl::StrCat(sequence, text, "\x1b[0m") : text;
}

const char* ColorOf(double ratio) {
  return ratio >= kLastWarningRatio ? kRed : ratio >= kFirstWarningRatio ? kYellow : "";
}

// The line, or what fits of it; then without colours, because a cut could leave one switched on.
std::string Fit(const std::string& line, int columns) {
  if (DisplayWidth(line) <= columns) return line;
  std::string plain;
  for (size_t i = 0; i < line.size(); ++i) {
    if (line[i] == '\x1b') {
      while (i < line.size() && line[i] != 'm') ++i;
    } else {
      plain += line[i];
    }
  }
  return Clip(plain, columns);
}

// Parts of a line, two spaces apart; the last ones go when there is no room.
std::string Joined(std::vector<std::string> parts, int columns) {
  while (parts.size() > 1 && DisplayWidth(absl::StrJoin(parts, "  ")) > columns) parts.pop_back();
  return absl::StrJoin(parts, "  ");
}

// A table that gives up columns for room: of low rank first.
class Fitted {
 public:
  struct Column {
    std::string title;
    int keep_rank;
    Table::Align align = Table::Align::kRight;
  };
  explicit Fitted(std::vector<Column> columns) : columns_(std::move(columns)) {}
  void Add(std::vector<std::string> cells) { rows_.push_back(std::move(cells)); }

  std::vector<std::string> Lines(int columns) const {
    std::vector<size_t> kept(columns_.size());
    std::iota(kept.begin(), kept.end(), size_t{0});
    // A column in which nobody has anything is no use.
    std::erase_if(kept, [&](size_t column) {
      return columns_[column].keep_rank < 100 &&
             std::all_of(rows_.begin(), rows_.end(), [&](const auto& row) {
               return row[column].empty() || row[column] == "-";
             });
    });
    while (kept.size() > 1 && Width(kept) > columns) {
      kept.erase(std::min_element(kept.begin(), kept.end(), [&](size_t a, size_t b) {
        return columns_[a].keep_rank < columns_[b].keep_rank;
      }));
    }
    std::vector<Table::Column> titles;
    titles.reserve(kept.size());
    for (const size_t column : kept) {
      titles.push_back({columns_[column].title, columns_[column].align});
    }
    Table table(titles);
    for (const auto& row : rows_) {
      std::vector<std::string> cells;
      cells.reserve(kept.size());
      for (const size_t column : kept) cells.push_back(row[column]);
      table.Add(std::move(cells));
    }
    std::vector<std::string> lines = absl::StrSplit(table.Render(), '\n', absl::SkipEmpty());
    for (std::string& line : lines) line = Fit(line, columns);
    return lines;
  }

 private:
  int Width(const std::vector<size_t>& kept) const {
    int width = 2 * (static_cast<int>(kept.size()) - 1);
    for (const size_t column : kept) {
      int widest = DisplayWidth(columns_[column].title);
      for (const auto& row : rows_) widest = std::max(widest, DisplayWidth(row[column]));
      width += widest;
    }
    return width;
  }

  std::vector<Column> columns_;
  std::vector<std::vector<std::string>> rows_;
};

// Of the newest steps: how long one takes.
double StepSeconds(const v1::Progress& progress) {
  if (progress.samples_per_second() <= 0 || progress.steps() <= 0) return -1;
  const double samples_per_step =
      static_cast<double>(progress.samples()) / static_cast<double>(progress.steps());
  return samples_per_step / progress.samples_per_second();
}

std::string Milliseconds(double seconds) {
  if (seconds < 0) return "-";
  return seconds < 1 ? absl::StrCat(FormatNumber(std::round(seconds * 1e4) / 10), "ms")
                     : FormatSeconds(seconds);
}

std::vector<std::string> RunCells(const v1::Run& run, const TopStyle& style) {
  const v1::Progress& progress = run.progress();
  const v1::Spending& spending = run.spending();
  const bool started = progress.step() > 0;
  const bool moving = run.state() == v1::RUN_STATE_RUNNING;
  const double done = DoneRatio(run);
  const bool named = !run.name().empty() && run.run_id().rfind(run.name(), 0) != 0;
  return {run.run_id(),
          named ? Clip(Printable(run.name()), 20) : "-",
          ColoredState(run.state(), style.color),
          started && done >= 0 ? FormatRatio(done) : "-",
          moving ? FormatSeconds(progress.eta_seconds()) : "-",
          moving ? FormatRate(progress.samples_per_second()) : "-",
          moving ? Milliseconds(StepSeconds(progress)) : "-",
          started ? FormatNumber(progress.loss()) : "-",
          started && progress.has_score() ? DescribeScore(progress.score()) : "-",
          absl::StrCat(run.ranks()),
          spending.watts() > 0 ? FormatWatts(spending.watts()) : "-",
          FormatCost(run.cost(), ""),
          DescribeProjected(run).empty() ? "-" : FormatCost(spending.projected_cost(), ""),
          spending.limit().empty() ? "-"
                                   : Painted(FormatRatio(spending.limit_ratio()),
                                             ColorOf(spending.limit_ratio()), style)};
}

std::vector<std::string> RunLines(const std::vector<v1::Run>& runs, size_t shown,
                                  const TopStyle& style) {
  if (runs.empty()) return {Fit("no runs yet; `lockstep submit FILE` queues one", style.columns)};
  using Align = Table::Align;
  Fitted table({{"RUN", 100, Align::kLeft},
                {"NAME", 20, Align::kLeft},
                {"STATE", 95, Align::kLeft},
                {"DONE", 90},
                {"ETA", 85},
                {"SAMPLES/S", 60},
                {"STEP", 55},
                {"LOSS", 40},
                {"SCORE", 45},
                {"RANKS", 35},
                {"POWER", 50},
                {"COST", 80},
                {"AT END", 65},
                {"LIMIT", 75}});
  for (size_t i = 0; i < shown; ++i) table.Add(RunCells(runs[i], style));
  std::vector<std::string> lines = table.Lines(style.columns);
  if (shown < runs.size()) {
    lines.push_back(
        Fit(absl::StrCat("and ", runs.size() - shown, " more; `lockstep list` shows them"),
            style.columns));
  }
  return lines;
}

// A sentence over as many lines as it needs, broken at spaces, each in the colour.
void AddNote(const std::string& text, const char* color, const TopStyle& style,
             std::vector<std::string>& notes) {
  std::string line;
  const auto flush = [&] { notes.push_back(Painted(Fit(line, style.columns), color, style)); };
  for (const absl::string_view word : absl::StrSplit(text, ' ', absl::SkipEmpty())) {
    if (line.empty()) {
      line = std::string(word);
    } else if (DisplayWidth(line) + 1 + DisplayWidth(word) <= style.columns) {
      absl::StrAppend(&line, " ", word);
    } else {
      flush();
      line = absl::StrCat("  ", word);
    }
  }
  flush();
}

// What a person should know of the runs and GPUs.
std::vector<std::string> Notes(const TopData& data, const TopStyle& style) {
  std::vector<std::string> notes;
  for (const v1::Run& run : data.runs) {
    const std::string of_run = absl::StrCat(run.run_id(), ": ");
    const int percent = OutOfBudget(run) ? 0 : WarningPercent(run);
    if (percent > 0) {
      AddNote(of_run + DescribeWarning(run), percent >= 95 ? kRed : kYellow, style, notes);
    }
    if (run.has_straggler() && run.state() == v1::RUN_STATE_RUNNING) {
      AddNote(of_run + DescribeStraggler(run.straggler()), kYellow, style, notes);
    }
    const bool asks = run.state() == v1::RUN_STATE_RECOVERING ||
                      run.state() == v1::RUN_STATE_FAILED || OutOfBudget(run);
    if (asks && !run.reason().empty()) AddNote(of_run + Printable(run.reason()), "", style, notes);
  }
  for (const v1::Gpu& gpu : data.status.gpus()) {
    if (gpu.healthy() && gpu.trouble().empty()) continue;
    AddNote(absl::StrCat("GPU ", gpu.index(), ": ", Printable(gpu.trouble())), kRed, style, notes);
  }
  return notes;
}

std::string OfTotal(double part, double total, double unit, const char* name) {
  if (part < 0) return "-";
  const std::string used = absl::StrFormat("%.0f", part / unit);
  return total > 0 ? absl::StrCat(used, "/", absl::StrFormat("%.0f", total / unit), " ", name)
                   : absl::StrCat(used, " ", name);
}

std::vector<std::string> GpuLines(const TopData& data, const TopStyle& style) {
  const v1::GetStatusResponse& status = data.status;
  if (status.gpus().empty()) {
    const std::string power =
        status.cpu_watts() > 0 ? absl::StrCat("; the CPUs draw ", FormatWatts(status.cpu_watts()))
                               : "";
    return {Fit(absl::StrCat("no GPUs: ranks train on the CPU", power), style.columns)};
  }
  using Align = Table::Align;
  Fitted table({{"GPU", 100},
                {"NAME", 20, Align::kLeft},
                {"", 97, Align::kLeft},
                {"UTIL", 90},
                {"MEMORY", 80},
                {"TEMP", 70},
                {"POWER", 75},
                {"SLOWED BY", 60, Align::kLeft},
                {"HELD BY", 95, Align::kLeft}});
  for (const v1::Gpu& gpu : status.gpus()) {
    const bool used = gpu.utilization_ratio() >= 0;
    const bool felt = gpu.temperature_celsius() >= 0;
    table.Add({absl::StrCat(gpu.index()), Clip(Printable(gpu.name()), 24),
               gpu.healthy() ? "" : Painted("FAILED", kRed, style),
               used ? absl::StrFormat("%.0f%%", 100 * gpu.utilization_ratio()) : "-",
               OfTotal(gpu.memory_used_bytes(), gpu.memory_total_bytes(), 1 << 30, "GiB"),
               felt ? absl::StrFormat("%.0f C", gpu.temperature_celsius()) : "-",
               OfTotal(gpu.power_watts(), gpu.power_limit_watts(), 1, "W"),
               gpu.throttled().empty() ? "-" : Painted(Printable(gpu.throttled()), kYellow, style),
               gpu.run().empty() ? "free" : absl::StrCat(gpu.run(), " rank ", gpu.rank())});
  }
  return table.Lines(style.columns);
}

std::vector<std::string> HeadLines(const TopData& data, const TopStyle& style) {
  const v1::GetStatusResponse& status = data.status;
  std::vector<std::string> head = {
      "lockstep", FormatClock(data.unix_seconds),
      absl::StrCat(status.running(), " running, ", status.queued(), " queued"),
      absl::StrCat(status.slots() - status.free_slots(), " of ", status.slots(), " slots busy"),
      absl::StrCat("up ", FormatSeconds(status.uptime_seconds()))};
  double per_hour = 0;
  double watts = 0;
  for (const v1::Run& run : data.runs) {
    if (IsFinal(run.state())) continue;
    per_hour += run.spending().cost_per_hour();
    watts += run.spending().watts();
  }
  const double month = static_cast<double>(status.month_micros()) * 1e-6;
  std::string spent = absl::StrCat(FormatCost(month, status.currency()), " this month");
  if (const double budget = status.monthly_budget(); budget > 0) {
    absl::StrAppend(&spent, ", ", FormatRatio(month / budget), " of ", FormatCost(budget, ""));
    spent = Painted(spent, ColorOf(month / budget), style);
  } else {
    spent += ", no budget";
  }
  std::vector<std::string> money = {
      absl::StrCat(FormatCost(per_hour, status.currency()), " an hour now"), spent};
  if (watts > 0) money.push_back(absl::StrCat("runs draw ", FormatWatts(watts)));
  std::vector<std::string> lines = {Joined(head, style.columns), Joined(money, style.columns)};
  if (data.lost_seconds > 0) {
    lines.push_back(Painted(
        absl::StrCat("the coordinator has not answered for ", FormatSeconds(data.lost_seconds),
                     "; runs go on, waiting for it to come back"),
        kReverse, style));
  }
  for (std::string& line : lines) line = Fit(line, style.columns);
  return lines;
}

std::vector<std::string> Compose(const TopData& data, const TopStyle& style, size_t runs,
                                 bool with_notes) {
  std::vector<std::string> page = HeadLines(data, style);
  const auto append = [&](const std::vector<std::string>& lines) {
    if (lines.empty()) return;
    page.emplace_back();
    page.insert(page.end(), lines.begin(), lines.end());
  };
  append(RunLines(data.runs, runs, style));
  if (with_notes) append(Notes(data, style));
  append(GpuLines(data, style));
  return page;
}

}  // namespace

std::vector<std::string> TopPage(const TopData& data, const TopStyle& style) {
  const size_t all = data.runs.size();
  const auto live =
      static_cast<size_t>(std::count_if(data.runs.begin(), data.runs.end(),
                                        [](const v1::Run& run) { return !IsFinal(run.state()); }));
  const auto fits = [&](const std::vector<std::string>& page) {
    return style.rows <= 0 || page.size() <= static_cast<size_t>(style.rows);
  };
  std::vector<std::string> page = Compose(data, style, all, true);
  for (size_t runs = all; !fits(page) && runs > live;) page = Compose(data, style, --runs, true);
  for (size_t runs = live; !fits(page) && runs > 0; --runs) {
    page = Compose(data, style, runs, false);
  }
  if (!fits(page)) page.resize(static_cast<size_t>(style.rows));
  return page;
}

Json TopJson(const TopData& data) {
  Json json;
  json["time"] = FormatUtc(data.unix_seconds);
  json["status"] = ToJson(data.status);
  json["runs"] = Json::array();
  for (const v1::Run& run : data.runs) json["runs"].push_back(ToJson(run));
  return json;
}

}  // namespace lockstep::cli
