// Where a Session's model comes from, and what part of it trains: pretrained weights, cached
// features of the frozen trunk, unfreezing.
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "trainer/models/weights.h"
#include "trainer/pictures/cache_folder.h"
#include "trainer/session.h"

namespace lockstep::trainer {

using config::Phase;

void Session::LoadPretrained() {
  std::string problem;
  if (root() && !config_.model.pretrained.empty()) {
    const auto loaded = LoadWeights(config_.model.pretrained, config_.model, replica_->model());
    if (loaded.ok()) {
      Say(loaded->Summary(config_.model.pretrained));
    } else {
      problem = absl::StrCat("model.pretrained: ", loaded.status().message());
    }
  }
  problem = saver_->Share(problem);
  if (!problem.empty()) throw WrongConfig(problem);
  replica_->RestartAverage();
  replica_->Broadcast();
}

void Session::CacheFeatures() {
  const bool wanted = config_.model.feature_cache == config::Use::kAlways;
  std::string why = WhyNoFeatures(config_);
  if (why.empty() && !setup_.one_host) why = "the ranks are on several hosts";
  const std::string folder = CacheFolder(config_.data.cache_folder);
  if (why.empty() && folder.empty()) why = "no folder for caches: set data.cache_folder";
  if (why.empty()) {
    const PhaseScope phase(clock_, Phase::kEval);
    try {
      train_features_ = FeaturesOf(setup_.train_data, config_.model.feature_views);
      if (train_features_ && setup_.eval_data.size() > 0) {
        eval_features_ = FeaturesOf(setup_.eval_data, 1);
      }
    } catch (const NoFeatureCache& error) {
      why = error.what();
    }
  }
  if (!why.empty()) {
    train_features_.reset();
    eval_features_.reset();
    if (wanted) throw WrongConfig("model.feature_cache is always, but " + why);
    if (config_.model.freeze == "backbone") {
      Say("features are not cached, each epoch goes through the frozen trunk: " + why);
    }
    return;
  }
  if (train_features_) report_->FeatureCache(feature_report_);
}

std::optional<CachedFeatures> Session::FeaturesOf(const Dataset& pictures, int64_t views) {
  const auto leave = [this] {
    if (setup_.board != nullptr) setup_.board->CountCollective(setup_.communicator.rank());
    requests_.Add(control_->Together());
    return requests_.leave();
  };
  std::optional<CachedFeatures> features = OpenFeatures(
      {.config = config_,
       .model = replica_->model(),
       .dataset = pictures,
       .views = views,
       .folder = std::filesystem::path(CacheFolder(config_.data.cache_folder)) / "features",
       .device = setup_.device.torch(),
       .communicator = setup_.communicator,
       .leave = leave});
  if (!features) return features;
  const int64_t samples = pictures.size() * views;
  if (features->reused) {
    Say(absl::StrFormat("reusing cached features of %d pictures, which took %.1f s of rank time",
                        samples, features->rank_seconds));
    feature_report_.reused = true;
  } else {
    Say(
        absl::StrFormat("cached the features of %d pictures in %.1f s of rank time; each epoch is "
                        "spared as much",
                        samples, features->rank_seconds));
    feature_report_.computed_seconds += features->rank_seconds;
    feature_report_.saved_seconds -= features->rank_seconds;
  }
  return features;
}

void Session::CountSavedTime(double rank_seconds) {
  feature_report_.saved_seconds += rank_seconds;
  report_->FeatureCache(feature_report_);
}

bool Session::UnfreezeDue() const {
  return frozen_ && unfreeze_step_ > 0 && state_.step >= unfreeze_step_;
}

void Session::Unfreeze() {
  const PhaseScope phase(clock_, Phase::kOther);
  Learn(agreement_.Drain());  // It lies in the arena that goes.
  if (root()) AfterWrite(saver_->Settle(/*wait=*/true));
  replica_->Unfreeze();
  frozen_ = false;
  batches_.reset();
  train_features_.reset();
  eval_features_.reset();
  OpenBatches();
  Say(absl::StrCat("everything trains from step ", state_.step + 1, " on"));
}

}  // namespace lockstep::trainer
