// The temporary folder of a probe, under which everything lies that its runs write. Gone with it.
#pragma once

#include <filesystem>
#include <string>

#include "trainer/comm/world.h"

namespace lockstep::trainer {

class Scratch {
 public:
  /// Collective: rank 0 makes it and will remove it, the others learn its name. Throws
  /// CheckpointFailed on all ranks.
  explicit Scratch(const World& world);
  ~Scratch();
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  std::filesystem::path path() const { return path_; }
  /// From any rank, before it ends the others.
  void Remove() const;

 private:
  const bool owner_;
  std::string path_;
};

}  // namespace lockstep::trainer
