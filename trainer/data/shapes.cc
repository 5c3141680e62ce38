#include "trainer/data/shapes.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <string>

#include "trainer/data/own_size.h"
#include "trainer/pictures/counter_rng.h"
#include "trainer/pictures/fingerprint.h"

namespace lockstep::trainer {
namespace {

using Color = std::array<float, 3>;  // Red, green, blue on the 0-1 scale.

enum class Figure { kDisc, kRing, kSquare, kFrame, kTriangle, kCross, kStar, kCrescent };
constexpr uint32_t kFigures = 8;

const std::vector<std::string>& FigureNames() {
  static const std::vector<std::string> names = {"disc",     "ring",  "square", "frame",
                                                 "triangle", "cross", "star",   "crescent"};
  return names;
}

// Distance below zero inside the figure, above zero outside, in units of its radius; all figures
// fit into a circle of radius 1.1. Only differences, products, square roots, minimum and maximum:
// these are exact or correctly rounded everywhere, so pictures have the same bits on any machine.
float Distance(Figure figure, float x, float y) {
  const float ax = std::abs(x);
  const float ay = std::abs(y);
  switch (figure) {
    case Figure::kDisc:
      return std::sqrt(x * x + y * y) - 1.0f;
    case Figure::kRing: {
      const float r = std::sqrt(x * x + y * y);
      return std::max(r - 1.0f, 0.55f - r);
    }
    case Figure::kSquare:
      return std::max(ax, ay) - 0.77f;
    case Figure::kFrame: {
      const float m = std::max(ax, ay);
      return std::max(m - 0.77f, 0.40f - m);
    }
    case Figure::kTriangle:  // Half-planes towards three directions 120 degrees apart.
      return std::max(-y, 0.8660254f * ax + 0.5f * y) - 0.55f;
    case Figure::kCross:
      return std::min(std::max(ax - 1.0f, ay - 0.3f), std::max(ay - 1.0f, ax - 0.3f));
    case Figure::kStar: {
      // A point lies in a five-pointed star when it is beyond at most one of the five lines that
      // carry the star's edges: the second largest distance decides. Two of the five pairs mirror
      // at x = 0, so |x| serves one line of each pair and -|x| the other.
      const float up = y;
      const float a = 0.95105652f * ax + 0.30901699f * y;
      const float b = -0.95105652f * ax + 0.30901699f * y;
      const float c = 0.58778525f * ax - 0.80901699f * y;
      const float d = -0.58778525f * ax - 0.80901699f * y;
      float first = std::max(a, c);
      float second = std::min(a, c);
      for (const float line : {up, b, d}) {
        second = std::max(second, std::min(first, line));
        first = std::max(first, line);
      }
      return second - 0.34f;
    }
    case Figure::kCrescent: {
      const float bite_x = x - 0.55f;
      return std::max(std::sqrt(x * x + y * y) - 1.0f, 0.8f - std::sqrt(bite_x * bite_x + y * y));
    }
  }
  return 1.0f;
}

constexpr int kKnots = 6;  // Knots of the background's blotches in each direction.

struct Scene {
  Figure figure = Figure::kDisc;
  float center_x = 0, center_y = 0, radius = 1;  // Pixels.
  float cosine = 1, sine = 0;                    // Rotation.
  Color near{}, far{}, fill{};                   // The background runs from near to far.
  float slope_x = 0, slope_y = 0;                // Direction of that, per pixel.
  std::array<float, kKnots * kKnots> blotches{};
};

Color DrawColor(CounterRng& rng) {
  return {rng.Uniform(0.1f, 0.9f), rng.Uniform(0.1f, 0.9f), rng.Uniform(0.1f, 0.9f)};
}

float SquaredContrast(const Color& a, const Color& b) {
  float sum = 0;
  for (size_t i = 0; i < 3; ++i) sum += (a[i] - b[i]) * (a[i] - b[i]);
  return sum;
}

// A random direction without sine or cosine, whose last bits differ between C libraries.
void DrawDirection(CounterRng& rng, float& cosine, float& sine) {
  float x = 1, y = 0, square = 1;
  do {
    x = rng.Uniform(-1, 1);
    y = rng.Uniform(-1, 1);
    square = x * x + y * y;
  } while (square > 1.0f || square < 0.01f);
  const float length = std::sqrt(square);
  cosine = x / length;
  sine = y / length;
}

Scene DrawScene(CounterRng& rng, int size) {
  const auto pixels = static_cast<float>(size);
  Scene scene;
  scene.figure = static_cast<Figure>(rng.Below(kFigures));
  scene.radius = pixels * rng.Uniform(0.24f, 0.42f);
  scene.center_x = rng.Uniform(scene.radius, pixels - scene.radius);
  scene.center_y = rng.Uniform(scene.radius, pixels - scene.radius);
  DrawDirection(rng, scene.cosine, scene.sine);
  DrawDirection(rng, scene.slope_x, scene.slope_y);
  scene.slope_x /= pixels;
  scene.slope_y /= pixels;
  scene.near = DrawColor(rng);
  for (size_t i = 0; i < 3; ++i) {
    scene.far[i] = std::clamp(scene.near[i] + rng.Uniform(-0.3f, 0.3f), 0.05f, 0.95f);
  }
  // The first colour that stands out from both ends of the background; else the best of 16.
  float best = -1;
  for (int attempt = 0; attempt < 16 && best < 0.16f; ++attempt) {
    const Color color = DrawColor(rng);
    const float contrast =
        std::min(SquaredContrast(color, scene.near), SquaredContrast(color, scene.far));
    if (contrast > best) {
      best = contrast;
      scene.fill = color;
    }
  }
  for (float& blotch : scene.blotches) blotch = rng.Uniform(-0.1f, 0.1f);
  return scene;
}

uint8_t ToByte(float value) {
  const float scaled = std::clamp(value, 0.0f, 1.0f) * 255.0f + 0.5f;  // Truncation then rounds.
  return static_cast<uint8_t>(scaled);
}

void Paint(const Scene& scene, CounterRng& rng, int size, uint8_t* out) {
  constexpr float kNoise = 0.16f;  // Full range of the noise on each channel.
  const float half = 0.5f * static_cast<float>(size);
  const float knots_per_pixel = static_cast<float>(kKnots - 1) / static_cast<float>(size);
  const float pixel = 1.0f / scene.radius;
  for (int row = 0; row < size; ++row) {
    const float y = static_cast<float>(row) + 0.5f;
    const float knot_y = y * knots_per_pixel;
    const int ky = static_cast<int>(knot_y);
    const float* blotches = &scene.blotches[static_cast<size_t>(ky) * kKnots];
    const float below = knot_y - static_cast<float>(ky);
    for (int column = 0; column < size; ++column, out += 3) {
      const float x = static_cast<float>(column) + 0.5f;
      const float dx = (x - scene.center_x) * pixel;
      const float dy = (y - scene.center_y) * pixel;
      float cover = 0;  // Share of the pixel inside the figure, by its distance to the edge.
      if (dx * dx + dy * dy < 2.25f) {
        const float distance = Distance(scene.figure, scene.cosine * dx + scene.sine * dy,
                                        scene.cosine * dy - scene.sine * dx);
        cover = std::clamp(0.5f - distance * scene.radius, 0.0f, 1.0f);
      }
      const float knot_x = x * knots_per_pixel;
      const int kx = static_cast<int>(knot_x);
      const float right = knot_x - static_cast<float>(kx);
      const float above_blotch = blotches[kx] + right * (blotches[kx + 1] - blotches[kx]);
      const float below_blotch =
          blotches[kKnots + kx] + right * (blotches[kKnots + kx + 1] - blotches[kKnots + kx]);
      const float blotch = above_blotch + below * (below_blotch - above_blotch);
      const float along =
          std::clamp(0.5f + (x - half) * scene.slope_x + (y - half) * scene.slope_y, 0.0f, 1.0f);
      const uint32_t noise = rng.Next();
      for (size_t i = 0; i < 3; ++i) {
        const float back = scene.near[i] + along * (scene.far[i] - scene.near[i]) + blotch;
        const float grain =
            (static_cast<float>((noise >> (8 * i)) & 0xFF) * (1.0f / 255.0f) - 0.5f) * kNoise;
        out[i] = ToByte(back + cover * (scene.fill[i] + 0.5f * blotch - back) + grain);
      }
    }
  }
}

class Shapes final : public Dataset {
 public:
  explicit Shapes(const ShapesOptions& options)
      : options_(options), preprocessing_(OwnSize(options.size)) {}

  int64_t size() const override { return options_.count; }
  int width() const override { return options_.size; }
  int height() const override { return options_.size; }
  int channels() const override { return 3; }
  const std::vector<std::string>& classes() const override { return FigureNames(); }
  const Preprocessing& preprocessing() const override { return preprocessing_; }
  int64_t LabelOf(int64_t index) const override {
    CounterRng rng = RandomFor(index);
    return static_cast<int64_t>(DrawScene(rng, options_.size).figure);
  }
  std::string Fingerprint() const override {
    class Fingerprint fingerprint;
    fingerprint.Add("shapes");
    fingerprint.Add(static_cast<int64_t>(options_.seed));
    fingerprint.Add(ToString(options_.split == Split::kTrain ? Split::kTrain : Split::kEval));
    fingerprint.Add(static_cast<int64_t>(options_.size));
    fingerprint.Add(options_.count);
    return fingerprint.Hex();
  }

  void Read(int64_t index, Sample& sample) const override {
    CounterRng rng = RandomFor(index);
    const Scene scene = DrawScene(rng, options_.size);
    sample.label = static_cast<int64_t>(scene.figure);
    sample.picture.width = sample.picture.height = options_.size;
    sample.picture.channels = 3;
    sample.picture.pixels.resize(static_cast<size_t>(options_.size) * options_.size * 3);
    Paint(scene, rng, options_.size, sample.picture.pixels.data());
  }

  std::string Describe() const override {
    return "shapes: " + std::to_string(options_.count) +
           (options_.split == Split::kTrain ? " training" : " held-out") +
           " pictures made on the fly, " + std::to_string(kFigures) + " classes, " +
           std::to_string(options_.size) + "x" + std::to_string(options_.size) +
           (options_.split == Split::kTest
                ? "; there is no test split: these are the held-out pictures"
                : "");
  }

 private:
  CounterRng RandomFor(int64_t index) const {
    if (index < 0 || index >= options_.count) {
      throw DataError("shapes: sample " + std::to_string(index) + " of " +
                      std::to_string(options_.count));
    }
    const RandomPurpose purpose =
        options_.split == Split::kTrain ? RandomPurpose::kShapesTrain : RandomPurpose::kShapesEval;
    return CounterRng(options_.seed, purpose, static_cast<uint32_t>(index));
  }

  const ShapesOptions options_;
  const Preprocessing preprocessing_;
};

}  // namespace

std::unique_ptr<Dataset> MakeShapes(const ShapesOptions& options) {
  if (options.size < 8 || options.size > 1024) {
    throw DataError("shapes: data.image_size is " + std::to_string(options.size) +
                    "; expected 8 to 1024 pixels");
  }
  if (options.count < 1 || options.count > std::numeric_limits<uint32_t>::max()) {
    throw DataError("shapes: " + std::to_string(options.count) +
                    " pictures asked for; expected 1 to 2^32 - 1");
  }
  return std::make_unique<Shapes>(options);
}

}  // namespace lockstep::trainer
