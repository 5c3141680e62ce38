#include "trainer/pictures/decode.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <string>
#include <utility>

#include "trainer/pictures/decode_formats.h"
#include "trainer/pictures/orientation.h"

namespace lockstep::trainer {
namespace {

using Bytes = std::span<const std::byte>;

enum class Format { kJpeg, kPng, kWebp };

Format FormatOf(Bytes bytes, const std::string& name) {
  constexpr std::array<uint8_t, 3> kJpegStart = {0xFF, 0xD8, 0xFF};
  constexpr std::array<uint8_t, 8> kPngStart = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1A, '\n'};
  constexpr std::array<uint8_t, 4> kRiffStart = {'R', 'I', 'F', 'F'};
  constexpr std::array<uint8_t, 4> kWebpStart = {'W', 'E', 'B', 'P'};
  if (bytes.empty()) FailDecoding(name, "the file is empty");
  const auto has = [&](const auto& start, size_t offset) {
    return bytes.size() >= offset + start.size() &&
           std::memcmp(bytes.data() + offset, start.data(), start.size()) == 0;
  };
  if (has(kJpegStart, 0)) return Format::kJpeg;
  if (has(kPngStart, 0)) return Format::kPng;
  if (has(kRiffStart, 0) && has(kWebpStart, 8)) return Format::kWebp;
  std::string begin;
  for (const std::byte byte : bytes.first(std::min<size_t>(bytes.size(), 8))) {
    const auto character = static_cast<char>(byte);
    begin += character >= ' ' && character <= '~' ? character : '.';
  }
  FailDecoding(name, "neither a JPEG nor a PNG nor a WebP picture: it begins with '" + begin + "'");
}

int OrientationOf(Format format, Bytes bytes) {
  switch (format) {
    case Format::kJpeg:
      return OrientationOfJpeg(bytes);
    case Format::kPng:
      return OrientationOfPng(bytes);
    case Format::kWebp:
      break;
  }
  return OrientationOfWebp(bytes);
}

}  // namespace

PictureSize DecodeSize(Bytes bytes, const std::string& name) {
  const Format format = FormatOf(bytes, name);
  PictureSize size;
  switch (format) {
    case Format::kJpeg:
      size = JpegSize(bytes, name);
      break;
    case Format::kPng:
      size = PngSize(bytes, name);
      break;
    case Format::kWebp:
      size = WebpSize(bytes, name);
      break;
  }
  if (Transposes(OrientationOf(format, bytes))) std::swap(size.width, size.height);
  return size;
}

void Decode(Bytes bytes, const std::string& name, const DecodeOptions& options, Picture& picture) {
  const Format format = FormatOf(bytes, name);
  const int orientation = OrientationOf(format, bytes);
  switch (format) {
    case Format::kJpeg:
      if (orientation == kUpright) {
        DecodeJpeg(bytes, name, options, picture);
      } else {
        // All of it: a part would have to be turned, too.
        DecodeOptions stored{.least_width = options.least_width,
                             .least_height = options.least_height};
        if (Transposes(orientation)) std::swap(stored.least_width, stored.least_height);
        DecodeJpeg(bytes, name, stored, picture);
      }
      break;
    case Format::kPng:
      DecodePng(bytes, name, picture);
      break;
    case Format::kWebp:
      DecodeWebp(bytes, name, picture);
      break;
  }
  TurnUpright(orientation, picture);
}

}  // namespace lockstep::trainer
