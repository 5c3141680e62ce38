// The formats behind Decode(): one file each, and what they share; nothing else includes this.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "trainer/pictures/decode.h"

namespace lockstep::trainer {

[[noreturn]] void FailDecoding(const std::string& name, const std::string& reason);

/// Refuses a size before any memory is asked for. A format cannot squeeze a pixel into less than
/// some share of a byte: `too_short` = the file is shorter than that.
void CheckPictureSize(const std::string& name, int64_t width, int64_t height, bool too_short);

// Sizes and pixels as they are stored, before they are turned upright.

PictureSize JpegSize(std::span<const std::byte> bytes, const std::string& name);
void DecodeJpeg(std::span<const std::byte> bytes, const std::string& name,
                const DecodeOptions& options, Picture& picture);

PictureSize PngSize(std::span<const std::byte> bytes, const std::string& name);
void DecodePng(std::span<const std::byte> bytes, const std::string& name, Picture& picture);

PictureSize WebpSize(std::span<const std::byte> bytes, const std::string& name);
void DecodeWebp(std::span<const std::byte> bytes, const std::string& name, Picture& picture);

}  // namespace lockstep::trainer
