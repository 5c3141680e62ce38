// What evaluate found out, and how it is written: as JSON and as one HTML page that needs nothing
// from outside.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "trainer/card.h"
#include "trainer/objective/measures.h"

namespace lockstep::trainer {

struct WrongSample {
  std::string name;  // Where it comes from.
  double loss = 0;
  std::string truth;
  std::string predicted;
  std::string picture;  // JPEG bytes, small; empty where it could not be read again.
};

struct Curve {
  std::string name;                               // "training loss", "held-out top1"
  std::vector<std::pair<double, double>> points;  // Step, value.
};

struct EvaluationReport {
  std::string run;
  std::string model;
  std::string checkpoint;
  int64_t step = 0;
  std::string data;   // One line.
  std::string split;  // "held-out", …
  double seconds = 0;
  ModelCard card;
  MeasureResult measures;
  std::vector<WrongSample> worst;  // Largest loss first.
  // Of each target, truth and prediction of some samples, in the data's own units.
  std::vector<std::vector<std::pair<double, double>>> scatter;
  std::vector<Curve> curves;  // Of the run; empty where its metrics.jsonl is not there.
};

/// "prediction" and "truth" for people: a ratio as percent, an error in its own units.
std::string ScoreText(const std::string& name, double value);

/// Of true and predicted class, count: the largest first, at most `most`.
struct Confused {
  size_t truth = 0;
  size_t predicted = 0;
  int64_t count = 0;
};
std::vector<Confused> MostConfused(const MeasureResult& measures, size_t classes, size_t most);

std::string ToJson(const EvaluationReport& report);  // One document with a line end.
std::string ToText(const EvaluationReport& report);  // Tables for a terminal.
std::string ToHtml(const EvaluationReport& report);  // report_page.cc

/// Loss and score of a run from its metrics.jsonl, at most 400 points each; empty where the file
/// cannot be read.
std::vector<Curve> ReadCurves(const std::filesystem::path& run_dir);

}  // namespace lockstep::trainer
