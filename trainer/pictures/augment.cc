#include "trainer/pictures/augment.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "trainer/pictures/counter_rng.h"
#include "trainer/pictures/exact_math.h"

namespace lockstep::trainer {
namespace {

constexpr int kTries = 10;
constexpr double kOne = 65536;

CounterRng RngOf(const DrawKey& key, RandomPurpose purpose) {
  return {key.seed, purpose, static_cast<uint32_t>(key.epoch), static_cast<uint32_t>(key.sample)};
}

int32_t Rounded(double value) {
  return static_cast<int32_t>(std::floor(value + 0.5));
}

// Uniform in (0, 1], 53 bits.
double UniformDouble(CounterRng& rng) {
  const uint64_t high = rng.Next();
  const uint64_t low = rng.Next();
  return static_cast<double>(((high << 21) ^ (low >> 11)) + 1) * 0x1p-53;
}

double Within(CounterRng& rng, double low, double high) {
  return low + (high - low) * static_cast<double>(rng.Uniform());
}

struct Sides {
  int width = 0;
  int height = 0;
};

// Sides of a rectangle of so many pixels.
Sides SidesOf(double area, double ratio) {
  return {Rounded(std::sqrt(area * ratio)), Rounded(std::sqrt(area / ratio))};
}

Box Placed(CounterRng& rng, const Sides& sides, int width, int height) {
  const auto y = static_cast<int>(rng.Below(static_cast<uint32_t>(height - sides.height + 1)));
  const auto x = static_cast<int>(rng.Below(static_cast<uint32_t>(width - sides.width + 1)));
  return {x, y, sides.width, sides.height};
}

// By the polar method (G. Marsaglia, T. Bray, 1964); one of the pair is enough.
double DrawNormal(CounterRng& rng) {
  while (true) {
    const double u = 2 * UniformDouble(rng) - 1;
    const double v = 2 * UniformDouble(rng) - 1;
    const double square = u * u + v * v;
    if (square > 0 && square < 1) return u * std::sqrt(-2 * ExactLog(square) / square);
  }
}

// Logarithm of a draw from Gamma(alpha, 1): G. Marsaglia, W. Tsang, "A Simple Method for Generating
// Gamma Variables", 2000. As a logarithm, since a small alpha's draws are too small for a double.
double DrawLogGamma(CounterRng& rng, double alpha) {
  double small = 0;
  if (alpha < 1) {
    small = ExactLog(UniformDouble(rng)) / alpha;
    alpha += 1;
  }
  const double d = alpha - 1.0 / 3;
  const double c = 1 / std::sqrt(9 * d);
  while (true) {
    const double x = DrawNormal(rng);
    const double root = 1 + c * x;
    if (root <= 0) continue;
    const double v = root * root * root;
    const double log_v = 3 * ExactLog(root);
    if (ExactLog(UniformDouble(rng)) < 0.5 * x * x + d - d * v + d * log_v) {
      return small + ExactLog(d) + log_v;
    }
  }
}

double DrawBeta(CounterRng& rng, double alpha) {
  const double one = DrawLogGamma(rng, alpha);
  const double other = DrawLogGamma(rng, alpha);
  return 1 / (1 + ExactExp(std::clamp(other - one, -700.0, 700.0)));
}

Mixing DrawCut(CounterRng& rng, double kept, int width, int height) {
  Mixing mixing;
  mixing.cut = true;
  const double side = std::sqrt(1 - kept);
  const auto half_width = static_cast<int>(width * side) / 2;
  const auto half_height = static_cast<int>(height * side) / 2;
  const auto x = static_cast<int>(rng.Below(static_cast<uint32_t>(width)));
  const auto y = static_cast<int>(rng.Below(static_cast<uint32_t>(height)));
  const int left = std::max(0, x - half_width);
  const int top = std::max(0, y - half_height);
  mixing.box = {left, top, std::min(width, x + half_width) - left,
                std::min(height, y + half_height) - top};
  const double all = static_cast<double>(width) * height;
  const double cut = static_cast<double>(mixing.box.width) * mixing.box.height;
  mixing.share = static_cast<float>((all - cut) / all);
  return mixing;
}

}  // namespace

Augmentation DrawAugmentation(const config::AugmentConfig& config, const DrawKey& key) {
  CounterRng rng = RngOf(key, RandomPurpose::kAugment);
  // Always three numbers, so that one setting does not change what another one does.
  const uint32_t coin = rng.Next();
  const auto places = static_cast<uint32_t>(2 * config.crop_padding + 1);
  const int x = static_cast<int>(rng.Below(places)) - config.crop_padding;
  const int y = static_cast<int>(rng.Below(places)) - config.crop_padding;
  return {config.horizontal_flip && (coin >> 31) != 0, x, y};
}

bool Mixes(const config::AugmentConfig& config) {
  return config.mixup > 0 || config.cutmix > 0;
}

bool ChangesPixels(const config::AugmentConfig& config) {
  return config.resized_crop > 0 || config.rotation_degrees > 0 ||
         config.color_jitter != config::ColorJitterConfig() || config.random_erasing > 0 ||
         Mixes(config);
}

Box DrawCrop(const config::AugmentConfig& config, const DrawKey& key, int width, int height) {
  constexpr double kLeast = 3.0 / 4;
  constexpr double kMost = 4.0 / 3;
  CounterRng rng = RngOf(key, RandomPurpose::kResizedCrop);
  const double all = static_cast<double>(width) * height;
  for (int i = 0; i < kTries; ++i) {
    const double area = all * Within(rng, config.resized_crop, 1);
    const double ratio = ExactExp(Within(rng, ExactLog(kLeast), ExactLog(kMost)));
    const Sides sides = SidesOf(area, ratio);
    if (sides.width < 1 || sides.width > width || sides.height < 1 || sides.height > height) {
      continue;
    }
    return Placed(rng, sides, width, height);
  }
  Sides sides{width, height};
  const double ratio = static_cast<double>(width) / height;
  if (ratio < kLeast) sides.height = std::max(1, Rounded(width / kLeast));
  if (ratio > kMost) sides.width = std::max(1, Rounded(height * kMost));
  return {(width - sides.width) / 2, (height - sides.height) / 2, sides.width, sides.height};
}

double DrawDegrees(const config::AugmentConfig& config, const DrawKey& key) {
  CounterRng rng = RngOf(key, RandomPurpose::kRotation);
  return Within(rng, -config.rotation_degrees, config.rotation_degrees);
}

ColorChange DrawColorChange(const config::ColorJitterConfig& config, const DrawKey& key) {
  CounterRng rng = RngOf(key, RandomPurpose::kColorJitter);
  ColorChange change;
  const auto factor = [&](double range) {
    return Rounded(Within(rng, std::max(0.0, 1 - range), 1 + range) * kOne);
  };
  change.brightness = factor(config.brightness);
  change.contrast = factor(config.contrast);
  change.saturation = factor(config.saturation);
  change.hue = Rounded(Within(rng, -config.hue, config.hue) * 24576);
  for (uint32_t i = 3; i > 0; --i) {  // Fisher-Yates.
    std::swap(change.order[i], change.order[rng.Below(i + 1)]);
  }
  return change;
}

Box DrawErasing(const config::AugmentConfig& config, const DrawKey& key, int width, int height) {
  CounterRng rng = RngOf(key, RandomPurpose::kRandomErasing);
  if (static_cast<double>(rng.Uniform()) >= config.random_erasing) return {};
  const double all = static_cast<double>(width) * height;
  for (int i = 0; i < kTries; ++i) {
    const double area = all * Within(rng, 0.02, 0.33);
    const double ratio = ExactExp(Within(rng, ExactLog(0.3), ExactLog(3.3)));
    const Sides sides = SidesOf(area, ratio);
    if (sides.width < 1 || sides.width >= width || sides.height < 1 || sides.height >= height) {
      continue;
    }
    return Placed(rng, sides, width, height);
  }
  return {};
}

Mixing DrawMixing(const config::AugmentConfig& config, const DrawKey& key, int width, int height) {
  CounterRng rng = RngOf(key, RandomPurpose::kMixing);
  const bool coin = (rng.Next() >> 31) != 0;
  const bool cut = config.cutmix > 0 && (config.mixup <= 0 || coin);
  const double kept = DrawBeta(rng, cut ? config.cutmix : config.mixup);
  if (cut) return DrawCut(rng, kept, width, height);
  Mixing mixing;
  mixing.weight = Rounded(kept * kOne);
  mixing.share = static_cast<float>(mixing.weight / kOne);
  return mixing;
}

}  // namespace lockstep::trainer
