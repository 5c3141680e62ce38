// The moving part of a terminal: a few lines that are painted over in place, below lines that stay.
//
// Elsewhere than on a terminal only the lines that stay are written. One write per change, so that
// nothing flickers. Single-threaded; borrows the Output.
#pragma once

#include <string>
#include <vector>

#include "launch/cli/context.h"

namespace lockstep::cli {

class LiveView {
 public:
  explicit LiveView(Output& out) : out_(out), live_(out.is_terminal()) {}
  ~LiveView() { Clear(); }
  LiveView(const LiveView&) = delete;
  LiveView& operator=(const LiveView&) = delete;

  bool live() const { return live_; }
  /// Replaces the moving lines. Each must fit the width; more than fit the height are left out.
  void Paint(const std::vector<std::string>& lines);
  /// A line that stays, above the moving ones.
  void Print(const std::string& line);
  /// Takes the moving lines away.
  void Clear();

 private:
  std::string Erase();

  Output& out_;
  bool live_;
  std::vector<std::string> painted_;
};

}  // namespace lockstep::cli
