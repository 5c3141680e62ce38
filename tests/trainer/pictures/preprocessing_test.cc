#include "trainer/pictures/preprocessing.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "tests/trainer/pictures/pictures.h"
#include "trainer/pictures/decode.h"

namespace lockstep::trainer {
namespace {

using config::DatasetKind;
using config::Preset;
using config::ResizeRule;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

config::DataConfig Data(DatasetKind kind, Preset preset = Preset::kAuto, int image_size = 0) {
  config::DataConfig data;
  data.kind = kind;
  data.preset = preset;
  data.image_size = image_size;
  return data;
}

Preprocessing Of(const config::DataConfig& data, const config::ModelConfig& model = {}) {
  return PreprocessingOf(data, model, 3, 0, 0);
}

std::string ErrorOf(const config::DataConfig& data) {
  try {
    Of(data);
  } catch (const DataError& error) {
    return error.what();
  }
  return "";
}

TEST(Preprocessing, PresetsAreThePublishedOnes) {
  const Preprocessing imagenet = Of(Data(DatasetKind::kImageFolder, Preset::kImageNet));
  EXPECT_EQ(imagenet.height, 224);
  EXPECT_EQ(imagenet.width, 224);
  EXPECT_EQ(imagenet.shorter_side, 256);
  EXPECT_EQ(imagenet.resize, ResizeRule::kCrop);
  EXPECT_THAT(imagenet.mean, ElementsAre(0.485, 0.456, 0.406));
  EXPECT_THAT(imagenet.std, ElementsAre(0.229, 0.224, 0.225));
  const Preprocessing inception = Of(Data(DatasetKind::kImageFolder, Preset::kInception));
  EXPECT_EQ(inception.height, 299);
  EXPECT_EQ(inception.shorter_side, 342);
  EXPECT_THAT(inception.std, ElementsAre(0.5, 0.5, 0.5));
  const Preprocessing cifar = Of(Data(DatasetKind::kCifar100, Preset::kCifar));
  EXPECT_EQ(cifar.height, 32);
  EXPECT_EQ(cifar.shorter_side, 32);
  EXPECT_THAT(cifar.mean, ElementsAre(0.5071, 0.4865, 0.4409));
  const Preprocessing plain = Of(Data(DatasetKind::kCifar10, Preset::kPlain, 48));
  EXPECT_THAT(plain.mean, ElementsAre(0.5, 0.5, 0.5));
  EXPECT_THAT(plain.std, ElementsAre(0.25, 0.25, 0.25));
}

TEST(Preprocessing, Vgg16KerasSubtractsItsNumbersFromBytesBlueFirst) {
  const Preprocessing p = Of(Data(DatasetKind::kImageFolder, Preset::kVgg16Keras));
  EXPECT_TRUE(p.bgr);
  EXPECT_EQ(p.resize, ResizeRule::kStretch);
  EXPECT_EQ(p.shorter_side, 0);
  const std::vector<double> subtracted = {103.939, 116.779, 123.68};
  for (size_t c = 0; c < 3; ++c) {
    EXPECT_NEAR((200 / 255.0 - p.mean[c]) / p.std[c], 200 - subtracted[c], 1e-9);
  }
}

TEST(Preprocessing, AutoIsTheDataSetsOwn) {
  const Preprocessing cifar = PreprocessingOf(Data(DatasetKind::kCifar10), {}, 3, 32, 32);
  EXPECT_EQ(cifar.height, 32);
  EXPECT_EQ(cifar.shorter_side, 32);
  EXPECT_THAT(cifar.mean, ElementsAre(0.4914, 0.4822, 0.4465));
  EXPECT_THAT(PreprocessingOf(Data(DatasetKind::kShapes), {}, 3, 32, 32).std,
              ElementsAre(0.25, 0.25, 0.25));
  const Preprocessing folder = Of(Data(DatasetKind::kImageFolder, Preset::kAuto, 96));
  EXPECT_EQ(folder.height, 96);
  EXPECT_EQ(folder.shorter_side, 96);
  EXPECT_THAT(folder.mean, ElementsAre(0.485, 0.456, 0.406));
}

TEST(Preprocessing, PicturesOfOneSizeThatIsNotSquareKeepIt) {
  const Preprocessing p = PreprocessingOf(Data(DatasetKind::kImageFolder), {}, 3, 20, 30);
  EXPECT_EQ(p.height, 20);
  EXPECT_EQ(p.width, 30);
  Picture in{30, 20, 3, {}};
  for (int i = 0; i < 1800; ++i) in.pixels.push_back(static_cast<uint8_t>(i * 31));
  Picture out;
  Resize(in, p, out);
  EXPECT_EQ(out.pixels, in.pixels);
}

TEST(Preprocessing, AutoIsWhatPretrainedWeightsExpect) {
  config::ModelConfig model;
  model.pretrained = "weights.safetensors";
  const auto size_for = [&](const char* name, int own) {
    model.name = name;
    return PreprocessingOf(Data(DatasetKind::kCifar10), model, 3, own, own).height;
  };
  EXPECT_EQ(size_for("resnet50", 32), 224);
  EXPECT_EQ(size_for("vgg16_bn", 32), 224);
  EXPECT_EQ(size_for("mobilenet_v2", 32), 224);
  EXPECT_EQ(size_for("inception_v3", 32), 299);
  EXPECT_EQ(size_for("cnn", 32), 32);
  model.stem = "cifar";
  EXPECT_EQ(size_for("resnet18", 32), 32);
  model.stem = "auto";
  model.pretrained.clear();
  EXPECT_EQ(size_for("resnet50", 32), 32);
}

TEST(Preprocessing, AGivenSizeScalesTheShorterSideInProportion) {
  EXPECT_EQ(Of(Data(DatasetKind::kImageFolder, Preset::kImageNet, 160)).shorter_side, 183);
  EXPECT_EQ(Of(Data(DatasetKind::kImageFolder, Preset::kImageNet, 448)).shorter_side, 512);
  config::DataConfig data = Data(DatasetKind::kImageFolder, Preset::kImageNet, 160);
  data.shorter_side = 170;
  EXPECT_EQ(Of(data).shorter_side, 170);
}

TEST(Preprocessing, GivenNumbersAreInTheTensorsOrderPresetsAreTurned) {
  config::DataConfig data = Data(DatasetKind::kImageFolder, Preset::kImageNet);
  data.channel_order = config::ChannelOrder::kBgr;
  EXPECT_THAT(Of(data).mean, ElementsAre(0.406, 0.456, 0.485));
  data.mean = {0.1, 0.2, 0.3};
  data.std = {0.4, 0.5, 0.6};
  EXPECT_THAT(Of(data).mean, ElementsAre(0.1, 0.2, 0.3));
  EXPECT_THAT(Of(data).std, ElementsAre(0.4, 0.5, 0.6));
}

TEST(Preprocessing, WhatDoesNotFitIsRefusedByTheNameOfItsKey) {
  EXPECT_THAT(ErrorOf(Data(DatasetKind::kImageFolder)), HasSubstr("data.image_size"));
  config::DataConfig data = Data(DatasetKind::kImageFolder, Preset::kImageNet);
  data.shorter_side = 200;
  EXPECT_THAT(ErrorOf(data), HasSubstr("data.shorter_side is 200, less than the 224x224"));
  data = Data(DatasetKind::kImageFolder, Preset::kVgg16Keras);
  data.shorter_side = 256;
  EXPECT_THAT(ErrorOf(data), HasSubstr("data.shorter_side"));
  data = Data(DatasetKind::kImageFolder, Preset::kImageNet);
  data.mean = {0.5};
  EXPECT_THAT(ErrorOf(data), HasSubstr("data.mean has 1 numbers"));
  data.mean = {0.5, 0.5, std::nan("")};
  EXPECT_THAT(ErrorOf(data), HasSubstr("data.mean"));
  data.mean.clear();
  data.std = {0.5, 0, 0.5};
  EXPECT_THAT(ErrorOf(data), HasSubstr("data.std"));
}

TEST(Preprocessing, JsonBringsBackEveryBit) {
  Preprocessing p = Of(Data(DatasetKind::kImageFolder, Preset::kVgg16Keras));
  EXPECT_EQ(Preprocessing::FromJson(p.ToJson()), p);
  p = Of(Data(DatasetKind::kImageFolder, Preset::kImageNet));
  p.mean = {1.0 / 3, std::nextafter(0.1, 1.0), std::numeric_limits<double>::min()};
  EXPECT_EQ(Preprocessing::FromJson(p.ToJson()), p);
}

TEST(Preprocessing, DamagedJsonIsRefused) {
  const std::string good = Of(Data(DatasetKind::kImageFolder, Preset::kImageNet)).ToJson();
  for (size_t length = 0; length < good.size(); ++length) {
    EXPECT_THROW(Preprocessing::FromJson(good.substr(0, length)), DataError);
  }
  const auto changed = [&](const std::string& from, const std::string& to) {
    std::string text = good;
    text.replace(text.find(from), from.size(), to);
    return text;
  };
  EXPECT_THROW(Preprocessing::FromJson(changed("\"crop\"", "\"cut\"")), DataError);
  EXPECT_THROW(Preprocessing::FromJson(changed("256", "100")), DataError);
  EXPECT_THROW(Preprocessing::FromJson(changed("224", "-1")), DataError);
  EXPECT_THROW(Preprocessing::FromJson(changed("\"rgb\"", "7")), DataError);
}

std::vector<uint8_t> Waves(int width, int height) {
  std::vector<uint8_t> pixels;
  for (int y = 0; y < height; ++y) {
    for (int x = 0; x < width; ++x) {
      for (int c = 0; c < 3; ++c) {
        pixels.push_back(
            static_cast<uint8_t>(128 + 100 * std::sin(x * 0.05 + c) * std::cos(y * 0.07)));
      }
    }
  }
  return pixels;
}

TEST(Prepare, IsResizeOfWhatIsDecoded) {
  const auto jpeg = EncodeJpeg({.width = 500, .height = 375}, Waves(500, 375));
  const Preprocessing p = Of(Data(DatasetKind::kImageFolder, Preset::kImageNet));
  Picture prepared, resized;
  Prepare(jpeg, "a", p, prepared);
  Resize(Decode(jpeg, "a"), p, resized);
  EXPECT_EQ(prepared.pixels, resized.pixels);
}

TEST(Prepare, TheJpegLibrarysCheapScalesChangeLittle) {
  const auto jpeg = EncodeJpeg({.width = 1200, .height = 900}, Waves(1200, 900));
  const Preprocessing p = Of(Data(DatasetKind::kImageFolder, Preset::kImageNet));
  Picture prepared, resized;
  Prepare(jpeg, "a", p, prepared);
  Resize(Decode(jpeg, "a"), p, resized);
  ASSERT_EQ(prepared.pixels.size(), resized.pixels.size());
  for (size_t i = 0; i < prepared.pixels.size(); ++i) {
    ASSERT_NEAR(prepared.pixels[i], resized.pixels[i], 3) << i;
  }
}

TEST(PrepareWhole, KeepsMoreThanTheModelSeesButNotTwiceAsMuch) {
  const Preprocessing p = Of(Data(DatasetKind::kImageFolder, Preset::kImageNet));
  Picture whole;
  PrepareWhole(EncodeJpeg({.width = 500, .height = 375}, Waves(500, 375)), "a", p, {}, whole);
  EXPECT_EQ(whole.width, 500);
  EXPECT_EQ(whole.height, 375);
  PrepareWhole(EncodeJpeg({.width = 1200, .height = 900}, Waves(1200, 900)), "a", p, {}, whole);
  EXPECT_EQ(whole.width, 600);
  EXPECT_EQ(whole.height, 450);
  PrepareWhole(FlatPng(900, 600, {1, 2, 3}), "a", p, {}, whole);
  EXPECT_EQ(whole.width, 384);
  EXPECT_EQ(whole.height, 256);
  PrepareWhole(FlatPng(20, 10, {1, 2, 3}), "a", p, {}, whole);
  EXPECT_EQ(whole.width, 20);
  const Preprocessing stretch = Of(Data(DatasetKind::kImageFolder, Preset::kVgg16Keras));
  PrepareWhole(FlatPng(900, 450, {1, 2, 3}), "a", stretch, {}, whole);
  EXPECT_EQ(whole.width, 224);
  EXPECT_EQ(whole.height, 224);
}

TEST(PrepareWhole, APartThatWillBeShrunkIsOfTheShrunkPicture) {
  const Preprocessing p = Of(Data(DatasetKind::kImageFolder, Preset::kImageNet));
  int asked = 0;
  Picture whole;
  PrepareWhole(
      EncodeJpeg({.width = 500, .height = 375}, Waves(500, 375)), "a", p,
      [&](int width, int height) {
        ++asked;
        EXPECT_EQ(width, 500);
        EXPECT_EQ(height, 375);
        return Box{1, 1, 2, 2};
      },
      whole);
  EXPECT_EQ(asked, 1);
}

}  // namespace
}  // namespace lockstep::trainer
