#include "trainer/tensorboard/training_events.h"

#include <algorithm>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "trainer/tensorboard/confusion_picture.h"

namespace lockstep::trainer {
namespace {

constexpr int64_t kHistogramSteps = 100;    // Fewer steps show no shape.
constexpr size_t kMostPictureClasses = 50;  // More are too small to see.

}  // namespace

TrainingEvents::TrainingEvents(const std::filesystem::path& folder, const EventPosition& from,
                               int64_t step, TrainingEventsOptions options,
                               std::function<void(const std::string&)> warn)
    : options_(std::move(options)),
      log_(folder, from, step, std::move(warn)),
      score_tag_(absl::StrCat(options_.score, "/train")) {
  for (size_t i = 0; i < phase_tags_.size(); ++i) {
    phase_tags_[i] = absl::StrCat("time/phase/", config::PhaseName(static_cast<config::Phase>(i)));
  }
  const int64_t every = options_.log_every_steps;
  histogram_every_steps_ = (kHistogramSteps + every - 1) / every * every;
  if (!log_.fresh()) return;
  Summary text;
  // Markdown: four spaces begin a line of code.
  std::string code;
  for (size_t begin = 0; begin < options_.run_yaml.size();) {
    const size_t end = std::min(options_.run_yaml.find('\n', begin), options_.run_yaml.size());
    absl::StrAppend(&code, "    ", options_.run_yaml.substr(begin, end - begin), "\n");
    begin = end + 1;
  }
  text.Text("run_yaml", code);
  log_.Add(step, text);
}

void TrainingEvents::Timing(double step_seconds, int64_t samples) {
  step_seconds_.Add(step_seconds);
  seconds_ += step_seconds;
  samples_ += samples;
}

void TrainingEvents::Step(const LoggedStep& logged, const PhaseSeconds& phases) {
  // A step that was read before its time was known keeps the speed of the one before; the first
  // step of an attempt has none then.
  if (seconds_ > 0) samples_per_second_ = static_cast<double>(samples_) / seconds_;
  seconds_ = 0;
  samples_ = 0;
  summary_.Clear();
  summary_.Scalar("loss/train", logged.loss);
  summary_.Scalar(score_tag_, logged.score);
  summary_.Scalar("learning_rate", logged.learning_rate);
  summary_.Scalar("gradient_norm", logged.gradient_norm);
  if (samples_per_second_ > 0) {
    summary_.Scalar("throughput/samples_per_second", samples_per_second_);
  }

  constexpr auto kStall = static_cast<size_t>(config::Phase::kCheckpointStall);
  summary_.Scalar("time/checkpoint_stall_seconds", phases[kStall] - phases_[kStall]);
  // What turns out to have been a wait moves from one phase to another later on, so a phase may
  // have less than before.
  PhaseSeconds since{};
  for (size_t i = 0; i < since.size(); ++i) since[i] = std::max(phases[i] - phases_[i], 0.0);
  const double all = std::accumulate(since.begin(), since.end(), 0.0);
  for (size_t i = 0; i < since.size(); ++i) {
    if (phases[i] <= 0 || all <= 0) continue;  // A phase that this attempt has not.
    summary_.Scalar(phase_tags_[i], since[i] / all);
  }
  phases_ = phases;
  if (logged.step % histogram_every_steps_ == 0 && step_seconds_.count() > 0) {
    summary_.Histogram("time/step_seconds", step_seconds_.Take());
  }
  log_.Add(logged.step, summary_);
}

void TrainingEvents::Epoch(int64_t step, double loss, double score) {
  Summary summary;
  summary.Scalar("loss/train_epoch", loss);
  summary.Scalar(absl::StrCat(options_.score, "/train_epoch"), score);
  log_.Add(step, summary);
}

void TrainingEvents::Evaluation(int64_t step, double loss,
                                std::span<const std::pair<std::string, double>> scores,
                                std::span<const int64_t> confusion) {
  Summary summary;
  summary.Scalar("loss/val", loss);
  for (const auto& [name, value] : scores) summary.Scalar(absl::StrCat(name, "/val"), value);
  if (!confusion.empty() && confusion.size() <= kMostPictureClasses * kMostPictureClasses) {
    const auto picture = ConfusionPicture(confusion, options_.classes);
    if (picture.ok()) summary.Picture("confusion_matrix/val", *picture);
  }
  log_.Add(step, summary);
  log_.Flush();  // Seldom, and waited for.
}

}  // namespace lockstep::trainer
