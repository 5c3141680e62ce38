#include "trainer/pictures/preprocessing.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>

#include "trainer/pictures/decode.h"
#include "trainer/pictures/luma.h"
#include "trainer/pictures/resize.h"

namespace lockstep::trainer {
namespace {

using config::ChannelOrder;
using config::DatasetKind;
using config::Preset;
using config::ResizeRule;
using nlohmann::json;

constexpr int kMostPixels = 16384;  // Of a side.

// Numbers are in the order red, green, blue.
struct Numbers {
  std::vector<double> mean;
  std::vector<double> std;
};

Numbers ImageNetNumbers() {
  return {{0.485, 0.456, 0.406}, {0.229, 0.224, 0.225}};
}

Numbers CifarNumbers(bool hundred) {  // Of the 50,000 training pictures.
  if (hundred) return {{0.5071, 0.4865, 0.4409}, {0.2673, 0.2564, 0.2762}};
  return {{0.4914, 0.4822, 0.4465}, {0.2470, 0.2435, 0.2616}};
}

Numbers PlainNumbers() {
  return {{0.5, 0.5, 0.5}, {0.25, 0.25, 0.25}};
}

// What a name stands for. Sizes 0: those of the data set's pictures.
struct Row {
  int size = 0;
  int shorter_side = 0;  // 0 = size.
  ResizeRule resize = ResizeRule::kCrop;
  bool bgr = false;
  Numbers numbers;
};

// Sources of the sizes and numbers: torchvision's weights (imagenet); Inception's own training,
// which torchvision's model gets back to by its transform_input (inception); Keras'
// vgg16.preprocess_input, which subtracts 103.939, 116.779 and 123.68 from bytes in the order blue,
// green, red (vgg16_keras).
Row RowOf(Preset preset, DatasetKind kind) {
  switch (preset) {
    case Preset::kImageNet:
      return {224, 256, ResizeRule::kCrop, false, ImageNetNumbers()};
    case Preset::kInception:
      return {299, 342, ResizeRule::kCrop, false, {{0.5, 0.5, 0.5}, {0.5, 0.5, 0.5}}};
    case Preset::kVgg16Keras:
      return {224,
              0,
              ResizeRule::kStretch,
              true,
              {{123.68 / 255, 116.779 / 255, 103.939 / 255}, {1.0 / 255, 1.0 / 255, 1.0 / 255}}};
    case Preset::kCifar:
      return {32, 0, ResizeRule::kCrop, false, CifarNumbers(kind == DatasetKind::kCifar100)};
    case Preset::kPlain:
      return {0, 0, ResizeRule::kCrop, false, PlainNumbers()};
    case Preset::kAuto:
      break;
  }
  // The data set's own.
  switch (kind) {
    case DatasetKind::kShapes:
      return {0, 0, ResizeRule::kCrop, false, PlainNumbers()};
    case DatasetKind::kCifar10:
    case DatasetKind::kCifar100:
      return {0, 0, ResizeRule::kCrop, false, CifarNumbers(kind == DatasetKind::kCifar100)};
    case DatasetKind::kImageFolder:
    case DatasetKind::kCsvRegression:
    case DatasetKind::kCsvMultilabel:
    case DatasetKind::kTarShards:
      break;
  }
  return {0, 0, ResizeRule::kCrop, false, ImageNetNumbers()};
}

// What the published weights of a model were trained on; kAuto where there are none, or where a
// stem for small pictures says that these are not they.
Preset ExpectedBy(const config::ModelConfig& model, int image_size) {
  constexpr int kMostForCifarStem = 64;
  const auto begins = [&](const char* text) { return model.name.starts_with(text); };
  if (model.name == "inception_v3") return Preset::kInception;
  const bool small_stem = model.stem == "cifar" || (model.stem == "auto" && image_size > 0 &&
                                                    image_size <= kMostForCifarStem);
  if (begins("resnet") && !small_stem) return Preset::kImageNet;
  if (begins("vgg") || begins("mobilenet")) return Preset::kImageNet;
  return Preset::kAuto;
}

[[noreturn]] void Fail(const std::string& reason) {
  throw DataError(reason);
}

// The numbers a preset gives, in the tensor's order.
std::vector<double> ForChannels(std::vector<double> values, int channels, bool bgr) {
  if (channels == 1) return {(values[0] + values[1] + values[2]) / 3};
  if (channels != 3) Fail("pictures of " + std::to_string(channels) + " channels have no preset");
  if (bgr) std::swap(values[0], values[2]);
  return values;
}

// Throws where the parts do not fit together; `prefix` stands before the names of the fields.
void Check(const Preprocessing& p, const std::string& prefix) {
  const auto fail = [&](const char* key, const std::string& reason) {
    Fail(prefix + key + reason);
  };
  if (p.channels != 1 && p.channels != 3) {
    fail("channels", " is " + std::to_string(p.channels) + "; expected 1 or 3");
  }
  const auto check_size = [&](const char* key, int value) {
    if (value < 1 || value > kMostPixels) {
      fail(key, " is " + std::to_string(value) + "; expected 1 to " + std::to_string(kMostPixels));
    }
  };
  check_size("height", p.height);
  check_size("width", p.width);
  if (p.resize == ResizeRule::kCrop) {
    check_size("shorter_side", p.shorter_side);
    if (p.shorter_side < std::max(p.width, p.height)) {
      fail("shorter_side", " is " + std::to_string(p.shorter_side) + ", less than the " +
                               std::to_string(p.width) + "x" + std::to_string(p.height) +
                               " that are cut out");
    }
  } else if (p.shorter_side != 0) {
    fail("shorter_side", " is given, but a stretched picture has none; remove it");
  }
  const auto check_numbers = [&](const char* key, const std::vector<double>& values, bool above) {
    if (values.size() != static_cast<size_t>(p.channels)) {
      fail(key, " has " + std::to_string(values.size()) + " numbers, but the pictures have " +
                    std::to_string(p.channels) + " channels");
    }
    for (const double value : values) {
      if (!std::isfinite(value)) fail(key, " has a value that is not a number");
      if (above && !(value > 0)) {
        fail(key, " has a value of " + std::to_string(value) + "; expected numbers above 0");
      }
    }
  };
  check_numbers("mean", p.mean, false);
  check_numbers("std", p.std, true);
}

// How long the sides are before the crop. torchvision's Resize: the longer one is rounded down.
struct Sides {
  int width = 0;
  int height = 0;
};

Sides Scaled(int width, int height, int shorter_side) {
  const auto longer = [&](int64_t shorter, int64_t other) {
    return static_cast<int>(shorter_side * other / shorter);
  };
  return width <= height ? Sides{shorter_side, longer(width, height)}
                         : Sides{longer(height, width), shorter_side};
}

// The least that a decoder may leave of a picture of the given shape without losing anything that
// Resize() looks at.
Sides LeastSides(const Preprocessing& p) {
  return p.resize == ResizeRule::kCrop ? Sides{p.shorter_side, p.shorter_side}
                                       : Sides{p.width, p.height};
}

// torchvision's CenterCrop: half of what is left over, rounded to even.
int CropStart(int size, int crop) {
  const int rest = size - crop;
  return rest % 4 == 3 ? (rest + 1) / 2 : rest / 2;
}

void ToGrey(Picture& picture) {
  if (picture.channels == 1) return;
  const size_t count = picture.pixels.size() / 3;
  for (size_t i = 0; i < count; ++i) picture.pixels[i] = Luma(&picture.pixels[3 * i]);
  picture.pixels.resize(count);
  picture.channels = 1;
}

}  // namespace

std::string Preprocessing::ToJson() const {
  return json{{"channels", channels},
              {"height", height},
              {"width", width},
              {"resize", resize == ResizeRule::kCrop ? "crop" : "stretch"},
              {"shorter_side", shorter_side},
              {"channel_order", bgr ? "bgr" : "rgb"},
              {"mean", mean},
              {"std", std}}
      .dump();
}

Preprocessing Preprocessing::FromJson(const std::string& text) {
  Preprocessing p;
  try {
    const json read = json::parse(text);
    p.channels = read.at("channels").get<int>();
    p.height = read.at("height").get<int>();
    p.width = read.at("width").get<int>();
    p.shorter_side = read.at("shorter_side").get<int>();
    p.mean = read.at("mean").get<std::vector<double>>();
    p.std = read.at("std").get<std::vector<double>>();
    const auto word = [&](const char* key, const char* no, const char* yes) {
      const auto value = read.at(key).get<std::string>();
      if (value != no && value != yes) {
        Fail(std::string("preprocessing: ") + key + " is '" + value + "'; expected " + no + " or " +
             yes);
      }
      return value == yes;
    };
    p.resize = word("resize", "crop", "stretch") ? ResizeRule::kStretch : ResizeRule::kCrop;
    p.bgr = word("channel_order", "rgb", "bgr");
  } catch (const json::exception& error) {
    Fail(std::string("preprocessing: ") + error.what());
  }
  Check(p, "preprocessing: ");
  return p;
}

Preprocessing PreprocessingOf(const config::DataConfig& config, const config::ModelConfig& model,
                              int own_channels, int own_height, int own_width) {
  Preset preset = config.preset;
  if (preset == Preset::kAuto && !model.pretrained.empty()) {
    preset = ExpectedBy(model, config.image_size);
  }
  const Row row = RowOf(preset, config.kind);
  Preprocessing p;
  p.channels = own_channels;
  p.resize = config.resize == ResizeRule::kAuto ? row.resize : config.resize;
  p.width = p.height = config.image_size > 0 ? config.image_size : row.size;
  if (p.width == 0) {
    p.width = own_width;
    p.height = own_height;
    if (p.width < 1 || p.height < 1) {
      Fail(
          "data.image_size is not set, and the pictures have no size of their own; set it, or "
          "data.preset to one that has a size");
    }
    // A crop is square before it is cut; what is not square keeps its shape by this rule.
    if (p.width != p.height && config.resize == ResizeRule::kAuto) p.resize = ResizeRule::kStretch;
  }
  if (config.shorter_side > 0) {
    p.shorter_side = config.shorter_side;
  } else if (p.resize == ResizeRule::kCrop) {
    const int side = std::max(p.width, p.height);
    // In proportion, rounded.
    p.shorter_side =
        row.shorter_side == 0 ? side : (2 * side * row.shorter_side + row.size) / (2 * row.size);
  }
  p.bgr = config.channel_order == ChannelOrder::kAuto ? row.bgr
                                                      : config.channel_order == ChannelOrder::kBgr;
  p.mean = config.mean.empty() ? ForChannels(row.numbers.mean, p.channels, p.bgr) : config.mean;
  p.std = config.std.empty() ? ForChannels(row.numbers.std, p.channels, p.bgr) : config.std;
  Check(p, "data.");
  return p;
}

void Resize(const Picture& in, const Preprocessing& p, Picture& out) {
  if (p.resize == ResizeRule::kStretch) {
    ResizeBox(in, {0, 0, in.width, in.height}, p.width, p.height, out);
  } else {
    const Sides sides = Scaled(in.width, in.height, p.shorter_side);
    const Box cut{CropStart(sides.width, p.width), CropStart(sides.height, p.height), p.width,
                  p.height};
    ResizeAndCut(in, sides.width, sides.height, cut, out);
  }
  if (p.channels == 1) ToGrey(out);
}

void Prepare(std::span<const std::byte> bytes, const std::string& name, const Preprocessing& p,
             Picture& out) {
  const Sides least = LeastSides(p);
  Picture original;
  Decode(bytes, name, {.least_width = least.width, .least_height = least.height}, original);
  if (original.width == p.width && original.height == p.height && p.channels == 3 &&
      (p.resize == ResizeRule::kStretch ||
       p.shorter_side == std::min(original.width, original.height))) {
    out = std::move(original);
  } else {
    Resize(original, p, out);
  }
}

void PrepareWhole(std::span<const std::byte> bytes, const std::string& name, const Preprocessing& p,
                  const PartOf& part, Picture& out) {
  const Sides least = LeastSides(p);
  const auto much_larger = [&](int width, int height) {
    return width >= 2 * least.width && height >= 2 * least.height;
  };
  DecodeOptions options{.least_width = least.width, .least_height = least.height};
  if (part) {
    options.part = [&](int width, int height) {
      return much_larger(width, height) ? Box{0, 0, width, height} : part(width, height);
    };
  }
  Decode(bytes, name, options, out);
  if (much_larger(out.width, out.height)) {
    const Sides sides =
        p.resize == ResizeRule::kCrop ? Scaled(out.width, out.height, p.shorter_side) : least;
    Picture small;
    ResizeBox(out, {0, 0, out.width, out.height}, sides.width, sides.height, small);
    std::swap(out, small);
  }
  if (p.channels == 1) ToGrey(out);
}

}  // namespace lockstep::trainer
