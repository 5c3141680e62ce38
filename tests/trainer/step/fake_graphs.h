// A "GPU" that captures steps, with a clock of its own: what a test enqueues with Work() takes that
// long. A captured body is not run; its work and its stamps are done by each replay.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "trainer/device/device.h"

namespace lockstep::trainer {

class FakeGraphs : public Device {
 public:
  /// Not empty: why nothing can be captured.
  explicit FakeGraphs(std::string refusal = "") : refusal_(std::move(refusal)) {}

  at::Device torch() const override { return at::Device(at::kCUDA, 0); }
  std::string Describe() const override { return "a stand-in"; }
  std::string Name() const override { return "a stand-in"; }
  std::string Uuid() const override { return "GPU-0"; }
  int64_t FreeBytes() const override { return 0; }
  StreamHandle CurrentStream() override { return nullptr; }
  StreamHandle SideStream() override { return nullptr; }
  EventHandle NewEvent() override { return nullptr; }
  void Record(EventHandle event, StreamHandle stream) override {}
  void StreamWait(StreamHandle stream, EventHandle event) override {}
  bool Done(EventHandle event) override { return true; }

  /// `seconds` is looked at when the work is done.
  void Work(const double& seconds) {
    Do([this, &seconds] { now_ += seconds; });
  }
  EventHandle NewTimedEvent() override {
    if (capturing_ != nullptr) throw std::runtime_error("made in a capture");
    return &times_.emplace_back(0);
  }
  void Stamp(EventHandle event) override {
    if (stamps_fail) throw std::runtime_error("no stamps");
    if (capturing_ != nullptr) capturing_->stamped[event] = event;
    Do([this, event, graph = capturing_] {
      *static_cast<double*>(graph != nullptr ? graph->stamped.at(event) : event) = now_;
    });
  }
  double SecondsBetween(EventHandle from, EventHandle to) override {
    return *static_cast<double*>(to) - *static_cast<double*>(from);
  }

  std::unique_ptr<StepGraph> Capture(const std::function<void()>& step) override {
    ++captures;
    auto graph = std::make_unique<Graph>(*this);
    capturing_ = graph.get();
    step();
    capturing_ = nullptr;
    if (!refusal_.empty()) throw std::runtime_error(refusal_);
    return graph;
  }

  int captures = 0;
  int replays = 0;
  bool stamps_fail = false;
  bool restamps_fail = false;

 private:
  struct Graph : StepGraph {
    explicit Graph(FakeGraphs& owner) : gpu(owner) {}
    void Replay() override {
      ++gpu.replays;
      for (const auto& node : nodes) node();
    }
    void Restamp(EventHandle captured, EventHandle now) override {
      if (gpu.restamps_fail) throw std::runtime_error("no other event");
      stamped.at(captured) = now;
    }
    FakeGraphs& gpu;
    std::vector<std::function<void()>> nodes;
    std::map<EventHandle, EventHandle> stamped;
  };
  void Do(std::function<void()> work) {
    if (capturing_ != nullptr) {
      capturing_->nodes.push_back(std::move(work));
    } else {
      work();
    }
  }

  const std::string refusal_;
  Graph* capturing_ = nullptr;
  double now_ = 0;
  std::deque<double> times_;
};

}  // namespace lockstep::trainer
