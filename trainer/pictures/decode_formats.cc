#include "trainer/pictures/decode_formats.h"

namespace lockstep::trainer {
namespace {

std::string ToString(int64_t width, int64_t height) {
  return std::to_string(width) + "x" + std::to_string(height);
}

}  // namespace

void FailDecoding(const std::string& name, const std::string& reason) {
  throw DataError(name + ": " + reason);
}

void CheckPictureSize(const std::string& name, int64_t width, int64_t height, bool too_short) {
  if (width < 1 || height < 1) FailDecoding(name, "no pixels (" + ToString(width, height) + ")");
  if (width > kMaxPixels / height) {
    FailDecoding(name, ToString(width, height) + " pixels; refused above " +
                           std::to_string(kMaxPixels / 1'000'000) + " megapixels");
  }
  if (too_short) {
    FailDecoding(name,
                 "truncated: the file is too short for " + ToString(width, height) + " pixels");
  }
}

}  // namespace lockstep::trainer
