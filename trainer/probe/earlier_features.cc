#include "trainer/probe/earlier_features.h"

#include <filesystem>
#include <memory>

#include "trainer/features/feature_cache.h"
#include "trainer/models/model.h"
#include "trainer/models/weights.h"
#include "trainer/pictures/cache_folder.h"

namespace lockstep::trainer {

bool HasEarlierFeatures(const config::RunConfig& config, const TrainingData& data,
                        const Device& device, Communicator& communicator) {
  const std::filesystem::path folder = CacheFolder(config.data.cache_folder);
  if (folder.empty()) return false;
  const InputShape input{data.train->channels(), data.train->height(), data.train->width()};
  const std::unique_ptr<Model> model = MakeModel(config.model, input, config.seed);
  if (!config.model.pretrained.empty() &&
      !LoadWeights(config.model.pretrained, config.model, *model).ok()) {
    return false;
  }
  const auto there = [&](const Dataset& pictures, int64_t views) {
    return FeaturesAreCached({.config = config,
                              .model = *model,
                              .dataset = pictures,
                              .views = views,
                              .folder = folder / "features",
                              .device = device.torch(),
                              .communicator = communicator,
                              .leave = {}});
  };
  return there(*data.train, config.model.feature_views) &&
         (data.eval->size() == 0 || there(*data.eval, 1));
}

}  // namespace lockstep::trainer
