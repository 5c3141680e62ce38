#include "trainer/pictures/orientation.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <string_view>
#include <utility>
#include <vector>

namespace lockstep::trainer {
namespace {

using Bytes = std::span<const std::byte>;

bool Begins(Bytes bytes, std::string_view text) {
  return bytes.size() >= text.size() && std::memcmp(bytes.data(), text.data(), text.size()) == 0;
}

// An unsigned number of `count` bytes; 0 beyond the end.
uint32_t Number(Bytes bytes, size_t offset, size_t count, bool little_endian) {
  if (offset > bytes.size() || bytes.size() - offset < count) return 0;
  uint32_t value = 0;
  for (size_t i = 0; i < count; ++i) {
    const size_t at = offset + (little_endian ? count - 1 - i : i);
    value = value << 8 | std::to_integer<uint32_t>(bytes[at]);
  }
  return value;
}

Bytes Part(Bytes bytes, size_t offset, size_t count) {
  if (offset >= bytes.size()) return {};
  return bytes.subspan(offset, std::min(count, bytes.size() - offset));
}

}  // namespace

int OrientationOfExif(Bytes exif) {
  constexpr uint32_t kTag = 0x0112;
  constexpr uint32_t kShort = 3, kLong = 4;
  if (Begins(exif, std::string_view("Exif\0\0", 6))) exif = exif.subspan(6);
  const bool little = Begins(exif, "II");
  if (!little && !Begins(exif, "MM")) return kUpright;
  if (Number(exif, 2, 2, little) != 42) return kUpright;
  const size_t directory = Number(exif, 4, 4, little);
  const uint32_t entries = Number(exif, directory, 2, little);
  for (uint32_t i = 0; i < entries; ++i) {
    const size_t entry = directory + 2 + size_t{12} * i;
    if (entry + 12 > exif.size()) break;
    if (Number(exif, entry, 2, little) != kTag) continue;
    const uint32_t type = Number(exif, entry + 2, 2, little);
    if (type != kShort && type != kLong) break;
    const uint32_t value = Number(exif, entry + 8, type == kShort ? 2 : 4, little);
    return value >= 1 && value <= 8 ? static_cast<int>(value) : kUpright;
  }
  return kUpright;
}

int OrientationOfJpeg(Bytes bytes) {
  constexpr uint32_t kStartOfScan = 0xDA, kApp1 = 0xE1;
  size_t at = 2;
  while (at + 4 <= bytes.size() && bytes[at] == std::byte{0xFF}) {
    const uint32_t marker = Number(bytes, at + 1, 1, false);
    if (marker == 0xFF) {  // Filling before a marker.
      ++at;
      continue;
    }
    if (marker == kStartOfScan) break;
    const size_t length = Number(bytes, at + 2, 2, false);  // Counts itself.
    if (length < 2) break;
    const Bytes content = Part(bytes, at + 4, length - 2);
    if (marker == kApp1 && Begins(content, std::string_view("Exif\0\0", 6))) {
      return OrientationOfExif(content);
    }
    at += 2 + length;
  }
  return kUpright;
}

int OrientationOfPng(Bytes bytes) {
  size_t at = 8;
  while (at + 8 <= bytes.size()) {
    const size_t length = Number(bytes, at, 4, false);
    const Bytes type = Part(bytes, at + 4, 4);
    if (Begins(type, "eXIf")) return OrientationOfExif(Part(bytes, at + 8, length));
    if (Begins(type, "IEND")) break;
    at += 12 + length;
  }
  return kUpright;
}

int OrientationOfWebp(Bytes bytes) {
  size_t at = 12;
  while (at + 8 <= bytes.size()) {
    const size_t length = Number(bytes, at + 4, 4, true);
    if (Begins(Part(bytes, at, 4), "EXIF")) return OrientationOfExif(Part(bytes, at + 8, length));
    at += 8 + length + length % 2;
  }
  return kUpright;
}

void TurnUpright(int orientation, Picture& picture) {
  if (orientation == kUpright) return;
  // Where pixel (x, y) of the upright picture is stored: mirrored along either side, or exchanged.
  const bool transposes = Transposes(orientation);
  const bool from_right =
      orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8;
  const bool from_below =
      orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7;
  Picture upright;
  upright.width = transposes ? picture.height : picture.width;
  upright.height = transposes ? picture.width : picture.height;
  upright.channels = picture.channels;
  upright.pixels.resize(picture.pixels.size());
  const auto channels = static_cast<size_t>(picture.channels);
  uint8_t* to = upright.pixels.data();
  for (int y = 0; y < upright.height; ++y) {
    for (int x = 0; x < upright.width; ++x, to += channels) {
      int column = transposes ? y : x;
      int row = transposes ? x : y;
      if (from_right) column = picture.width - 1 - column;
      if (from_below) row = picture.height - 1 - row;
      std::copy_n(&picture.pixels[(static_cast<size_t>(row) * static_cast<size_t>(picture.width) +
                                   static_cast<size_t>(column)) *
                                  channels],
                  channels, to);
    }
  }
  picture = std::move(upright);
}

}  // namespace lockstep::trainer
