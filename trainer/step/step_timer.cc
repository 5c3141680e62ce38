#include "trainer/step/step_timer.h"

#include <algorithm>
#include <stdexcept>
#include <utility>

namespace lockstep::trainer {

using config::Phase;

StepTimer::StepTimer(Device& device, std::function<void(const std::string&)> say)
    : device_(device), say_(std::move(say)), works_(device.is_gpu()) {}

void StepTimer::GiveUp(const std::string& reason) {
  works_ = false;
  say_("this GPU's time is not told by phase: " + reason);
}

EventHandle StepTimer::Event(Marks& marks, size_t index) {
  while (marks.events.size() <= index) marks.events.push_back(device_.NewTimedEvent());
  return marks.events[index];
}

void StepTimer::Begin(int64_t step) {
  current_ = &Of(step);
  current_->step = step;
  current_->phases.clear();
}

void StepTimer::Mark(Phase phase) {
  if (!works_ || current_ == nullptr) return;
  try {
    device_.Stamp(Event(*current_, current_->phases.size()));
    current_->phases.push_back(phase);
  } catch (const std::runtime_error& error) {
    GiveUp(error.what());
  }
}

void StepTimer::BeginCapture() {
  captured_.step = current_ == nullptr ? -1 : current_->step;
  captured_.phases.clear();
  current_ = &captured_;
  if (!works_) return;
  try {
    // While a stream is captured nothing need be made: the steps before this one tell how many.
    for (const Marks& marks : kept_) {
      if (!marks.events.empty()) Event(captured_, marks.events.size() - 1);
    }
  } catch (const std::runtime_error& error) {
    GiveUp(error.what());
  }
}

void StepTimer::EndCapture() {
  current_ = captured_.step < 0 ? nullptr : &Of(captured_.step);
}

void StepTimer::Replay(StepGraph& graph) {
  if (works_ && current_ != nullptr) {
    try {
      for (size_t i = 0; i < captured_.phases.size(); ++i) {
        graph.Restamp(captured_.events[i], Event(*current_, i));
      }
      current_->phases = captured_.phases;
    } catch (const std::runtime_error& error) {
      GiveUp(error.what());
    }
  }
  graph.Replay();
}

std::optional<DeviceTimes> StepTimer::Read(int64_t step) {
  if (!works_ || step < 0 || Of(step).step != step) return std::nullopt;
  const Marks& marks = Of(step);
  const auto reduce = std::find(marks.phases.begin(), marks.phases.end(), Phase::kAllreduceExposed);
  if (reduce == marks.phases.end()) return std::nullopt;
  const auto at = [](const Marks& of, auto mark) {
    return of.events[static_cast<size_t>(mark - of.phases.begin())];
  };
  try {
    DeviceTimes times;
    for (auto mark = marks.phases.begin(); mark + 1 != marks.phases.end(); ++mark) {
      times.phase_seconds[static_cast<size_t>(*mark)] +=
          device_.SecondsBetween(at(marks, mark), at(marks, mark + 1));
    }
    // Of the first step there is none before.
    EventHandle began = marks.events.front();
    const Marks& before = Of(step + kKept - 1);
    if (before.step == step - 1) {
      const auto end =
          std::find(before.phases.begin(), before.phases.end(), Phase::kAllreduceExposed);
      if (end != before.phases.end() && end + 1 != before.phases.end()) {
        began = at(before, end + 1);
      }
    }
    times.arrival_seconds = device_.SecondsBetween(began, at(marks, reduce));
    return times;
  } catch (const std::runtime_error& error) {
    GiveUp(error.what());
    return std::nullopt;
  }
}

}  // namespace lockstep::trainer
