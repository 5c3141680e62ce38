#include "trainer/probe/scratch.h"

#include <cstdlib>
#include <system_error>

#include "trainer/saver.h"

namespace lockstep::trainer {

Scratch::Scratch(const World& world) : owner_(world.rank() == 0) {
  std::string path;
  if (owner_) {
    path = (std::filesystem::temp_directory_path() / "lockstep-probe-XXXXXX").string();
    if (mkdtemp(path.data()) == nullptr) path = "";
  }
  path_ = world.BroadcastText(path, 0);
  if (path_.empty()) {
    throw CheckpointFailed("cannot make a temporary folder; is TMPDIR a folder with free space?");
  }
}

Scratch::~Scratch() {
  if (owner_) Remove();
}

void Scratch::Remove() const {
  std::error_code error;
  std::filesystem::remove_all(path_, error);
}

}  // namespace lockstep::trainer
