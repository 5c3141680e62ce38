#include "trainer/data/shapes.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <set>

#include "trainer/pictures/counter_rng.h"

namespace lockstep::trainer {
namespace {

TEST(Shapes, ASampleIsAFunctionOfSeedSplitAndIndex) {
  const auto pixels = [](uint64_t seed, Split split, int64_t index) {
    Sample sample;
    MakeShapes({.seed = seed, .split = split, .count = 100})->Read(index, sample);
    return sample.picture.pixels;
  };
  const auto reference = pixels(1, Split::kTrain, 5);
  EXPECT_EQ(pixels(1, Split::kTrain, 5), reference);
  EXPECT_NE(pixels(2, Split::kTrain, 5), reference);
  EXPECT_NE(pixels(1, Split::kEval, 5), reference);
  EXPECT_NE(pixels(1, Split::kTrain, 6), reference);
}

TEST(Shapes, PicturesHaveTheirPublishedBits) {
  // FNV-1a over the pixels and labels of 20 pictures. When this changes, resumed runs see other
  // pictures than before.
  uint64_t hash = 0xcbf29ce484222325;
  const auto shapes = MakeShapes({.seed = 42, .count = 20});
  Sample sample;
  for (int64_t i = 0; i < 20; ++i) {
    shapes->Read(i, sample);
    sample.picture.pixels.push_back(static_cast<uint8_t>(sample.label));
    for (const uint8_t byte : sample.picture.pixels) hash = (hash ^ byte) * 0x100000001b3;
  }
  EXPECT_EQ(hash, 0x1716f0459e2a2855u);
}

TEST(Shapes, ClassesComeAboutEquallyOften) {
  const auto shapes = MakeShapes({.seed = 3, .size = 8, .count = 4000});
  ASSERT_EQ(shapes->classes().size(), 8u);
  std::array<int, 8> counts{};
  Sample sample;
  for (int64_t i = 0; i < 4000; ++i) {
    shapes->Read(i, sample);
    ++counts.at(static_cast<size_t>(sample.label));
  }
  for (const int count : counts) EXPECT_NEAR(count, 500, 105);  // Five standard deviations.
}

TEST(Shapes, SizeAndCountAreThoseAskedForAndBounded) {
  const auto shapes = MakeShapes({.size = 48, .count = 3});
  Sample sample;
  shapes->Read(2, sample);
  EXPECT_EQ(sample.picture.width, 48);
  EXPECT_EQ(sample.picture.height, 48);
  EXPECT_EQ(sample.picture.pixels.size(), 48u * 48 * 3);
  EXPECT_EQ(shapes->size(), 3);
  EXPECT_THROW(shapes->Read(3, sample), DataError);
  EXPECT_THROW(MakeShapes({.size = 4}), DataError);
  EXPECT_THROW(MakeShapes({.size = 5000}), DataError);
  EXPECT_THROW(MakeShapes({.count = 0}), DataError);
}

// Multinomial logistic regression on the pixels by plain stochastic gradient descent.
class LinearModel {
 public:
  LinearModel(size_t inputs, size_t classes)
      : inputs_(inputs), classes_(classes), weights_((inputs + 1) * classes, 0.0f) {}

  int64_t Predict(const std::vector<float>& x) const {
    const auto scores = Scores(x);
    return std::max_element(scores.begin(), scores.end()) - scores.begin();
  }

  void Learn(const std::vector<float>& x, int64_t label, float rate) {
    auto scores = Scores(x);
    const float top = *std::max_element(scores.begin(), scores.end());
    float sum = 0;
    for (float& score : scores) sum += score = std::exp(score - top);
    for (size_t c = 0; c < classes_; ++c) {
      const float error = scores[c] / sum - (static_cast<int64_t>(c) == label ? 1.0f : 0.0f);
      float* row = &weights_[c * (inputs_ + 1)];
      for (size_t i = 0; i < inputs_; ++i) row[i] -= rate * error * x[i];
      row[inputs_] -= rate * error;
    }
  }

 private:
  std::vector<float> Scores(const std::vector<float>& x) const {
    std::vector<float> scores(classes_);
    for (size_t c = 0; c < classes_; ++c) {
      const float* row = &weights_[c * (inputs_ + 1)];
      scores[c] = std::inner_product(x.begin(), x.end(), row, row[inputs_]);
    }
    return scores;
  }

  size_t inputs_;
  size_t classes_;
  std::vector<float> weights_;  // Per class: one per input, then the bias.
};

std::vector<float> Features(const Picture& picture) {
  std::vector<float> x;
  x.reserve(picture.pixels.size());
  for (const uint8_t byte : picture.pixels) {
    x.push_back((static_cast<float>(byte) / 255.0f - 0.5f) / 0.25f);
  }
  return x;
}

TEST(Shapes, ALinearModelFails) {
  constexpr int64_t kTrain = 2000;
  constexpr int64_t kEval = 600;
  const auto train = MakeShapes({.seed = 1, .count = kTrain});
  const auto eval = MakeShapes({.seed = 1, .split = Split::kEval, .count = kEval});
  LinearModel model(32 * 32 * 3, 8);
  Sample sample;
  for (int epoch = 0; epoch < 4; ++epoch) {
    for (int64_t i = 0; i < kTrain; ++i) {
      train->Read(i, sample);
      model.Learn(Features(sample.picture), sample.label, 2e-4f / static_cast<float>(1 + epoch));
    }
  }
  const auto accuracy = [&](const Dataset& dataset, int64_t count) {
    int64_t correct = 0;
    for (int64_t i = 0; i < count; ++i) {
      dataset.Read(i, sample);
      correct += model.Predict(Features(sample.picture)) == sample.label ? 1 : 0;
    }
    return static_cast<double>(correct) / static_cast<double>(count);
  };
  const double seen = accuracy(*train, kEval);
  const double unseen = accuracy(*eval, kEval);
  RecordProperty("train_accuracy", std::to_string(seen));
  RecordProperty("eval_accuracy", std::to_string(unseen));
  // It does learn its training pictures by heart to some degree, so it is no broken model; chance
  // is 12.5 %.
  EXPECT_GT(seen, 0.25);
  EXPECT_LT(unseen, 0.30);
}

}  // namespace
}  // namespace lockstep::trainer
