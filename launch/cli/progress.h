// What a run looks like in one line: on a terminal a bar that is painted again and again, elsewhere
// a plain line. Pure functions.
#pragma once

#include <string>
#include <vector>

#include "lockstep/v1/run.pb.h"

namespace lockstep::cli {

bool IsFinal(v1::RunState state);           // COMPLETED, STOPPED, FAILED
std::string StateName(v1::RunState state);  // "RUNNING"
std::string ColoredState(v1::RunState state, bool color);

/// What to call a run in a sentence: its id, and its name where the id does not begin with it.
std::string Label(const v1::Run& run);

/// At rest because its budget of money or time is used up. The coordinator pauses such a run, does
/// not let it go on, and says so at the start of the reason ("budget: …").
bool OutOfBudget(const v1::Run& run);
/// Nothing more will happen by itself or by `resume`: it has ended, or is out of budget.
bool IsOver(const v1::Run& run);

struct BarStyle {
  int columns = 80;
  bool unicode = false;
  bool color = false;
};

/// "[=====>     ]" with `width` characters between the brackets. `ratio` is clamped to 0-1.
std::string Bar(double ratio, int width, const BarStyle& style);

/// Share of the run that is done, 0-1; negative where its length is a wall time.
double DoneRatio(const v1::Run& run);

/// The line for a terminal, never wider than style.columns. What matters least goes first when
/// there is no room: projected cost, cost, rate, …; the bar takes what is left.
std::string ProgressLine(const v1::Run& run, const BarStyle& style, double idle_seconds = 0);

/// The same facts without a bar, for logs and pipes: "step 120/400 (30.0%) epoch 1.2 loss 0.41 …".
std::string PlainProgress(const v1::Run& run);

/// "top1 93.1%", "mae 0.42"; "" when there is none.
std::string DescribeScore(const v1::Score& score);
/// The value alone: "93.1%", "0.42"; "-" when there is none.
std::string ScoreValue(const v1::Score& score);
/// The score that a model is judged by; one without a name when there is none.
v1::Score FirstScore(const v1::Evaluation& evaluation);
/// "reused, 3m12s of rank time (0.0027 EUR) saved so far"
std::string DescribeFeatureCache(const v1::FeatureCache& cache, const std::string& currency);
/// "held-out top1 93.1%, loss 0.212 at step 400 (epoch 3.0; 2,000 samples in 1.2s)"
std::string DescribeEvaluation(const v1::Evaluation& evaluation);
/// "checkpoint of step 400: 1.2 MiB in 0.1s" or why there is none.
std::string DescribeCheckpoint(const v1::CheckpointEvent& checkpoint);
/// "RECOVERING: rank 1 was killed by signal 9 (attempt 2)"
std::string DescribeState(const v1::Run& run, bool color);

}  // namespace lockstep::cli
