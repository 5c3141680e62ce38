#include "trainer/tensorboard/confusion_picture.h"

#include <png.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <string_view>
#include <vector>

#include "absl/strings/str_cat.h"
#include "trainer/tensorboard/glyphs.h"

namespace lockstep::trainer {
namespace {

using Color = std::array<uint8_t, 3>;

constexpr Color kWhite = {255, 255, 255};
constexpr Color kBlack = {0, 0, 0};
constexpr Color kDarkBlue = {8, 48, 107};
constexpr Color kGrey = {224, 224, 224};
constexpr int kMargin = 8;
constexpr int kMostLetters = 16;
constexpr int kSmallCell = 20;
constexpr double kLeastShown = 0.06;  // Of full colour: a single mistake must be seen.

struct Point {
  int x;
  int y;
};

class Canvas {
 public:
  Canvas(int width, int height)
      : width_(width), height_(height), pixels_(static_cast<size_t>(width * height) * 3, 255) {}

  void Fill(Point corner, int width, int height, Color color) {
    for (int y = corner.y; y < corner.y + height; ++y) {
      for (int x = corner.x; x < corner.x + width; ++x) {
        if (x < 0 || y < 0 || x >= width_ || y >= height_) continue;
        std::copy(color.begin(), color.end(),
                  pixels_.begin() + (static_cast<ptrdiff_t>(y) * width_ + x) * 3);
      }
    }
  }

  // From `start`, the text's upper left corner, to the right; or, upwards, its lower left one.
  void Write(Point start, std::string_view text, int scale, Color color, bool upwards = false) {
    int along = 0;
    for (const char character : text) {
      const Glyph& glyph = GlyphOf(character);
      for (int row = 0; row < kGlyphHeight; ++row) {
        for (int column = 0; column < kGlyphWidth; ++column) {
          if ((glyph[static_cast<size_t>(row)] >> (kGlyphWidth - 1 - column) & 1) == 0) continue;
          const int forward = along + column * scale;
          const Point dot = upwards ? Point{start.x + row * scale, start.y - forward - scale}
                                    : Point{start.x + forward, start.y + row * scale};
          Fill(dot, scale, scale, color);
        }
      }
      along += (kGlyphWidth + 1) * scale;
    }
  }

  absl::StatusOr<PngPicture> Encode() const {
    png_image image = {};
    image.version = PNG_IMAGE_VERSION;
    image.width = static_cast<png_uint_32>(width_);
    image.height = static_cast<png_uint_32>(height_);
    image.format = PNG_FORMAT_RGB;
    PngPicture picture{.width = width_, .height = height_, .bytes = {}};
    png_alloc_size_t size = PNG_IMAGE_PNG_SIZE_MAX(image);
    picture.bytes.resize(size);
    if (png_image_write_to_memory(&image, picture.bytes.data(), &size, /*convert_to_8_bit=*/0,
                                  pixels_.data(), /*row_stride=*/0, nullptr) == 0) {
      return absl::InternalError(absl::StrCat("libpng: ", image.message));
    }
    picture.bytes.resize(size);
    return picture;
  }

 private:
  int width_;
  int height_;
  std::vector<uint8_t> pixels_;
};

int TextWidth(std::string_view text, int scale) {
  return text.empty() ? 0 : (static_cast<int>(text.size()) * (kGlyphWidth + 1) - 1) * scale;
}

Color Shade(double share) {
  Color color;
  for (size_t i = 0; i < color.size(); ++i) {
    color[i] = static_cast<uint8_t>(std::lround(kWhite[i] + share * (kDarkBlue[i] - kWhite[i])));
  }
  return color;
}

std::string Shortened(const std::string& name) {
  if (name.size() <= kMostLetters) return name;
  return name.substr(0, kMostLetters - 2) + "..";
}

void DrawCell(Canvas& canvas, Point corner, int size, int64_t count, double row_sum) {
  const double share = row_sum > 0 ? static_cast<double>(count) / row_sum : 0;
  const double shown = count > 0 ? kLeastShown + (1 - kLeastShown) * share : 0;
  canvas.Fill(corner, size - 1, size - 1, row_sum > 0 ? Shade(shown) : kGrey);
  if (count == 0) return;
  const std::string text = absl::StrCat(count);
  for (const int scale : {2, 1}) {
    if (scale > 1 && size <= kSmallCell) continue;
    const int width = TextWidth(text, scale);
    if (width > size - 3) continue;
    canvas.Write({corner.x + (size - width) / 2, corner.y + (size - kGlyphHeight * scale) / 2},
                 text, scale, shown > 0.5 ? kWhite : kBlack);
    return;
  }
}

}  // namespace

absl::StatusOr<PngPicture> ConfusionPicture(std::span<const int64_t> counts,
                                            std::span<const std::string> names) {
  const int classes = static_cast<int>(std::lround(std::sqrt(static_cast<double>(counts.size()))));
  const int cell = classes <= 10 ? 56 : classes <= 20 ? 36 : kSmallCell;
  const int scale = classes <= 20 ? 2 : 1;
  const int letter_height = kGlyphHeight * scale;
  std::vector<std::string> labels;
  int longest = 0;
  for (int i = 0; i < classes; ++i) {
    const auto index = static_cast<size_t>(i);
    labels.push_back(index < names.size() ? Shortened(names[index]) : absl::StrCat(i));
    longest = std::max(longest, TextWidth(labels.back(), scale));
  }
  constexpr std::string_view kTitle = "rows: true, columns: predicted";
  const Point matrix = {2 * kMargin + longest, 4 * kMargin + kGlyphHeight + longest};
  const int side = classes * cell;
  const int width = std::max(matrix.x + side, kMargin + TextWidth(kTitle, 1)) + kMargin;
  Canvas canvas(width, matrix.y + side + kMargin);
  canvas.Write({kMargin, kMargin}, kTitle, 1, kBlack);

  for (int row = 0; row < classes; ++row) {
    const int middle = row * cell + (cell - letter_height) / 2;
    const std::string& label = labels[static_cast<size_t>(row)];
    canvas.Write({matrix.x - kMargin - TextWidth(label, scale), matrix.y + middle}, label, scale,
                 kBlack);
    canvas.Write({matrix.x + middle, matrix.y - kMargin}, label, scale, kBlack, /*upwards=*/true);
    const auto cells = counts.subspan(static_cast<size_t>(row) * static_cast<size_t>(classes),
                                      static_cast<size_t>(classes));
    double sum = 0;
    for (const int64_t count : cells) sum += static_cast<double>(count);
    for (int column = 0; column < classes; ++column) {
      DrawCell(canvas, {matrix.x + column * cell, matrix.y + row * cell}, cell,
               cells[static_cast<size_t>(column)], sum);
    }
  }
  return canvas.Encode();
}

}  // namespace lockstep::trainer
