// Encoded pictures for tests: WebP, and notes on which side is up.
#pragma once

#include <webp/encode.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "tests/trainer/pictures/pictures.h"

namespace lockstep::trainer {

struct WebpSpec {
  float quality = 0;  // Up to 100; 0 = without loss.
  int channels = 3;
};

/// `pixels` has height x width x channels bytes.
inline Encoded EncodeWebp(int width, int height, const std::vector<uint8_t>& pixels,
                          const WebpSpec& spec = {}) {
  WebPConfig config;
  WebPConfigInit(&config);
  config.exact = 1;  // Colours below transparency stay.
  config.lossless = spec.quality == 0 ? 1 : 0;
  if (spec.quality > 0) config.quality = spec.quality;
  WebPPicture picture;
  WebPPictureInit(&picture);
  picture.use_argb = 1;
  picture.width = width;
  picture.height = height;
  const int stride = width * spec.channels;
  if (spec.channels == 4) {
    WebPPictureImportRGBA(&picture, pixels.data(), stride);
  } else {
    WebPPictureImportRGB(&picture, pixels.data(), stride);
  }
  WebPMemoryWriter writer;
  WebPMemoryWriterInit(&writer);
  picture.writer = WebPMemoryWrite;
  picture.custom_ptr = &writer;
  WebPEncode(&config, &picture);
  Encoded bytes(writer.size);
  std::memcpy(bytes.data(), writer.mem, writer.size);
  WebPMemoryWriterClear(&writer);
  WebPPictureFree(&picture);
  return bytes;
}

/// A TIFF header, and a directory of a width and this orientation.
inline std::string Exif(int orientation, bool little_endian = true) {
  const auto number = [&](uint32_t value, int count) {
    std::string text;
    for (int i = 0; i < count; ++i) {
      const int shift = 8 * (little_endian ? i : count - 1 - i);
      text += static_cast<char>(value >> shift & 255);
    }
    return text;
  };
  return std::string(little_endian ? "II" : "MM") + number(42, 2) + number(8, 4) + number(2, 2) +
         number(0x0100, 2) + number(4, 2) + number(1, 4) + number(77, 4) +  // Width.
         number(0x0112, 2) + number(3, 2) + number(1, 4) +
         number(static_cast<uint32_t>(orientation), 2) + number(0, 2) + number(0, 4);
}

/// A JPEG with an APP1 segment of EXIF data behind its first two bytes.
inline Encoded WithExif(const Encoded& jpeg, const std::string& exif) {
  const std::string content = std::string("Exif\0\0", 6) + exif;
  const size_t length = content.size() + 2;
  std::string text(reinterpret_cast<const char*>(jpeg.data()), jpeg.size());
  text.insert(2, std::string("\xFF\xE1") + static_cast<char>(length >> 8) +
                     static_cast<char>(length & 255) + content);
  return ToBytes(text);
}

}  // namespace lockstep::trainer
