#include "trainer/pictures/decode_formats.h"

#include <webp/decode.h>

#include <cstring>

namespace lockstep::trainer {
namespace {

using Bytes = std::span<const std::byte>;

const uint8_t* Data(Bytes bytes) {
  return reinterpret_cast<const uint8_t*>(bytes.data());
}

const char* ReasonOf(VP8StatusCode status) {
  switch (status) {
    case VP8_STATUS_OUT_OF_MEMORY:
      return "out of memory";
    case VP8_STATUS_NOT_ENOUGH_DATA:
    case VP8_STATUS_SUSPENDED:
      return "the file ends too early";
    case VP8_STATUS_UNSUPPORTED_FEATURE:
      return "a kind of WebP that is not known";
    default:
      return "not what the format allows";
  }
}

[[noreturn]] void FailWebp(const std::string& name, VP8StatusCode status) {
  FailDecoding(name, std::string("damaged or truncated WebP: ") + ReasonOf(status));
}

}  // namespace

PictureSize WebpSize(Bytes bytes, const std::string& name) {
  WebPBitstreamFeatures features;
  const VP8StatusCode status = WebPGetFeatures(Data(bytes), bytes.size(), &features);
  if (status != VP8_STATUS_OK) FailWebp(name, status);
  CheckPictureSize(name, features.width, features.height, false);
  if (features.has_animation != 0) {
    FailDecoding(name, "an animated WebP; expected a picture that stands still");
  }
  return {features.width, features.height};
}

void DecodeWebp(Bytes bytes, const std::string& name, Picture& picture) {
  const PictureSize size = WebpSize(bytes, name);
  picture.width = size.width;
  picture.height = size.height;
  picture.channels = 3;
  const size_t row_bytes = static_cast<size_t>(size.width) * 3;
  picture.pixels.resize(row_bytes * static_cast<size_t>(size.height));
  WebPDecoderConfig config;
  if (WebPInitDecoderConfig(&config) == 0) FailDecoding(name, "another version of libwebp");
  config.output.colorspace = MODE_RGB;  // The colour below transparency stays.
  config.output.is_external_memory = 1;
  config.output.u.RGBA = {picture.pixels.data(), static_cast<int>(row_bytes),
                          picture.pixels.size()};
  const VP8StatusCode status = WebPDecode(Data(bytes), bytes.size(), &config);
  if (status != VP8_STATUS_OK) FailWebp(name, status);
}

}  // namespace lockstep::trainer
