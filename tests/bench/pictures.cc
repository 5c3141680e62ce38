// R10: what JPEG pictures cost on their way to training tensors.
//
//   bench-pictures --make FOLDER [--count 512]    writes FOLDER/train/*/*.jpg and
//   FOLDER/val/*/*.jpg bench-pictures --folder FOLDER --decode       bytes in memory to RGB bytes
//   bench-pictures --folder FOLDER                files to batches: decode, random resized crop to
//                                                 224, flip, normalize; one loader thread
//
// Samples are milliseconds per picture.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "tests/bench/measure.h"
#include "tests/trainer/pictures/pictures.h"
#include "trainer/batches/batches.h"
#include "trainer/host_memory.h"
#include "trainer/pictures/counter_rng.h"
#include "trainer/pictures/decode.h"

namespace lockstep::bench {
namespace {

namespace fs = std::filesystem;

struct Options {
  std::string folder;
  std::string make;
  int count = 512;
  bool decode = false;
  int rounds = 5;
  int batches = 4;
  int batch = 64;
};

// Smoothly interpolated random heights, the way photographs have detail at every scale: each octave
// is twice as fine as the one before, and weaker.
class Clouds {
 public:
  Clouds(uint32_t seed, int octaves) {
    for (int octave = 0; octave < octaves; ++octave) {
      const int side = 5 << octave;
      trainer::CounterRng random(seed, trainer::RandomPurpose::kShapesTrain,
                                 static_cast<uint32_t>(octave));
      std::vector<float> heights;
      for (int i = 0; i < side * side; ++i) heights.push_back(random.Uniform(-0.5F, 0.5F));
      octaves_.push_back({side, std::move(heights)});
    }
  }

  /// 0 <= x, y < 4.
  float At(float x, float y) const {
    float sum = 0;
    float strength = 1;
    for (const Octave& octave : octaves_) {
      sum += strength * octave.At(x, y);
      x *= 2;
      y *= 2;
      strength *= 0.86F;
    }
    return sum;
  }

 private:
  struct Octave {
    int side;
    std::vector<float> heights;

    float At(float x, float y) const {
      const int left = static_cast<int>(x);
      const int top = static_cast<int>(y);
      const auto eased = [](float t) { return t * t * (3 - 2 * t); };
      const float across = eased(x - static_cast<float>(left));
      const float down = eased(y - static_cast<float>(top));
      const float* height = &heights[static_cast<size_t>(top * side + left)];
      const float above = height[0] * (1 - across) + height[1] * across;
      const float below = height[side] * (1 - across) + height[side + 1] * across;
      return above * (1 - down) + below * down;
    }
  };
  std::vector<Octave> octaves_;
};

// About 110 KB of 500x375 pixels, as ImageNet's are on average.
trainer::Encoded MakePicture(uint32_t number) {
  const int width = number % 4 == 3 ? 375 : 500;
  const int height = number % 4 == 3 ? 500 : 375;
  const Clouds light(3 * number, 8), warmth(3 * number + 1, 4), tint(3 * number + 2, 4);
  std::vector<uint8_t> pixels;
  pixels.reserve(static_cast<size_t>(width * height * 3));
  for (int row = 0; row < height; ++row) {
    for (int column = 0; column < width; ++column) {
      const float x = static_cast<float>(column) / 130;
      const float y = static_cast<float>(row) / 130;
      const float bright = 128 + 110 * light.At(x, y);
      const float warm = 60 * warmth.At(x, y);
      const float green = 40 * tint.At(x, y);
      for (const float value : {bright + warm, bright + green, bright - warm}) {
        pixels.push_back(static_cast<uint8_t>(std::clamp(value, 0.0F, 255.0F)));
      }
    }
  }
  return trainer::EncodeJpeg({.width = width, .height = height, .quality = 92}, pixels);
}

void MakeFolder(const Options& options) {
  for (int i = 0; i < options.count; ++i) {
    const fs::path path = fs::path(options.make) / (i % 64 < 2 ? "val" : "train") /
                          ("class" + std::to_string(i % 2)) / (std::to_string(i) + ".jpg");
    trainer::WriteBytes(path, MakePicture(static_cast<uint32_t>(i)));
  }
}

std::vector<trainer::Encoded> ReadAll(const fs::path& folder) {
  std::vector<fs::path> paths;
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    if (entry.path().extension() == ".jpg") paths.push_back(entry.path());
  }
  std::sort(paths.begin(), paths.end());
  std::vector<trainer::Encoded> files;
  for (const fs::path& path : paths) {
    std::ifstream file(path, std::ios::binary);
    files.push_back(trainer::ToBytes(
        std::string(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>())));
  }
  return files;
}

std::vector<double> MeasureDecode(const Options& options) {
  const std::vector<trainer::Encoded> files = ReadAll(fs::path(options.folder) / "train");
  trainer::Picture picture;
  std::vector<double> samples;
  for (int round = 0; round <= options.rounds; ++round) {
    const double all = Milliseconds([&] {
      for (const trainer::Encoded& bytes : files) trainer::Decode(bytes, "bench", {}, picture);
    });
    if (round > 0) samples.push_back(all / static_cast<double>(files.size()));  // 0: warm-up.
  }
  return samples;
}

std::vector<double> MeasureBatches(const Options& options) {
  trainer::KeepFreedHostMemory();
  config::RunConfig config;
  config.data.kind = config::DatasetKind::kImageFolder;
  config.data.path = options.folder;
  config.data.preset = config::Preset::kImageNet;
  config.data.cache = config::PictureCacheKind::kNever;
  const auto dataset = trainer::OpenDataset({.config = config, .split = trainer::Split::kTrain});
  trainer::BatchesOptions reading;
  reading.seed = 1;
  reading.global_batch = options.batch;
  reading.augment.horizontal_flip = true;
  reading.augment.resized_crop = 0.08;
  trainer::Batches batches(*dataset, reading);
  std::vector<double> samples;
  // The queue is as full at the end of a round as at its beginning.
  for (int i = 0; i < 2 * reading.depth; ++i) batches.Next();
  for (int round = 0; round < options.rounds; ++round) {
    const double all = Milliseconds([&] {
      for (int i = 0; i < options.batches; ++i) batches.Next();
    });
    samples.push_back(all / (options.batches * options.batch));
  }
  return samples;
}

int Run(const Options& options) {
  if (!options.make.empty()) {
    MakeFolder(options);
    return 0;
  }
  const Samples samples = {
      {"ours", options.decode ? MeasureDecode(options) : MeasureBatches(options)}};
  std::printf("%s\n", nlohmann::json{{"samples", samples}}.dump().c_str());
  return 0;
}

}  // namespace
}  // namespace lockstep::bench

int main(int count, char** arguments) {
  lockstep::bench::Options options;
  CLI::App app("JPEG pictures to training tensors");
  app.add_option("--folder", options.folder);
  app.add_option("--make", options.make);
  app.add_option("--count", options.count);
  app.add_flag("--decode", options.decode);
  app.add_option("--rounds", options.rounds);
  app.add_option("--batches", options.batches);
  app.add_option("--batch", options.batch);
  CLI11_PARSE(app, count, arguments);
  return lockstep::bench::Run(options);
}
