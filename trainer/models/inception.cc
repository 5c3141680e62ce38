#include "trainer/models/inception.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "trainer/models/dense_head.h"
#include "trainer/models/graph_builder.h"

namespace lockstep::trainer {
namespace {

constexpr double kEpsilon = 1e-3;
// torchvision draws from a normal distribution cut at -2 and 2, which are twenty deviations away:
// no cut at all.
constexpr double kDeviation = 0.1;
constexpr double kAuxiliaryDeviation = 1e-3;
constexpr int kSmallest = 75;
constexpr int kSmallestWithAuxiliary = 299;

// The paper's modules. Each method adds one and returns its value.
class Inception {
 public:
  Inception(GraphBuilder& builder, int num_classes)
      : builder_(builder), num_classes_(num_classes) {}

  int Stem();
  int ModuleA(int x, const std::string& name, int pool_channels);
  int ModuleB(int x, const std::string& name);
  int ModuleC(int x, const std::string& name, int channels);
  int ModuleD(int x, const std::string& name);
  int ModuleE(int x, const std::string& name);
  int AuxiliaryLogits(int x);

 private:
  struct Shape {
    int out = 0;
    Extent2d kernel{1, 1};
    int stride = 1;
    Extent2d padding{0, 0};
  };
  int Conv(int x, const std::string& name, const Shape& shape) {
    x = builder_.Conv(x, name + ".conv",
                      {.out = shape.out,
                       .kernel = shape.kernel,
                       .stride = {shape.stride, shape.stride},
                       .padding = shape.padding,
                       .initial_deviation = kDeviation});
    return builder_.Activate(builder_.BatchNorm(x, name + ".bn", kEpsilon), OpKind::kRelu);
  }
  int Conv1x1(int x, const std::string& name, int out) { return Conv(x, name, {.out = out}); }
  int Conv3x3(int x, const std::string& name, int out) {
    return Conv(x, name, {.out = out, .kernel = {3, 3}, .padding = {1, 1}});
  }
  int Conv1x3(int x, const std::string& name, int out) {
    return Conv(x, name, {.out = out, .kernel = {1, 3}, .padding = {0, 1}});
  }
  int Conv3x1(int x, const std::string& name, int out) {
    return Conv(x, name, {.out = out, .kernel = {3, 1}, .padding = {1, 0}});
  }
  int Conv1x7(int x, const std::string& name, int out) {
    return Conv(x, name, {.out = out, .kernel = {1, 7}, .padding = {0, 3}});
  }
  int Conv7x1(int x, const std::string& name, int out) {
    return Conv(x, name, {.out = out, .kernel = {7, 1}, .padding = {3, 0}});
  }
  // 3x3 with stride 2 and no padding.
  int Halve(int x, const std::string& name, int out) {
    return Conv(x, name, {.out = out, .kernel = {3, 3}, .stride = 2});
  }
  int HalvePool(int x) { return builder_.MaxPool(x, {.kernel = 3, .stride = 2}); }
  int PoolBranch(int x, const std::string& name, int out) {
    return Conv1x1(builder_.AvgPool(x, {.kernel = 3, .stride = 1, .padding = 1}),
                   name + ".branch_pool", out);
  }

  GraphBuilder& builder_;
  int num_classes_;
};

int Inception::Stem() {
  int x = Halve(builder_.input(), "Conv2d_1a_3x3", 32);
  x = Conv(x, "Conv2d_2a_3x3", {.out = 32, .kernel = {3, 3}});
  x = HalvePool(Conv3x3(x, "Conv2d_2b_3x3", 64));
  x = Conv1x1(x, "Conv2d_3b_1x1", 80);
  return HalvePool(Conv(x, "Conv2d_4a_3x3", {.out = 192, .kernel = {3, 3}}));
}

int Inception::ModuleA(int x, const std::string& name, int pool_channels) {
  const int one = Conv1x1(x, name + ".branch1x1", 64);
  int five = Conv1x1(x, name + ".branch5x5_1", 48);
  five = Conv(five, name + ".branch5x5_2", {.out = 64, .kernel = {5, 5}, .padding = {2, 2}});
  int three = Conv1x1(x, name + ".branch3x3dbl_1", 64);
  three = Conv3x3(three, name + ".branch3x3dbl_2", 96);
  three = Conv3x3(three, name + ".branch3x3dbl_3", 96);
  return builder_.Concat({one, five, three, PoolBranch(x, name, pool_channels)});
}

int Inception::ModuleB(int x, const std::string& name) {
  const int single = Halve(x, name + ".branch3x3", 384);
  int twice = Conv1x1(x, name + ".branch3x3dbl_1", 64);
  twice = Conv3x3(twice, name + ".branch3x3dbl_2", 96);
  twice = Halve(twice, name + ".branch3x3dbl_3", 96);
  return builder_.Concat({single, twice, HalvePool(x)});
}

int Inception::ModuleC(int x, const std::string& name, int channels) {
  const int one = Conv1x1(x, name + ".branch1x1", 192);
  int seven = Conv1x1(x, name + ".branch7x7_1", channels);
  seven = Conv1x7(seven, name + ".branch7x7_2", channels);
  seven = Conv7x1(seven, name + ".branch7x7_3", 192);
  int twice = Conv1x1(x, name + ".branch7x7dbl_1", channels);
  twice = Conv7x1(twice, name + ".branch7x7dbl_2", channels);
  twice = Conv1x7(twice, name + ".branch7x7dbl_3", channels);
  twice = Conv7x1(twice, name + ".branch7x7dbl_4", channels);
  twice = Conv1x7(twice, name + ".branch7x7dbl_5", 192);
  return builder_.Concat({one, seven, twice, PoolBranch(x, name, 192)});
}

int Inception::ModuleD(int x, const std::string& name) {
  const int three = Halve(Conv1x1(x, name + ".branch3x3_1", 192), name + ".branch3x3_2", 320);
  int seven = Conv1x1(x, name + ".branch7x7x3_1", 192);
  seven = Conv1x7(seven, name + ".branch7x7x3_2", 192);
  seven = Conv7x1(seven, name + ".branch7x7x3_3", 192);
  seven = Halve(seven, name + ".branch7x7x3_4", 192);
  return builder_.Concat({three, seven, HalvePool(x)});
}

int Inception::ModuleE(int x, const std::string& name) {
  const int one = Conv1x1(x, name + ".branch1x1", 320);
  const int three = Conv1x1(x, name + ".branch3x3_1", 384);
  const int three_a = Conv1x3(three, name + ".branch3x3_2a", 384);
  const int three_b = Conv3x1(three, name + ".branch3x3_2b", 384);
  const int twice =
      Conv3x3(Conv1x1(x, name + ".branch3x3dbl_1", 448), name + ".branch3x3dbl_2", 384);
  const int twice_a = Conv1x3(twice, name + ".branch3x3dbl_3a", 384);
  const int twice_b = Conv3x1(twice, name + ".branch3x3dbl_3b", 384);
  return builder_.Concat({one, three_a, three_b, twice_a, twice_b, PoolBranch(x, name, 192)});
}

int Inception::AuxiliaryLogits(int x) {
  x = Conv1x1(builder_.AvgPool(x, {.kernel = 5, .stride = 3}), "AuxLogits.conv0", 128);
  x = Conv(x, "AuxLogits.conv1", {.out = 768, .kernel = {5, 5}});
  return builder_.Linear(builder_.GlobalAverage(x), "AuxLogits.fc",
                         {.out = num_classes_, .initial_deviation = kAuxiliaryDeviation});
}

}  // namespace

Graph BuildInceptionV3(const config::ModelConfig& config, const InputShape& input) {
  CheckPictureSize(input, kSmallest, "inception_v3");
  const bool auxiliary = config.auxiliary_loss_weight > 0;
  if (auxiliary) {
    CheckPictureSize(input, kSmallestWithAuxiliary, "inception_v3 with its auxiliary head",
                     "model.auxiliary_loss_weight: 0");
  }
  GraphBuilder builder(input, "model.name: inception_v3");
  Inception modules(builder, config.num_classes);
  int x = modules.Stem();
  x = modules.ModuleA(x, "Mixed_5b", 32);
  x = modules.ModuleA(x, "Mixed_5c", 64);
  x = modules.ModuleA(x, "Mixed_5d", 64);
  x = modules.ModuleB(x, "Mixed_6a");
  x = modules.ModuleC(x, "Mixed_6b", 128);
  x = modules.ModuleC(x, "Mixed_6c", 160);
  x = modules.ModuleC(x, "Mixed_6d", 160);
  x = modules.ModuleC(x, "Mixed_6e", 192);
  if (auxiliary) builder.SetAuxiliary(modules.AuxiliaryLogits(x));
  x = modules.ModuleD(x, "Mixed_7a");
  x = modules.ModuleE(x, "Mixed_7b");
  x = modules.ModuleE(x, "Mixed_7c");
  if (config.head.replace) return FinishWithDenseHead(builder, x, config);
  const int features = builder.GlobalAverage(x);
  const int logits = builder.Linear(builder.Dropout(features, 0.5), "fc",
                                    {.out = config.num_classes, .initial_deviation = kDeviation});
  return builder.Finish(features, logits);
}

}  // namespace lockstep::trainer
