#include "trainer/pictures/decode_formats.h"

#include <png.h>

#include <array>
#include <csetjmp>
#include <cstdio>
#include <cstring>
#include <vector>

namespace lockstep::trainer {
namespace {

using Bytes = std::span<const std::byte>;

// The C library reports errors by a call that must not return. The reader below keeps its state
// in members and jumps (longjmp) from that call back into the one of its functions that runs, which
// returns false; the functions in between are the library's and hold nothing to destroy.

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
  FailDecoding(name, std::string("damaged or truncated PNG: ") + reader.message());
}

}  // namespace

PictureSize PngSize(Bytes bytes, const std::string& name) {
  PngReader reader(bytes);
  if (!reader.ReadHeader()) FailPng(name, reader);
  CheckPictureSize(name, reader.width(), reader.height(), false);
  return {static_cast<int>(reader.width()), static_cast<int>(reader.height())};
}

void DecodePng(Bytes bytes, const std::string& name, Picture& picture) {
  PngReader reader(bytes);
  if (!reader.ReadHeader()) FailPng(name, reader);
  // Deflate shrinks at most 1032 times (https://zlib.net/zlib_tech.html).
  const auto raw_bytes =
      static_cast<double>(reader.row_bytes()) * static_cast<double>(reader.height());
  CheckPictureSize(name, reader.width(), reader.height(),
                   raw_bytes > 1032.0 * static_cast<double>(bytes.size()));
  if (!reader.Start()) FailPng(name, reader);
  picture.width = static_cast<int>(reader.width());
  picture.height = static_cast<int>(reader.height());
  picture.channels = 3;
  const size_t row_bytes = static_cast<size_t>(picture.width) * 3;
  if (reader.row_bytes() != row_bytes)
    FailDecoding(name, "a kind of PNG that does not turn into RGB");
  picture.pixels.resize(row_bytes * static_cast<size_t>(picture.height));
  std::vector<png_bytep> rows;
  rows.reserve(static_cast<size_t>(picture.height));
  for (int row = 0; row < picture.height; ++row) {
    rows.push_back(picture.pixels.data() + static_cast<size_t>(row) * row_bytes);
  }
  if (!reader.ReadRows(rows.data())) FailPng(name, reader);
}

}  // namespace lockstep::trainer
