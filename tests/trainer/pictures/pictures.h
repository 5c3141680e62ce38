// Encoded pictures for tests: what people's files look like, made with the same libraries.
#pragma once

#include <jpeglib.h>
#include <png.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <span>
#include <string>
#include <vector>

namespace lockstep::trainer {

using Encoded = std::vector<std::byte>;

inline Encoded ToBytes(const std::string& text) {
  Encoded bytes(text.size());
  if (!text.empty()) std::memcpy(bytes.data(), text.data(), text.size());
  return bytes;
}

struct JpegSpec {
  int width = 16;
  int height = 16;
  J_COLOR_SPACE space = JCS_RGB;
  bool progressive = false;
  bool adobe_marker = true;  // Of CMYK pictures.
  int quality = 95;
  int sampling_across = 0;  // Pixels that share a colour; 0 = the library's choice.
  int sampling_down = 1;
};

inline int ChannelsOf(J_COLOR_SPACE space) {
  return space == JCS_GRAYSCALE ? 1 : space == JCS_CMYK ? 4 : 3;
}

/// `pixels` has height x width x channels bytes.
inline Encoded EncodeJpeg(const JpegSpec& spec, const std::vector<uint8_t>& pixels) {
  jpeg_compress_struct info{};
  jpeg_error_mgr errors{};
  info.err = jpeg_std_error(&errors);
  jpeg_create_compress(&info);
  unsigned char* memory = nullptr;
  unsigned long size = 0;  // NOLINT(google-runtime-int): libjpeg's type.
  jpeg_mem_dest(&info, &memory, &size);
  info.image_width = static_cast<JDIMENSION>(spec.width);
  info.image_height = static_cast<JDIMENSION>(spec.height);
  info.input_components = ChannelsOf(spec.space);
  info.in_color_space = spec.space;
  jpeg_set_defaults(&info);
  jpeg_set_quality(&info, spec.quality, TRUE);
  if (spec.progressive) jpeg_simple_progression(&info);
  if (!spec.adobe_marker) info.write_Adobe_marker = FALSE;
  if (spec.sampling_across > 0) {
    info.comp_info[0].h_samp_factor = spec.sampling_across;
    info.comp_info[0].v_samp_factor = spec.sampling_down;
  }
  jpeg_start_compress(&info, TRUE);
  const size_t row_bytes = static_cast<size_t>(spec.width) * ChannelsOf(spec.space);
  while (info.next_scanline < info.image_height) {
    auto* row = const_cast<uint8_t*>(pixels.data()) + info.next_scanline * row_bytes;
    jpeg_write_scanlines(&info, &row, 1);
  }
  jpeg_finish_compress(&info);
  jpeg_destroy_compress(&info);
  Encoded bytes(size);
  std::memcpy(bytes.data(), memory, size);
  std::free(memory);
  return bytes;
}

/// All of one colour, given per channel.
inline Encoded FlatJpeg(const JpegSpec& spec, const std::vector<uint8_t>& color) {
  std::vector<uint8_t> pixels;
  for (int i = 0; i < spec.width * spec.height; ++i) {
    pixels.insert(pixels.end(), color.begin(), color.end());
  }
  return EncodeJpeg(spec, pixels);
}

struct PngSpec {
  int width = 2;
  int height = 2;
  int color_type = PNG_COLOR_TYPE_RGB;
  int bit_depth = 8;
  bool interlaced = false;
  std::vector<png_color> palette = {};
  std::vector<png_byte> palette_alpha = {};
};

/// `rows` has the rows one after another as PNG packs them.
inline Encoded EncodePng(const PngSpec& spec, const std::vector<uint8_t>& rows) {
  png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, nullptr, nullptr, nullptr);
  png_infop info = png_create_info_struct(png);
  Encoded bytes;
  png_set_write_fn(
      png, &bytes,
      [](png_structp writer, png_bytep data, size_t count) {
        auto* out = static_cast<Encoded*>(png_get_io_ptr(writer));
        const auto* begin = reinterpret_cast<const std::byte*>(data);
        out->insert(out->end(), begin, begin + count);
      },
      [](png_structp) {});
  png_set_IHDR(png, info, static_cast<png_uint_32>(spec.width),
               static_cast<png_uint_32>(spec.height), spec.bit_depth, spec.color_type,
               spec.interlaced ? PNG_INTERLACE_ADAM7 : PNG_INTERLACE_NONE,
               PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
  if (!spec.palette.empty()) {
    png_set_PLTE(png, info, spec.palette.data(), static_cast<int>(spec.palette.size()));
  }
  if (!spec.palette_alpha.empty()) {
    png_set_tRNS(png, info, spec.palette_alpha.data(), static_cast<int>(spec.palette_alpha.size()),
                 nullptr);
  }
  png_write_info(png, info);
  const size_t row_bytes = png_get_rowbytes(png, info);
  std::vector<png_bytep> pointers;
  pointers.reserve(static_cast<size_t>(spec.height));
  for (int y = 0; y < spec.height; ++y) {
    pointers.push_back(const_cast<uint8_t*>(rows.data()) + static_cast<size_t>(y) * row_bytes);
  }
  png_write_image(png, pointers.data());
  png_write_end(png, info);
  png_destroy_write_struct(&png, &info);
  return bytes;
}

/// All of one colour.
inline Encoded FlatPng(int width, int height, const std::vector<uint8_t>& rgb) {
  std::vector<uint8_t> rows;
  for (int i = 0; i < width * height; ++i) rows.insert(rows.end(), rgb.begin(), rgb.end());
  return EncodePng({.width = width, .height = height}, rows);
}

inline void WriteBytes(const std::filesystem::path& path, std::span<const std::byte> bytes) {
  std::filesystem::create_directories(path.parent_path());
  std::ofstream file(path, std::ios::binary);
  file.write(reinterpret_cast<const char*>(bytes.data()),
             static_cast<std::streamsize>(bytes.size()));
}

}  // namespace lockstep::trainer
