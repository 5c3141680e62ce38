#include "launch/cli/progress.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "launch/cli/format.h"
#include "launch/cli/spending.h"

namespace lockstep::cli {
namespace {

constexpr int kSmallestBar = 8;
constexpr int kLargestBar = 30;

// A part of the line; a part of low rank goes first when there is no room.
struct Part {
  int keep_rank;
  std::string text;
};

std::string StepText(const v1::Progress& progress) {
  std::string text = FormatCount(progress.step());
  if (progress.total_steps() > 0) absl::StrAppend(&text, "/", FormatCount(progress.total_steps()));
  return text;
}

// A step's figures are read one step late, so the first report of an attempt has none.
bool HasMeasured(const v1::Progress& progress) {
  return progress.loss() != 0 || progress.samples_per_second() > 0;
}

bool HasStarted(const v1::Run& run) {
  return run.has_progress() && (run.progress().step() > 0 || run.progress().steps() > 0);
}

}  // namespace

bool IsFinal(v1::RunState state) {
  return state == v1::RUN_STATE_COMPLETED || state == v1::RUN_STATE_STOPPED ||
         state == v1::RUN_STATE_FAILED;
}

std::string StateName(v1::RunState state) {
  constexpr const char kPrefix[] = "RUN_STATE_";
  const std::string& name = v1::RunState_Name(state);
  if (!absl::StartsWith(name, kPrefix)) return absl::StrCat("STATE-", static_cast<int>(state));
  return name.substr(sizeof kPrefix - 1);
}

std::string ColoredState(v1::RunState state, bool color) {
  std::string name = StateName(state);
  if (!color) return name;
  switch (state) {
    case v1::RUN_STATE_RUNNING:
    case v1::RUN_STATE_COMPLETED:
      return absl::StrCat("\x1b[32m", name, "\x1b[0m");
    case v1::RUN_STATE_FAILED:
      return absl::StrCat("\x1b[31m", name, "\x1b[0m");
    case v1::RUN_STATE_RECOVERING:
    case v1::RUN_STATE_PAUSED:
    case v1::RUN_STATE_PAUSING:
    case v1::RUN_STATE_STOPPING:
      return absl::StrCat("\x1b[33m", name, "\x1b[0m");
    default:
      return name;
  }
}

std::string Label(const v1::Run& run) {
  if (run.name().empty() || absl::StartsWith(run.run_id(), run.name())) return run.run_id();
  return absl::StrCat(run.run_id(), " (", Printable(run.name()), ")");
}

bool OutOfBudget(const v1::Run& run) {
  const bool rests = run.state() == v1::RUN_STATE_PAUSED || run.state() == v1::RUN_STATE_STOPPED ||
                     run.state() == v1::RUN_STATE_FAILED;
  return rests && absl::StartsWith(run.reason(), "budget:");
}

bool IsOver(const v1::Run& run) {
  return IsFinal(run.state()) || OutOfBudget(run);
}

double DoneRatio(const v1::Run& run) {
  const v1::Progress& progress = run.progress();
  if (progress.total_steps() > 0) {
    return std::clamp(
        static_cast<double>(progress.step()) / static_cast<double>(progress.total_steps()), 0.0,
        1.0);
  }
  // A run with a wall time tells how far it is only through its time to go.
  if (progress.eta_seconds() > 0 && progress.wall_seconds() > 0) {
    return progress.wall_seconds() / (progress.wall_seconds() + progress.eta_seconds());
  }
  return -1;
}

std::string Bar(double ratio, int width, const BarStyle& style) {
  ratio = std::isfinite(ratio) ? std::clamp(ratio, 0.0, 1.0) : 0.0;
  width = std::max(width, 0);
  const int filled = static_cast<int>(ratio * width);
  std::string text;
  if (style.unicode) {
    if (style.color) text += "\x1b[32m";
    for (int i = 0; i < filled; ++i) text += "━";
    if (style.color) text += "\x1b[90m";
    for (int i = filled; i < width; ++i) text += style.color ? "━" : "╌";
    if (style.color) text += "\x1b[0m";
    return absl::StrCat(" ", text, " ");
  }
  text.assign(static_cast<size_t>(filled), '=');
  if (filled < width) text += filled > 0 ? ">" : " ";
  text.resize(static_cast<size_t>(width), ' ');
  return absl::StrCat("[", text, "]");
}

std::string ProgressLine(const v1::Run& run, const BarStyle& style, double idle_seconds) {
  const v1::Progress& progress = run.progress();
  const bool moving = run.state() == v1::RUN_STATE_RUNNING;
  std::vector<Part> parts;
  parts.push_back({100, run.run_id()});
  if (!absl::StartsWith(run.run_id(), run.name())) {
    parts.push_back({40, Clip(Printable(run.name()), 24)});
  }
  if (!moving || !HasStarted(run)) parts.push_back({95, ColoredState(run.state(), style.color)});
  if (run.state() == v1::RUN_STATE_QUEUED && run.queue_position() > 0) {
    parts.push_back({90, absl::StrCat("position ", run.queue_position())});
  }
  constexpr int kBarMark = 80;
  if (HasStarted(run)) {
    const double ratio = DoneRatio(run);
    if (ratio >= 0) {
      parts.push_back({kBarMark, ""});
      parts.push_back({85, absl::StrFormat("%3.0f%%", std::floor(ratio * 100))});
    }
    parts.push_back({60, StepText(progress)});
    parts.push_back({35, absl::StrCat("epoch ", FormatEpoch(progress.epoch()))});
    if (HasMeasured(progress)) {
      parts.push_back({55, absl::StrCat("loss ", FormatNumber(progress.loss()))});
      if (progress.has_score()) parts.push_back({50, DescribeScore(progress.score())});
    }
    if (moving && HasMeasured(progress)) {
      parts.push_back({45, absl::StrCat(FormatRate(progress.samples_per_second()), "/s")});
      if (progress.eta_seconds() >= 0) {
        parts.push_back({70, absl::StrCat("ETA ", FormatSeconds(progress.eta_seconds()))});
      }
    }
    if (run.cost() > 0) parts.push_back({30, FormatCost(run.cost(), run.currency())});
    if (const std::string projected = DescribeProjected(run); moving && !projected.empty()) {
      parts.push_back({25, absl::StrCat("(", projected, ")")});
    }
  }
  if (WarningPercent(run) > 0) {
    const std::string used = absl::StrCat(FormatRatio(run.spending().limit_ratio()), " of limit");
    parts.push_back({65, style.color ? absl::StrCat("\x1b[33m", used, "\x1b[0m") : used});
  }
  if (moving && run.has_straggler()) {
    parts.push_back({32, absl::StrCat("waits for rank ", run.straggler().rank())});
  }
  if (idle_seconds >= 15) {
    parts.push_back({92, absl::StrCat("(no news for ", FormatSeconds(idle_seconds), ")")});
  }

  const auto width_of = [&] {
    int width = static_cast<int>(parts.size()) - 1;  // The spaces between.
    for (const Part& part : parts) {
      width += part.text.empty() ? kSmallestBar + 2 : DisplayWidth(part.text);
    }
    return width;
  };
  while (parts.size() > 1 && width_of() > style.columns) {
    parts.erase(std::min_element(parts.begin(), parts.end(), [](const Part& a, const Part& b) {
      return a.keep_rank < b.keep_rank;
    }));
  }
  const int room = kSmallestBar + std::max(style.columns - width_of(), 0);
  std::vector<std::string> texts;
  texts.reserve(parts.size());
  for (const Part& part : parts) {
    texts.push_back(part.text.empty() ? Bar(DoneRatio(run), std::min(room, kLargestBar), style)
                                      : part.text);
  }
  const std::string line = absl::StrJoin(texts, " ");
  return DisplayWidth(line) <= style.columns ? line : Clip(texts[0], style.columns);
}

std::string PlainProgress(const v1::Run& run) {
  const v1::Progress& progress = run.progress();
  std::string text = absl::StrCat("step ", StepText(progress));
  if (const double ratio = DoneRatio(run); ratio >= 0) {
    absl::StrAppend(&text, " (", FormatRatio(ratio), ")");
  }
  absl::StrAppend(&text, "  epoch ", FormatEpoch(progress.epoch()), "  loss ",
                  FormatNumber(progress.loss()));
  if (progress.has_score()) absl::StrAppend(&text, "  ", DescribeScore(progress.score()));
  absl::StrAppend(&text, "  ", FormatRate(progress.samples_per_second()), " samples/s");
  if (progress.eta_seconds() >= 0) {
    absl::StrAppend(&text, "  ETA ", FormatSeconds(progress.eta_seconds()));
  }
  if (run.cost() > 0) absl::StrAppend(&text, "  cost ", FormatCost(run.cost(), run.currency()));
  if (const std::string projected = DescribeProjected(run); !projected.empty()) {
    absl::StrAppend(&text, " (", projected, ")");
  }
  if (const std::string limit = DescribeLimit(run); !limit.empty()) {
    absl::StrAppend(&text, "  ", limit);
  }
  if (run.has_straggler()) {
    absl::StrAppend(&text, "  waits for rank ", run.straggler().rank(), " (",
                    Printable(run.straggler().cause()), ")");
  }
  return text;
}

std::string ScoreValue(const v1::Score& score) {
  static constexpr absl::string_view kRatios[] = {"top1", "top5", "label_accuracy", "exact_match",
                                                  "macro_f1"};
  if (score.name().empty()) return "-";
  const bool ratio =
      std::find(std::begin(kRatios), std::end(kRatios), score.name()) != std::end(kRatios);
  return ratio ? FormatRatio(score.value()) : FormatNumber(score.value());
}

std::string DescribeScore(const v1::Score& score) {
  return score.name().empty() ? "" : absl::StrCat(score.name(), " ", ScoreValue(score));
}

v1::Score FirstScore(const v1::Evaluation& evaluation) {
  return evaluation.scores().empty() ? v1::Score() : evaluation.scores(0);
}

std::string DescribeFeatureCache(const v1::FeatureCache& cache, const std::string& currency) {
  std::string text =
      cache.reused()
          ? "reused"
          : absl::StrCat("computed in ", FormatSeconds(cache.computed_seconds()), " of rank time");
  // Until the first epochs have made up for computing them.
  if (cache.saved_seconds() <= 0) return text;
  absl::StrAppend(&text, ", ", FormatSeconds(cache.saved_seconds()), " of rank time (",
                  FormatCost(cache.saved_cost(), currency), ") saved so far");
  return text;
}

std::string DescribeEvaluation(const v1::Evaluation& evaluation) {
  std::string text = "held-out ";
  for (const v1::Score& score : evaluation.scores()) {
    absl::StrAppend(&text, DescribeScore(score), ", ");
  }
  absl::StrAppend(&text, "loss ", FormatNumber(evaluation.loss()), " at step ",
                  FormatCount(evaluation.step()), " (epoch ", FormatEpoch(evaluation.epoch()));
  if (evaluation.samples() > 0) {
    absl::StrAppend(&text, "; ", FormatCount(evaluation.samples()), " samples in ",
                    FormatSeconds(evaluation.seconds()));
  }
  return text + ")";
}

std::string DescribeCheckpoint(const v1::CheckpointEvent& checkpoint) {
  if (!checkpoint.ok()) {
    return absl::StrCat(
        "checkpoint of step ", FormatCount(checkpoint.step()), " was NOT written: ",
        checkpoint.error().empty() ? "no reason given" : Printable(checkpoint.error()));
  }
  return absl::StrCat("checkpoint of step ", FormatCount(checkpoint.step()), ": ",
                      FormatBytes(checkpoint.bytes()), " in ",
                      FormatSeconds(checkpoint.write_seconds()));
}

std::string DescribeState(const v1::Run& run, bool color) {
  std::string text = ColoredState(run.state(), color);
  if (run.state() == v1::RUN_STATE_QUEUED && run.queue_position() > 0) {
    absl::StrAppend(&text, ", position ", run.queue_position());
  }
  if (!run.reason().empty()) absl::StrAppend(&text, ": ", Printable(run.reason()));
  if (run.attempt() > 1 && !IsFinal(run.state()) &&
      !absl::StrContains(run.reason(), absl::StrCat("attempt ", run.attempt()))) {
    absl::StrAppend(&text, " (attempt ", run.attempt(), ")");
  }
  return text;
}

}  // namespace lockstep::cli
