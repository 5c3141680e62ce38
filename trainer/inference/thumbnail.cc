#include "trainer/inference/thumbnail.h"

// jpeglib.h wants stdio's names before it.
#include <cstdio>

#include <jpeglib.h>

#include <algorithm>
#include <csetjmp>
#include <cstdlib>

#include "trainer/pictures/resize.h"

namespace lockstep::trainer {
namespace {

constexpr int kQuality = 82;

struct Errors {
  jpeg_error_mgr base{};
  std::jmp_buf jump{};
};

[[noreturn]] void Leave(j_common_ptr info) {
  std::longjmp(reinterpret_cast<Errors*>(info->err)->jump, 1);
}

struct Encoder {
  jpeg_compress_struct info{};
  Errors errors;
  unsigned char* memory = nullptr;
  unsigned long size = 0;  // NOLINT(google-runtime-int): libjpeg's type.

  ~Encoder() {
    jpeg_destroy_compress(&info);
    std::free(memory);
  }
  // No object with a destructor between setjmp and longjmp.
  bool Encode(const Picture& picture) {
    info.err = jpeg_std_error(&errors.base);
    errors.base.error_exit = Leave;
    if (setjmp(errors.jump) != 0) return false;
    jpeg_create_compress(&info);
    jpeg_mem_dest(&info, &memory, &size);
    info.image_width = static_cast<JDIMENSION>(picture.width);
    info.image_height = static_cast<JDIMENSION>(picture.height);
    info.input_components = picture.channels;
    info.in_color_space = picture.channels == 1 ? JCS_GRAYSCALE : JCS_RGB;
    jpeg_set_defaults(&info);
    jpeg_set_quality(&info, kQuality, TRUE);
    jpeg_start_compress(&info, TRUE);
    const size_t row_bytes =
        static_cast<size_t>(picture.width) * static_cast<size_t>(picture.channels);
    while (info.next_scanline < info.image_height) {
      auto* row = const_cast<JSAMPROW>(picture.pixels.data() + info.next_scanline * row_bytes);
      jpeg_write_scanlines(&info, &row, 1);
    }
    jpeg_finish_compress(&info);
    return true;
  }
};

}  // namespace

std::string Thumbnail(const Picture& picture, int side) {
  const int longer = std::max(picture.width, picture.height);
  if (longer < 1 || picture.pixels.empty()) return {};
  Picture small;
  if (longer > side) {
    const auto scaled = [&](int size) { return std::max(1, size * side / longer); };
    ResizeBox(picture, {0, 0, picture.width, picture.height}, scaled(picture.width),
              scaled(picture.height), small);
  }
  Encoder encoder;
  if (!encoder.Encode(longer > side ? small : picture)) return {};
  return {reinterpret_cast<const char*>(encoder.memory), encoder.size};
}

}  // namespace lockstep::trainer
