#include "trainer/features/feature_cache.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/tensor.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <mutex>
#include <vector>

#include "tests/trainer/comm/run_ranks.h"
#include "tests/trainer/features/blobs.h"
#include "tests/trainer/pictures/temp_folder.h"
#include "trainer/batches/batches.h"

namespace lockstep::trainer {
namespace {

namespace fs = std::filesystem;

config::RunConfig SmallRun() {
  config::RunConfig config;
  config.name = "features";
  config.model.num_classes = 3;
  config.model.cnn.blocks = {{.filters = 4, .pool = config::Pool::kMax}, {.filters = 6}};
  config.model.cnn.global_pool = true;
  config.model.freeze = "backbone";
  return config;
}

std::unique_ptr<Model> FrozenModel(const config::RunConfig& config) {
  auto model = MakeModel(config.model, {3, 16, 16}, config.seed);
  model->Freeze(FrozenOperations(model->graph(), "backbone"));
  return model;
}

struct Asked {
  config::RunConfig config = SmallRun();
  int world_size = 1;
  int64_t views = 1;
  std::function<bool()> leave = [] { return false; };
  std::function<void(Model&)> change = [](Model&) {};
};

struct Got {
  bool reused = false;
  bool left = false;
  std::vector<std::vector<float>> rows;
};

// What rank 0 gets.
Got Ask(const fs::path& folder, const Dataset& pictures, const Asked& asked) {
  Got got;
  RunRanks(asked.world_size, [&](Communicator& communicator) {
    const auto model = FrozenModel(asked.config);
    asked.change(*model);
    const auto features = OpenFeatures({.config = asked.config,
                                        .model = *model,
                                        .dataset = pictures,
                                        .views = asked.views,
                                        .folder = folder,
                                        .communicator = communicator,
                                        .leave = asked.leave});
    if (communicator.rank() != 0) return;
    got.left = !features.has_value();
    if (!features) return;
    got.reused = features->reused;
    Sample sample;
    for (int64_t i = 0; i < features->dataset->size() * features->dataset->views(); ++i) {
      features->dataset->Read(i, sample);
      got.rows.push_back(sample.features);
    }
  });
  return got;
}

size_t Entries(const fs::path& folder) {
  return static_cast<size_t>(
      std::distance(fs::directory_iterator(folder), fs::directory_iterator()));
}

TEST(FeatureCacheTest, FeaturesAreWhatTheTrunkGives) {
  const TempFolder folder;
  const Blobs pictures(40);
  const Got got = Ask(folder.path(), pictures, {});
  ASSERT_EQ(got.rows.size(), 40u);
  const auto model = FrozenModel(SmallRun());
  BatchesOptions reading;
  reading.global_batch = 32;
  EvalBatches batches(pictures, reading);
  const at::NoGradGuard no_grad;
  const at::Tensor wanted = model->Features(batches.Next().images);
  for (int64_t i = 0; i < 32; ++i) {
    EXPECT_TRUE(at::tensor(got.rows[static_cast<size_t>(i)]).equal(wanted[i])) << i;
  }
}

TEST(FeatureCacheTest, ASecondRunReusesThem) {
  const TempFolder folder;
  const Blobs pictures(10);
  const Got first = Ask(folder.path(), pictures, {});
  const Got second = Ask(folder.path(), pictures, {});
  EXPECT_FALSE(first.reused);
  EXPECT_TRUE(second.reused);
  EXPECT_EQ(first.rows, second.rows);
  EXPECT_EQ(Entries(folder.path()), 1u);
}

TEST(FeatureCacheTest, AnyNumberOfRanksMakesTheSame) {
  const Blobs pictures(11);
  const TempFolder alone;
  const Got one = Ask(alone.path(), pictures, {});
  for (const int world_size : {2, 3}) {
    const TempFolder folder;
    const Got many = Ask(folder.path(), pictures, {.world_size = world_size});
    ASSERT_EQ(many.rows.size(), one.rows.size());
    for (size_t i = 0; i < one.rows.size(); ++i) {
      EXPECT_TRUE(at::tensor(many.rows[i]).allclose(at::tensor(one.rows[i]), 1e-5, 1e-6))
          << world_size << " ranks, sample " << i;
    }
  }
}

TEST(FeatureCacheTest, OtherWeightsOtherFeatures) {
  const TempFolder folder;
  const Blobs pictures(5);
  Ask(folder.path(), pictures, {});
  Asked other;
  other.change = [](Model& model) {
    const at::NoGradGuard no_grad;
    model.Parameters().front().tensor.view(-1)[0].add_(0.5);
  };
  EXPECT_FALSE(Ask(folder.path(), pictures, other).reused);
}

TEST(FeatureCacheTest, TheHeadsWeightsDoNotMatter) {
  const TempFolder folder;
  const Blobs pictures(5);
  Ask(folder.path(), pictures, {});
  Asked other;
  other.change = [](Model& model) {
    const at::NoGradGuard no_grad;
    model.Parameters().back().tensor.add_(0.5);
  };
  EXPECT_TRUE(Ask(folder.path(), pictures, other).reused);
}

TEST(FeatureCacheTest, OtherPicturesOrPreprocessingOtherFeatures) {
  const TempFolder folder;
  Ask(folder.path(), Blobs(5, "as it was"), {});
  EXPECT_FALSE(Ask(folder.path(), Blobs(5, "brought to another size"), {}).reused);
}

TEST(FeatureCacheTest, OtherPrecisionOtherFeatures) {
  const TempFolder folder;
  const Blobs pictures(5);
  Ask(folder.path(), pictures, {});
  Asked halves;
  halves.config.training.precision = config::Precision::kBf16;
  EXPECT_FALSE(Ask(folder.path(), pictures, halves).reused);
}

TEST(FeatureCacheTest, DamagedFeaturesAreMadeAnew) {
  const TempFolder folder;
  const Blobs pictures(5);
  const Got first = Ask(folder.path(), pictures, {});
  const fs::path entry = fs::directory_iterator(folder.path())->path();
  {
    std::fstream file(entry / "features.safetensors", std::ios::in | std::ios::out);
    file.seekp(-3, std::ios::end);
    file.put('x');
  }
  const Got second = Ask(folder.path(), pictures, {});
  EXPECT_FALSE(second.reused);
  EXPECT_EQ(first.rows, second.rows);
  EXPECT_TRUE(Ask(folder.path(), pictures, {}).reused);
}

TEST(FeatureCacheTest, ViewsAreAugmentedAsInTheirEpochs) {
  const TempFolder folder;
  const Blobs pictures(12);
  Asked asked;
  asked.config.data.augment.crop_padding = 4;
  asked.views = 3;
  const Got got = Ask(folder.path(), pictures, asked);
  ASSERT_EQ(got.rows.size(), 36u);
  int differ = 0;
  for (size_t i = 0; i < 12; ++i) differ += got.rows[i] != got.rows[i + 12];
  EXPECT_GT(differ, 6);
  asked.config.seed = 43;
  EXPECT_FALSE(Ask(folder.path(), pictures, asked).reused);
}

TEST(FeatureCacheTest, LeavingKeepsNothing) {
  const TempFolder folder;
  Asked asked;
  asked.leave = [] { return true; };
  EXPECT_TRUE(Ask(folder.path(), Blobs(5), asked).left);
  EXPECT_EQ(Entries(folder.path()), 0u);
}

TEST(FeatureCacheTest, AFolderThatCannotBeUsedIsToldToAllRanks) {
  const TempFolder folder;
  std::ofstream(folder.path() / "file") << "not a folder";
  std::mutex mutex;
  int told = 0;
  RunRanks(2, [&](Communicator& communicator) {
    const config::RunConfig config = SmallRun();
    const auto model = FrozenModel(config);
    const Blobs pictures(5);
    try {
      OpenFeatures({.config = config,
                    .model = *model,
                    .dataset = pictures,
                    .folder = folder.path() / "file",
                    .communicator = communicator,
                    .leave = [] { return false; }});
    } catch (const NoFeatureCache& error) {
      const std::scoped_lock lock(mutex);
      ++told;
    }
  });
  EXPECT_EQ(told, 2);
}

// Rank 1 alone reads the odd samples; rank 0 knows nothing of its trouble.
class OneBadSample final : public Dataset {
 public:
  int64_t size() const override { return good_.size(); }
  int width() const override { return good_.width(); }
  int height() const override { return good_.height(); }
  int channels() const override { return good_.channels(); }
  const std::vector<std::string>& classes() const override { return good_.classes(); }
  const Preprocessing& preprocessing() const override { return good_.preprocessing(); }
  std::string Fingerprint() const override { return "one bad sample"; }
  void Read(int64_t index, Sample& sample) const override {
    if (index == 3) throw DataError("3.jpg: went away");
    good_.Read(index, sample);
  }

 private:
  Blobs good_{8};
};

TEST(FeatureCacheTest, ABadSampleIsNoReasonToGoOnWithoutACache) {
  const TempFolder folder;
  int data_errors = 0;
  std::mutex mutex;
  EXPECT_THROW(RunRanks(2,
                        [&](Communicator& communicator) {
                          const config::RunConfig config = SmallRun();
                          const auto model = FrozenModel(config);
                          const auto leave = [&] {
                            communicator.Barrier();  // As the ranks' vote.
                            return false;
                          };
                          try {
                            OpenFeatures({.config = config,
                                          .model = *model,
                                          .dataset = OneBadSample(),
                                          .folder = folder.path(),
                                          .communicator = communicator,
                                          .leave = leave});
                          } catch (const NoFeatureCache&) {
                            // The other rank would wait for this one.
                          } catch (const DataError&) {
                            const std::scoped_lock lock(mutex);
                            ++data_errors;
                            throw;
                          }
                        }),
               std::runtime_error);
  EXPECT_EQ(data_errors, 1);
}

TEST(WhyNoFeaturesTest, TellsWhatForbidsThem) {
  config::RunConfig config = SmallRun();
  EXPECT_EQ(WhyNoFeatures(config), "");
  config.data.augment.horizontal_flip = true;
  EXPECT_THAT(WhyNoFeatures(config), testing::HasSubstr("model.feature_views above 1"));
  config.model.feature_views = 4;
  EXPECT_EQ(WhyNoFeatures(config), "");
  config.data.augment.mixup = 0.2;
  EXPECT_THAT(WhyNoFeatures(config), testing::HasSubstr("mixup"));
  config.model.freeze = "3 layers";
  EXPECT_THAT(WhyNoFeatures(config), testing::HasSubstr("freeze"));
}

}  // namespace
}  // namespace lockstep::trainer
