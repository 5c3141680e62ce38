#include "trainer/data/decode.h"

#include <jerror.h>
#include <jpeglib.h>
#include <png.h>

#include <algorithm>
#include <array>
#include <csetjmp>
#include <cstdio>
#include <cstring>
#include <memory>
#include <vector>

namespace lockstep::trainer {
namespace {

using Bytes = std::span<const std::byte>;

[[noreturn]] void Fail(const std::string& name, const std::string& reason) {
  throw DataError(name + ": " + reason);
}

std::string ToString(int64_t width, int64_t height) {
  return std::to_string(width) + "x" + std::to_string(height);
}

// Before any memory is asked for. A format cannot squeeze a pixel into less than some share of a
// byte, so a short file that claims many pixels is refused too.
void CheckSize(const std::string& name, int64_t width, int64_t height, bool too_short) {
  if (width < 1 || height < 1) Fail(name, "no pixels (" + ToString(width, height) + ")");
  if (width > kMaxPixels / height) {
    Fail(name, ToString(width, height) + " pixels; refused above " +
                   std::to_string(kMaxPixels / 1'000'000) + " megapixels");
  }
  if (too_short) {
    Fail(name, "truncated: the file is too short for " + ToString(width, height) + " pixels");
  }
}

// Both C libraries report errors by a call that must not return. Each reader below keeps its state
// in members and jumps (longjmp) from that call back into the one of its functions that runs, which
// returns false; the functions in between are the library's and hold nothing to destroy.

struct JpegErrors {
  jpeg_error_mgr base;  // First, so that the library's pointer is also a pointer to this.
  std::jmp_buf jump;
  char message[JMSG_LENGTH_MAX];
};

[[noreturn]] void OnJpegError(j_common_ptr info) {
  auto* errors = reinterpret_cast<JpegErrors*>(info->err);
  errors->base.format_message(info, errors->message);
  std::longjmp(errors->jump, 1);
}

// Warnings (level below 0) are about damaged data: the library would go on with grey areas. These
// few leave the pixels alone and are common in pictures from the wild.
void OnJpegMessage(j_common_ptr info, int level) {
  if (level >= 0) return;
  const int code = info->err->msg_code;
  const bool harmless = code == JWRN_EXTRANEOUS_DATA || code == JWRN_ADOBE_XFORM ||
                        code == JWRN_JFIF_MAJOR || code == JWRN_BOGUS_ICC ||
                        code == JWRN_TOO_MUCH_DATA;
  if (!harmless) OnJpegError(info);
}

// Each scan of a progressive picture goes over all of it: thousands of empty ones make a small file
// take minutes. Real encoders write about ten.
void OnJpegProgress(j_common_ptr info) {
  constexpr int kMaxScans = 100;
  if (info->is_decompressor &&
      reinterpret_cast<j_decompress_ptr>(info)->input_scan_number > kMaxScans) {
    auto* errors = reinterpret_cast<JpegErrors*>(info->err);
    std::snprintf(errors->message, sizeof errors->message, "more than %d scans", kMaxScans);
    std::longjmp(errors->jump, 1);
  }
}

class JpegReader {
 public:
  JpegReader() {
    info_.err = jpeg_std_error(&errors_.base);
    errors_.base.error_exit = OnJpegError;
    errors_.base.emit_message = OnJpegMessage;
    errors_.message[0] = '\0';
    progress_.progress_monitor = OnJpegProgress;
  }
  JpegReader(const JpegReader&) = delete;
  JpegReader& operator=(const JpegReader&) = delete;
  ~JpegReader() { jpeg_destroy_decompress(&info_); }  // Does nothing when create failed.

  bool ReadHeader(Bytes bytes) {
    if (setjmp(errors_.jump) != 0) return false;
    jpeg_create_decompress(&info_);
    info_.progress = &progress_;
    jpeg_mem_src(&info_, reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size());
    jpeg_read_header(&info_, TRUE);
    return true;
  }

  bool Start(unsigned denominator) {
    if (setjmp(errors_.jump) != 0) return false;
    const bool inks = info_.jpeg_color_space == JCS_CMYK || info_.jpeg_color_space == JCS_YCCK;
    info_.out_color_space = inks ? JCS_CMYK : JCS_RGB;
    info_.scale_num = 1;
    info_.scale_denom = denominator;
    info_.dct_method = JDCT_ISLOW;  // The one whose bits are the same with and without SIMD.
    jpeg_start_decompress(&info_);
    return true;
  }

  /// `pixels` has room for rows of `row_bytes`; `line` for one row of four channels when inks().
  bool ReadRows(uint8_t* pixels, size_t row_bytes, uint8_t* line) {
    if (setjmp(errors_.jump) != 0) return false;
    while (info_.output_scanline < info_.output_height) {
      uint8_t* row = pixels + info_.output_scanline * row_bytes;
      JSAMPROW target = inks() ? line : row;
      jpeg_read_scanlines(&info_, &target, 1);
      if (inks()) InksToRgb(line, row);
    }
    jpeg_finish_decompress(&info_);
    return true;
  }

  bool inks() const { return info_.out_color_space == JCS_CMYK; }
  const jpeg_decompress_struct& info() const { return info_; }
  const char* message() const { return errors_.message; }

 private:
  // Programs that write Adobe's marker store 255 for no ink, others 0.
  void InksToRgb(const uint8_t* line, uint8_t* row) const {
    const unsigned flip = info_.saw_Adobe_marker ? 0 : 255;
    for (unsigned x = 0; x < info_.output_width; ++x, line += 4, row += 3) {
      const unsigned light = line[3] ^ flip;
      for (int i = 0; i < 3; ++i) {
        row[i] = static_cast<uint8_t>(((line[i] ^ flip) * light + 127) / 255);
      }
    }
  }

  jpeg_decompress_struct info_{};
  jpeg_progress_mgr progress_{};
  JpegErrors errors_{};
};

[[noreturn]] void FailJpeg(const std::string& name, const JpegReader& reader) {
  Fail(name, std::string("damaged or truncated JPEG: ") + reader.message());
}

PictureSize JpegSize(Bytes bytes, const std::string& name) {
  JpegReader reader;
  if (!reader.ReadHeader(bytes)) FailJpeg(name, reader);
  CheckSize(name, reader.info().image_width, reader.info().image_height, false);
  return {static_cast<int>(reader.info().image_width),
          static_cast<int>(reader.info().image_height)};
}

void DecodeJpeg(Bytes bytes, const std::string& name, int shorter_side, Picture& picture) {
  JpegReader reader;
  if (!reader.ReadHeader(bytes)) FailJpeg(name, reader);
  const int64_t width = reader.info().image_width;
  const int64_t height = reader.info().image_height;
  // Huffman coding spends at least one bit on each 8x8 block.
  const bool too_short =
      !reader.info().arith_code && width * height / 64 / 8 > static_cast<int64_t>(bytes.size());
  CheckSize(name, width, height, too_short);
  unsigned denominator = 1;
  while (shorter_side > 0 && denominator < 8 &&
         std::min(width, height) / (2 * denominator) >= shorter_side) {
    denominator *= 2;
  }
  if (!reader.Start(denominator)) FailJpeg(name, reader);
  picture.width = static_cast<int>(reader.info().output_width);
  picture.height = static_cast<int>(reader.info().output_height);
  picture.channels = 3;
  const size_t row_bytes = static_cast<size_t>(picture.width) * 3;
  picture.pixels.resize(row_bytes * static_cast<size_t>(picture.height));
  std::vector<uint8_t> line(reader.inks() ? static_cast<size_t>(picture.width) * 4 : 0);
  if (!reader.ReadRows(picture.pixels.data(), row_bytes, line.data())) FailJpeg(name, reader);
}

class PngReader {
 public:
  explicit PngReader(Bytes bytes) : left_(bytes) {
    // Null on failure, without a call to OnError: nothing to jump to yet.
    png_ = png_create_read_struct(PNG_LIBPNG_VER_STRING, this, OnError, OnWarning);
    if (png_ != nullptr) info_ = png_create_info_struct(png_);
  }
  PngReader(const PngReader&) = delete;
  PngReader& operator=(const PngReader&) = delete;
  ~PngReader() { png_destroy_read_struct(&png_, &info_, nullptr); }

  bool ReadHeader() {
    if (png_ == nullptr || info_ == nullptr) {
      std::snprintf(message_.data(), message_.size(), "out of memory");
      return false;
    }
    if (setjmp(jump_) != 0) return false;
    png_set_read_fn(png_, this, OnRead);
    // Texts, colour profiles and the like are skipped: not ours, and they may be bombs themselves.
    png_set_keep_unknown_chunks(png_, PNG_HANDLE_CHUNK_NEVER, nullptr, -1);
    png_read_info(png_, info_);
    return true;
  }

  bool Start() {
    if (setjmp(jump_) != 0) return false;
    png_set_expand(png_);    // Palettes and 1, 2 or 4 bits to 8.
    png_set_scale_16(png_);  // 16 bits to 8, rounded.
    png_set_gray_to_rgb(png_);
    png_set_strip_alpha(png_);
    png_set_interlace_handling(png_);
    png_read_update_info(png_, info_);
    return true;
  }

  bool ReadRows(png_bytepp rows) {
    if (setjmp(jump_) != 0) return false;
    png_read_image(png_, rows);
    png_read_end(png_, nullptr);
    return true;
  }

  int64_t width() const { return png_get_image_width(png_, info_); }
  int64_t height() const { return png_get_image_height(png_, info_); }
  size_t row_bytes() const { return png_get_rowbytes(png_, info_); }
  const char* message() const { return message_.data(); }

 private:
  [[noreturn]] static void OnError(png_structp png, png_const_charp text) {
    auto* reader = static_cast<PngReader*>(png_get_error_ptr(png));
    std::snprintf(reader->message_.data(), reader->message_.size(), "%s", text);
    std::longjmp(reader->jump_, 1);
  }
  static void OnWarning(png_structp, png_const_charp) {}
  static void OnRead(png_structp png, png_bytep out, size_t count) {
    auto* reader = static_cast<PngReader*>(png_get_io_ptr(png));
    if (count > reader->left_.size()) png_error(png, "the file ends too early");
    std::memcpy(out, reader->left_.data(), count);
    reader->left_ = reader->left_.subspan(count);
  }

  png_structp png_ = nullptr;
  png_infop info_ = nullptr;
  Bytes left_;
  std::jmp_buf jump_{};
  std::array<char, 200> message_{};
};

[[noreturn]] void FailPng(const std::string& name, const PngReader& reader) {
  Fail(name, std::string("damaged or truncated PNG: ") + reader.message());
}

PictureSize PngSize(Bytes bytes, const std::string& name) {
  PngReader reader(bytes);
  if (!reader.ReadHeader()) FailPng(name, reader);
  CheckSize(name, reader.width(), reader.height(), false);
  return {static_cast<int>(reader.width()), static_cast<int>(reader.height())};
}

void DecodePng(Bytes bytes, const std::string& name, Picture& picture) {
  PngReader reader(bytes);
  if (!reader.ReadHeader()) FailPng(name, reader);
  // Deflate shrinks at most 1032 times (https://zlib.net/zlib_tech.html).
  const auto raw_bytes =
      static_cast<double>(reader.row_bytes()) * static_cast<double>(reader.height());
  CheckSize(name, reader.width(), reader.height(),
            raw_bytes > 1032.0 * static_cast<double>(bytes.size()));
  if (!reader.Start()) FailPng(name, reader);
  picture.width = static_cast<int>(reader.width());
  picture.height = static_cast<int>(reader.height());
  picture.channels = 3;
  const size_t row_bytes = static_cast<size_t>(picture.width) * 3;
  if (reader.row_bytes() != row_bytes) Fail(name, "a kind of PNG that does not turn into RGB");
  picture.pixels.resize(row_bytes * static_cast<size_t>(picture.height));
  std::vector<png_bytep> rows;
  rows.reserve(static_cast<size_t>(picture.height));
  for (int row = 0; row < picture.height; ++row) {
    rows.push_back(picture.pixels.data() + static_cast<size_t>(row) * row_bytes);
  }
  if (!reader.ReadRows(rows.data())) FailPng(name, reader);
}

enum class Format { kJpeg, kPng };

Format FormatOf(Bytes bytes, const std::string& name) {
  constexpr std::array<uint8_t, 3> kJpegStart = {0xFF, 0xD8, 0xFF};
  constexpr std::array<uint8_t, 8> kPngStart = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1A, '\n'};
  if (bytes.empty()) Fail(name, "the file is empty");
  const auto starts_with = [&](const auto& start) {
    return bytes.size() >= start.size() &&
           std::memcmp(bytes.data(), start.data(), start.size()) == 0;
  };
  if (starts_with(kJpegStart)) return Format::kJpeg;
  if (starts_with(kPngStart)) return Format::kPng;
  std::string begin;
  for (const std::byte byte : bytes.first(std::min<size_t>(bytes.size(), 8))) {
    const auto character = static_cast<char>(byte);
    begin += character >= ' ' && character <= '~' ? character : '.';
  }
  Fail(name, "neither a JPEG nor a PNG picture: it begins with '" + begin + "'");
}

}  // namespace

PictureSize DecodeSize(Bytes bytes, const std::string& name) {
  return FormatOf(bytes, name) == Format::kJpeg ? JpegSize(bytes, name) : PngSize(bytes, name);
}

void Decode(Bytes bytes, const std::string& name, int shorter_side, Picture& picture) {
  if (FormatOf(bytes, name) == Format::kJpeg) {
    DecodeJpeg(bytes, name, shorter_side, picture);
  } else {
    DecodePng(bytes, name, picture);
  }
}

}  // namespace lockstep::trainer
