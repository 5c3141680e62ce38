#include "trainer/pictures/decode_formats.h"

#include <jerror.h>
#include <jpeglib.h>

#include <algorithm>
#include <csetjmp>
#include <cstdio>
#include <vector>

namespace lockstep::trainer {
namespace {

using Bytes = std::span<const std::byte>;

// The C library reports errors by a call that must not return. The reader below keeps its state
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

  /// Only rows and columns that `part` needs: entropy coding must be undone from the first row on,
  /// but not the transforms, and nothing below. `pixels` has room for all rows of `row_bytes`;
  /// `line` for one row of four channels when inks().
  bool ReadRows(const Box& part, uint8_t* pixels, size_t row_bytes, uint8_t* line) {
    if (setjmp(errors_.jump) != 0) return false;
    Range columns{0, info_.output_width};
    Range rows{0, info_.output_height};
    if (CanCut()) {
      columns = Padded(part.x, part.width, info_.output_width);
      rows = Padded(part.y, part.height, info_.output_height);
    }
    JDIMENSION first = columns.first;
    if (columns.count < info_.output_width) {
      JDIMENSION count = columns.count;
      jpeg_crop_scanline(&info_, &first, &count);
    }
    if (rows.first > 0) jpeg_skip_scanlines(&info_, rows.first);
    while (info_.output_scanline < rows.first + rows.count) {
      uint8_t* row = pixels + info_.output_scanline * row_bytes + size_t{first} * 3;
      JSAMPROW target = inks() ? line : row;
      jpeg_read_scanlines(&info_, &target, 1);
      if (inks()) InksToRgb(line, row);
    }
    if (info_.output_scanline == info_.output_height) {
      jpeg_finish_decompress(&info_);
    } else {
      jpeg_abort_decompress(&info_);
    }
    return true;
  }

  bool inks() const { return info_.out_color_space == JCS_CMYK; }
  const jpeg_decompress_struct& info() const { return info_; }
  const char* message() const { return errors_.message; }

 private:
  struct Range {
    JDIMENSION first = 0;
    JDIMENSION count = 0;
  };

  // Of the rare kinds of subsampling libjpeg-turbo 2.1.5 gives other bits at a cut.
  bool CanCut() const {
    for (int i = 0; i < info_.num_components; ++i) {
      const jpeg_component_info& component = info_.comp_info[i];
      const int most = i == 0 ? 2 : 1;
      if (component.h_samp_factor > most || component.v_samp_factor > most) return false;
    }
    return true;
  }

  // Smoothing between colours of neighbouring blocks makes pixels at a cut depend on what is beyond
  // it. Blocks are at most 32 pixels wide with their subsampling: so much more on either side, and
  // `part` has the bits it has in the whole picture.
  static Range Padded(int first, int count, JDIMENSION all) {
    constexpr int kPadding = 4;
    const int begin = std::max(0, first - kPadding);
    const int end = std::min(static_cast<int>(all), first + count + kPadding);
    return {static_cast<JDIMENSION>(begin), static_cast<JDIMENSION>(end - begin)};
  }

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
  FailDecoding(name, std::string("damaged or truncated JPEG: ") + reader.message());
}

}  // namespace

PictureSize JpegSize(Bytes bytes, const std::string& name) {
  JpegReader reader;
  if (!reader.ReadHeader(bytes)) FailJpeg(name, reader);
  CheckPictureSize(name, reader.info().image_width, reader.info().image_height, false);
  return {static_cast<int>(reader.info().image_width),
          static_cast<int>(reader.info().image_height)};
}

void DecodeJpeg(Bytes bytes, const std::string& name, const DecodeOptions& options,
                Picture& picture) {
  JpegReader reader;
  if (!reader.ReadHeader(bytes)) FailJpeg(name, reader);
  const int64_t width = reader.info().image_width;
  const int64_t height = reader.info().image_height;
  // Huffman coding spends at least one bit on each 8x8 block.
  const bool too_short =
      !reader.info().arith_code && width * height / 64 / 8 > static_cast<int64_t>(bytes.size());
  CheckPictureSize(name, width, height, too_short);
  unsigned denominator = 1;
  while (options.least_width > 0 && options.least_height > 0 && denominator < 8 &&
         width / (2 * denominator) >= options.least_width &&
         height / (2 * denominator) >= options.least_height) {
    denominator *= 2;
  }
  if (!reader.Start(denominator)) FailJpeg(name, reader);
  picture.width = static_cast<int>(reader.info().output_width);
  picture.height = static_cast<int>(reader.info().output_height);
  picture.channels = 3;
  const size_t row_bytes = static_cast<size_t>(picture.width) * 3;
  picture.pixels.resize(row_bytes * static_cast<size_t>(picture.height));
  const Box whole{0, 0, picture.width, picture.height};
  const Box part = options.part ? options.part(picture.width, picture.height) : whole;
  std::vector<uint8_t> line(reader.inks() ? static_cast<size_t>(picture.width) * 4 : 0);
  if (!reader.ReadRows(part, picture.pixels.data(), row_bytes, line.data())) FailJpeg(name, reader);
}

}  // namespace lockstep::trainer
