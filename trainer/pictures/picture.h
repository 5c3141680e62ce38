// A decoded picture, and what is thrown where there is none to be had.
//
// No LibTorch here: pictures are plain bytes, so that decoding can be tested, sanitized and fuzzed
// alone.
#pragma once

#include <cstdint>
#include <functional>
#include <stdexcept>
#include <string>
#include <vector>

namespace lockstep::trainer {

// A picture or a data set cannot be read. what() names the file and the reason.
class DataError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// Interleaved 8-bit pixels, height x width x channels.
struct Picture {
  int width = 0;
  int height = 0;
  int channels = 0;
  std::vector<uint8_t> pixels;
};

// Part of a picture. Pixels, from the upper left corner.
struct Box {
  int x = 0;
  int y = 0;
  int width = 0;
  int height = 0;
  bool operator==(const Box&) const = default;
};

// Says which part of a picture will be looked at, once its size is known. Reading need not fill in
// the other pixels. Empty: all of it. Must lie within the picture.
using PartOf = std::function<Box(int width, int height)>;

}  // namespace lockstep::trainer
