// Files of weights into models: what is loaded, what stays new, what is refused.
#include "trainer/models/weights.h"

#include <ATen/core/grad_mode.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <string>
#include <vector>

#include "tests/trainer/models/pickles.h"
#include "tests/trainer/models/recipe.h"
#include "trainer/checkpoint/manifest.h"
#include "trainer/checkpoint/store.h"

namespace lockstep::trainer {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr InputShape kInput{3, 32, 32};

config::ModelConfig Named(const std::string& name, int num_classes = 10) {
  config::ModelConfig config;
  config.name = name;
  config.num_classes = num_classes;
  config.auxiliary_loss_weight = 0;
  return config;
}

class WeightsTest : public ::testing::Test {
 protected:
  WeightsTest() {
    folder_ =
        fs::path(::testing::TempDir()) /
        ("weights-" + std::string(::testing::UnitTest::GetInstance()->current_test_info()->name()));
    fs::remove_all(folder_);
    fs::create_directories(folder_);
  }
  ~WeightsTest() override { fs::remove_all(folder_); }

  std::string Write(const std::string& name, const std::string& bytes) {
    std::ofstream(folder_ / name, std::ios::binary) << bytes;
    return (folder_ / name).string();
  }

  // `prefix` before every name; without those that contain `without`.
  static std::vector<TensorBytes> BytesOf(const Model& model, const std::string& without = "",
                                          const std::string& prefix = "") {
    std::vector<TensorBytes> tensors;
    for (const NamedTensors& group : {model.Parameters(), model.Buffers()}) {
      for (const auto& [name, tensor] : group) {
        if (!without.empty() && name.find(without) != std::string::npos) continue;
        tensors.push_back(
            {.name = prefix + name,
             .dtype = tensor.is_floating_point() ? "F32" : "I64",
             .shape = tensor.sizes().vec(),
             .bytes = {static_cast<const std::byte*>(tensor.const_data_ptr()), tensor.nbytes()}});
      }
    }
    return tensors;
  }
  std::string Safetensors(const std::vector<TensorBytes>& tensors) {
    std::string file = SafetensorsHeader(tensors, {});
    for (const TensorBytes& tensor : tensors) {
      file.append(reinterpret_cast<const char*>(tensor.bytes.data()), tensor.bytes.size());
    }
    return Write("weights.safetensors", file);
  }
  static std::unique_ptr<Model> Filled(const config::ModelConfig& config) {
    auto model = MakeModel(config, kInput, 1);
    FillByRecipe(*model);
    return model;
  }
  static std::map<std::string, at::Tensor> Tensors(const Model& model) {
    std::map<std::string, at::Tensor> all;
    for (const NamedTensors& group : {model.Parameters(), model.Buffers()}) {
      for (const auto& [name, tensor] : group) all[name] = tensor;
    }
    return all;
  }
  std::string Refusal(const std::string& path, const config::ModelConfig& config) {
    const auto model = MakeModel(config, kInput, 2);
    const auto before = MakeModel(config, kInput, 2);
    const auto report = LoadWeights(path, config, *model);
    for (const auto& [name, tensor] : Tensors(*model)) {
      EXPECT_TRUE(report.ok() || tensor.equal(Tensors(*before).at(name))) << name;
    }
    return report.ok() ? "accepted" : std::string(report.status().message());
  }

  fs::path folder_;
};

TEST_F(WeightsTest, SafetensorsGoIntoTheModelAsTheyAre) {
  const config::ModelConfig config = Named("resnet18");
  const auto source = Filled(config);
  const std::string path = Safetensors(BytesOf(*source, "", "module."));
  const auto model = MakeModel(config, kInput, 2);
  const auto report = LoadWeights(path, config, *model);
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(report->loaded, 122);
  EXPECT_THAT(report->remade, IsEmpty());
  EXPECT_THAT(report->dropped, IsEmpty());
  EXPECT_EQ(report->xxh3_128.size(), 32u);
  for (const auto& [name, tensor] : Tensors(*source)) {
    EXPECT_TRUE(tensor.equal(Tensors(*model).at(name))) << name;
  }
  EXPECT_TRUE(model->Parameters()[0].tensor.requires_grad());
}

TEST_F(WeightsTest, OtherPrecisionsBecomeFloat32) {
  const config::ModelConfig config = Named("cnn", 2);
  const InputShape input{1, 1, 2};
  const std::string half = LittleEndian<uint16_t>(0x3c00) + LittleEndian<uint16_t>(0xc000) +
                           LittleEndian<uint16_t>(0) + LittleEndian<uint16_t>(0x3800);
  const std::string bfloat = LittleEndian<uint16_t>(0x3f80) + LittleEndian<uint16_t>(0xc040);
  const std::string pickle = StateDictPickle({{.name = "classifier.weight",
                                               .key = "0",
                                               .storage_type = "HalfStorage",
                                               .storage_elements = 4,
                                               .shape = {2, 2},
                                               .strides = {2, 1}},
                                              {.name = "classifier.bias",
                                               .key = "1",
                                               .storage_type = "BFloat16Storage",
                                               .storage_elements = 2,
                                               .shape = {2},
                                               .strides = {1}}});
  const std::string path =
      Write("half.pth", Zip({{"a/data.pkl", pickle}, {"a/data/0", half}, {"a/data/1", bfloat}}));
  const auto model = MakeModel(config, input, 2);
  const auto report = LoadWeights(path, config, *model);
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(report->format, "PyTorch state dict");
  const at::Tensor weight = model->Parameters()[0].tensor.flatten();
  const std::vector<float> expected = {1, -2, 0, 0.5};
  for (int64_t i = 0; i < 4; ++i)
    EXPECT_EQ(weight[i].item<float>(), expected[static_cast<size_t>(i)]);
  EXPECT_EQ(model->Parameters()[1].tensor[1].item<float>(), -3.0f);
}

TEST_F(WeightsTest, AnotherNumberOfClassesLeavesTheClassifierNew) {
  const auto source = Filled(Named("resnet18", 1000));
  const std::string path = Safetensors(BytesOf(*source));
  const config::ModelConfig config = Named("resnet18", 10);
  const auto model = MakeModel(config, kInput, 2);
  const auto fresh = MakeModel(config, kInput, 2);
  const auto report = LoadWeights(path, config, *model);
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(report->loaded, 120);
  EXPECT_THAT(report->Summary(path), HasSubstr("fc: 1000 outputs in the file, 10 here"));
  EXPECT_TRUE(Tensors(*model).at("fc.weight").equal(Tensors(*fresh).at("fc.weight")));
  EXPECT_TRUE(Tensors(*model).at("conv1.weight").equal(Tensors(*source).at("conv1.weight")));
}

TEST_F(WeightsTest, AHeadOfOnesOwnDropsThePublishedOne) {
  config::ModelConfig published = Named("vgg11");
  const auto source = Filled(published);
  const std::string path = Safetensors(BytesOf(*source));
  config::ModelConfig config = Named("vgg11");
  config.head.replace = true;
  config.head.dense = {16};
  const auto model = MakeModel(config, kInput, 2);
  const auto report = LoadWeights(path, config, *model);
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(report->loaded, 16);  // Eight convolutions.
  EXPECT_THAT(report->Summary(path),
              AllOf(HasSubstr("head: dense"), HasSubstr("the file's head (6")));
  // A checkpoint that has this very head is loaded whole.
  const std::string own = Safetensors(BytesOf(*model));
  const auto again = LoadWeights(own, config, *MakeModel(config, kInput, 3));
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(again->loaded, 20);
  EXPECT_THAT(again->remade, IsEmpty());
}

TEST_F(WeightsTest, AnAuxiliaryHeadMayBeTooMuchOrMissing) {
  config::ModelConfig with = Named("inception_v3");
  with.auxiliary_loss_weight = 0.4;
  const InputShape large{3, 299, 299};
  const auto source = MakeModel(with, large, 1);
  const std::string both = Safetensors(BytesOf(*source));
  const config::ModelConfig without = Named("inception_v3");
  const auto dropped = LoadWeights(both, without, *MakeModel(without, large, 2));
  ASSERT_TRUE(dropped.ok()) << dropped.status();
  EXPECT_THAT(dropped->Summary(both), HasSubstr("auxiliary head, which is off"));
  const std::string trunk = Safetensors(BytesOf(*source, "AuxLogits"));
  const auto remade = LoadWeights(trunk, with, *MakeModel(with, large, 2));
  ASSERT_TRUE(remade.ok()) << remade.status();
  EXPECT_THAT(remade->Summary(trunk), HasSubstr("AuxLogits: the file has no"));
}

TEST_F(WeightsTest, OldFilesWithoutCountersOfBatchesAreFine) {
  const config::ModelConfig config = Named("resnet18");
  const std::string path = Safetensors(BytesOf(*Filled(config), "num_batches_tracked"));
  const auto report = LoadWeights(path, config, *MakeModel(config, kInput, 2));
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(report->loaded, 102);
}

TEST_F(WeightsTest, EveryDifferenceIsListed) {
  const std::string path = Safetensors(BytesOf(*Filled(Named("resnet34"))));
  EXPECT_THAT(Refusal(path, Named("resnet18")),
              AllOf(HasSubstr("not those of resnet18"), HasSubstr("unexpected (96)"),
                    HasSubstr("layer1.2.bn1.bias"), HasSubstr("and 76 more")));
  EXPECT_THAT(Refusal(path, Named("vgg11")),
              AllOf(HasSubstr("missing (22)"), HasSubstr("unexpected")));
  config::ModelConfig large = Named("resnet34");
  large.stem = "imagenet";
  EXPECT_THAT(Refusal(path, large),
              AllOf(HasSubstr("of another shape (1)"),
                    HasSubstr("conv1.weight is [64, 3, 3, 3], expected [64, 3, 7, 7]")));
}

TEST_F(WeightsTest, FilesThatAreNoWeightsAreCalledByTheirName) {
  const config::ModelConfig config = Named("resnet18");
  EXPECT_THAT(Refusal((folder_ / "nowhere.pth").string(), config), HasSubstr("no such file"));
  EXPECT_THAT(Refusal(Write("a", ""), config), HasSubstr("empty"));
  EXPECT_THAT(Refusal(Write("b", "\n<!DOCTYPE html><html>404</html>"), config),
              HasSubstr("web page"));
  EXPECT_THAT(Refusal(Write("c", "version https://git-lfs.github.com/spec/v1\noid"), config),
              HasSubstr("git lfs pull"));
  EXPECT_THAT(Refusal(Write("d", "\x89HDF\r\n\x1a\n12345"), config), HasSubstr("HDF5"));
  EXPECT_THAT(Refusal(Write("e", "some text that is nothing"), config), HasSubstr("neither"));
  EXPECT_THAT(Refusal(folder_.string(), config), HasSubstr("checkpoint's folder"));
  const std::string whole = Safetensors(BytesOf(*Filled(config)));
  fs::resize_file(whole, fs::file_size(whole) - 5);
  EXPECT_THAT(Refusal(whole, config), AllOf(HasSubstr("cut short"), HasSubstr(whole)));
}

TEST_F(WeightsTest, ACheckpointsFolderIsVerifiedAndRead) {
  const config::ModelConfig config = Named("resnet18");
  const auto source = Filled(config);
  CheckpointStore store(folder_ / "checkpoints", 1, {});
  ASSERT_TRUE(store.Open().ok());
  ASSERT_TRUE(store
                  .Commit(7, {.weights = BytesOf(*source), .optimizer = {}, .state_json = "{}"},
                          std::nullopt)
                  .ok());
  const fs::path checkpoint = store.PathOf(7);
  const auto model = MakeModel(config, kInput, 2);
  const auto report = LoadWeights(checkpoint.string() + "/", config, *model);
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(report->format, "checkpoint");
  EXPECT_TRUE(Tensors(*model).at("fc.bias").equal(Tensors(*source).at("fc.bias")));
  {
    std::fstream file(checkpoint / kWeightsFile, std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(-3, std::ios::end);
    file.put('x');
  }
  EXPECT_THAT(Refusal(checkpoint.string(), config), HasSubstr("weights.safetensors"));
}

}  // namespace
}  // namespace lockstep::trainer
