#include "trainer/step/gradient_arena.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>

#include "tests/trainer/comm/run_ranks.h"
#include "tests/trainer/step/small_net.h"

namespace lockstep::trainer {
namespace {

class GradientArenaTest : public ::testing::Test {
 protected:
  GradientArenaTest() : communicator_(std::move(MakeThreadCommunicators(1)[0])) {}

  void Backward(SmallNet& net) {
    const SmallBatch batch = BatchOf(0);
    torch::nn::functional::cross_entropy(net.forward(batch.pictures), batch.labels).backward();
  }

  std::unique_ptr<Communicator> communicator_;
};

TEST_F(GradientArenaTest, KeepsTheValues) {
  SmallNet net(/*batch_norm=*/true);
  SmallNet same(/*batch_norm=*/true);
  same.norm->running_mean.fill_(3.0);
  net.norm->running_mean.fill_(3.0);
  const GradientArena arena(net.Parameters(), net.Buffers(), 5, *communicator_);
  for (const auto& item : same.named_parameters()) {
    EXPECT_TRUE(net.named_parameters()[item.key()].equal(item.value())) << item.key();
  }
  for (const auto& item : same.named_buffers()) {
    EXPECT_TRUE(net.named_buffers()[item.key()].equal(item.value())) << item.key();
  }
  const SmallBatch batch = BatchOf(0);
  EXPECT_LE(RelativeDifference(net.forward(batch.pictures), same.forward(batch.pictures)), 1e-6);
}

TEST_F(GradientArenaTest, EntriesAreAlignedAndTheSlicesCoverThemByDimensions) {
  SmallNet net(/*batch_norm=*/true);
  const GradientArena arena(net.Parameters(), net.Buffers(), 5, *communicator_);
  ASSERT_EQ(arena.slices().size(), 2u);
  EXPECT_TRUE(arena.slices()[0].decay);
  EXPECT_FALSE(arena.slices()[1].decay);
  EXPECT_EQ(arena.slices()[0].offset, 0);
  EXPECT_EQ(arena.slices()[1].offset, arena.slices()[0].size);
  EXPECT_EQ(arena.slices()[1].offset + arena.slices()[1].size, arena.parameters().numel());
  std::set<std::string> names;
  int64_t end = 0;
  for (const auto& entry : arena.entries()) {
    EXPECT_EQ(entry.offset % 16, 0) << entry.name;
    EXPECT_GE(entry.offset, end) << entry.name;
    end = entry.offset + c10::multiply_integers(entry.sizes);
    EXPECT_EQ(entry.offset < arena.slices()[0].size, entry.sizes.size() >= 2) << entry.name;
    names.insert(entry.name);
  }
  EXPECT_EQ(names.size(), net.parameters().size());
  EXPECT_TRUE(net.conv2->weight.is_contiguous(at::MemoryFormat::ChannelsLast));
}

TEST_F(GradientArenaTest, ViewsStayInPlaceOverBackwardAndZero) {
  SmallNet net(/*batch_norm=*/true);
  GradientArena arena(net.Parameters(), net.Buffers(), 5, *communicator_);
  const auto places = [&net] {
    std::map<std::string, std::pair<const void*, const void*>> places;
    for (const auto& item : net.named_parameters()) {
      places[item.key()] = {item.value().const_data_ptr(), item.value().grad().const_data_ptr()};
    }
    return places;
  };
  const auto before = places();
  const auto* first = arena.gradients().const_data_ptr<float>();
  for (const auto& [name, place] : before) {
    const auto* gradient = static_cast<const float*>(place.second);
    EXPECT_TRUE(gradient >= first && gradient < first + arena.gradients().numel()) << name;
  }
  for (int step = 0; step < 3; ++step) {
    arena.ZeroGradients();
    EXPECT_EQ(arena.gradients().count_nonzero().item<int64_t>(), 0);
    Backward(net);
    EXPECT_EQ(places(), before);
    EXPECT_GT(net.conv1->weight.grad().abs().sum().item<float>(), 0.0f);
  }
  double named = 0;
  for (const at::Tensor& p : net.parameters()) named += p.grad().square().sum().item<double>();
  EXPECT_NEAR(named, arena.gradients().square().sum().item<double>(), 1e-6 * named);
}

TEST_F(GradientArenaTest, ViewsOfAFlatTensorRoundTrip) {
  SmallNet net(/*batch_norm=*/false);
  const GradientArena arena(net.Parameters(), net.Buffers(), 5, *communicator_);
  const at::Tensor flat = at::zeros_like(arena.parameters());
  const NamedTensors views = arena.Views(flat, "exp_avg.");
  ASSERT_EQ(views.size(), net.parameters().size());
  for (const NamedTensor& view : views) {
    const at::Tensor parameter = net.named_parameters()[view.name.substr(8)].detach();
    EXPECT_EQ(view.tensor.sizes(), parameter.sizes());
    EXPECT_EQ(view.tensor.strides(), parameter.strides());
    view.tensor.copy_(parameter);
  }
  EXPECT_TRUE(flat.equal(arena.parameters()));
}

TEST_F(GradientArenaTest, ClipEqualsTorchsClipGradNorm) {
  for (const double bound : {0.05, 1e6}) {
    SmallNet ours(/*batch_norm=*/false);
    SmallNet theirs(/*batch_norm=*/false);
    GradientArena arena(ours.Parameters(), ours.Buffers(), 1, *communicator_);
    arena.ZeroGradients();
    Backward(ours);
    Backward(theirs);
    arena.Reduce(1.0);
    const double norm = torch::nn::utils::clip_grad_norm_(theirs.parameters(), bound);
    arena.ClipNorm(bound);
    EXPECT_NEAR(arena.gradient_norm().item<double>(), norm, 1e-6 * norm) << "as before the clip";
    for (size_t i = 0; i < theirs.parameters().size(); ++i) {
      EXPECT_LE(RelativeDifference(ours.parameters()[i].grad(), theirs.parameters()[i].grad()),
                1e-5);
    }
  }
}

TEST_F(GradientArenaTest, NormOfManyElementsIsExactAndLargeOnesAreFinite) {
  at::Tensor weight = torch::zeros({1000, 333}).set_requires_grad(true);
  GradientArena arena({{"weight", weight}}, {}, 1, *communicator_);
  const at::Tensor gradient = torch::randn({1000, 333});
  weight.grad().copy_(gradient);
  arena.Reduce(1.0);
  const double exact = gradient.to(at::kDouble).norm().item<double>();
  EXPECT_NEAR(arena.gradient_norm().item<double>(), exact, 1e-6 * exact);
  // Squares of these overflow float32.
  weight.grad().fill_(1e30f);
  arena.Reduce(1.0);
  EXPECT_EQ(arena.found_nonfinite().item<float>(), 0.0f);
  EXPECT_NEAR(arena.gradient_norm().item<double>(), 1e30 * std::sqrt(333000.0), 1e27);
  weight.grad()[999][332] = -INFINITY;
  arena.Reduce(1.0);
  EXPECT_EQ(arena.found_nonfinite().item<float>(), 1.0f);
}

TEST_F(GradientArenaTest, RefusesWhatItCannotHold) {
  const auto make = [&](at::Tensor tensor) {
    GradientArena arena({{"odd", std::move(tensor)}}, {}, 1, *communicator_);
  };
  EXPECT_THROW(make(torch::zeros({2, 2}, at::kDouble).set_requires_grad(true)),
               std::invalid_argument);
  EXPECT_THROW(make(torch::zeros({2, 2})), std::invalid_argument) << "needs no gradient";
  at::Tensor twice = torch::zeros({2, 2}).set_requires_grad(true);
  EXPECT_THROW(GradientArena({{"a", twice}, {"b", twice}}, {}, 1, *communicator_),
               std::invalid_argument);
}

TEST_F(GradientArenaTest, BuffersReadFromACheckpointSurviveANonfiniteStep) {
  SmallNet net(/*batch_norm=*/true);
  GradientArena arena(net.Parameters(), net.Buffers(), 1, *communicator_);
  net.norm->running_mean.fill_(4.0);  // As a resume does, into the module's own buffer.
  arena.ZeroGradients();
  Backward(net);
  arena.step_vector().fill_(NAN);
  arena.Reduce(1.0);
  EXPECT_TRUE(net.norm->running_mean.eq(4.0).all().item<bool>());
}

// Counts what is sent, and when.
class CountingCommunicator : public Communicator {
 public:
  explicit CountingCommunicator(Communicator& inner) : inner_(inner) {}
  int rank() const override { return inner_.rank(); }
  int size() const override { return inner_.size(); }
  at::Tensor Allocate(int64_t elements) override { return inner_.Allocate(elements); }
  void AllReduce(const at::Tensor& tensor) override {
    if (fail) throw CommunicatorLost("rank 9 is gone");
    sizes.push_back(tensor.numel());
    inner_.AllReduce(tensor);
  }
  void Wait() override { inner_.Wait(); }
  void Broadcast(const at::Tensor& tensor, int root) override { inner_.Broadcast(tensor, root); }
  void Barrier() override { inner_.Barrier(); }
  std::string Describe() const override { return "counting " + inner_.Describe(); }
  void Abort(std::string_view reason) noexcept override { inner_.Abort(reason); }

  std::vector<int64_t> sizes;
  bool fail = false;

 private:
  Communicator& inner_;
};

class OverlapTest : public GradientArenaTest {
 protected:
  OverlapTest()
      : counting_(*communicator_),
        net_(/*batch_norm=*/true),
        arena_(net_.Parameters(), net_.Buffers(), 1, counting_,
               {.first_bucket_bytes = 64, .bucket_bytes = 400, .overlap = true}) {}

  int64_t SentElements() const {
    return std::accumulate(counting_.sizes.begin(), counting_.sizes.end(), int64_t{0});
  }

  CountingCommunicator counting_;
  SmallNet net_;
  GradientArena arena_;
};

TEST_F(OverlapTest, SendsEveryBucketDuringTheLastBackward) {
  arena_.ZeroGradients();
  Backward(net_);
  EXPECT_TRUE(counting_.sizes.empty()) << "not in an earlier micro-batch";
  arena_.BeginLastBackward();
  Backward(net_);
  const size_t during = counting_.sizes.size();
  EXPECT_GE(during, 3u);
  EXPECT_GT(SentElements(), arena_.gradients().numel() * 9 / 10);
  arena_.Reduce(1.0);
  EXPECT_EQ(counting_.sizes.size(), during + 1) << "the rest rides with the last bucket";
  EXPECT_EQ(SentElements() * int64_t{sizeof(float)}, arena_.reduced_bytes()) << "each once";
}

TEST_F(OverlapTest, SendsWhatBackwardDidNotReachInReduce) {
  arena_.ZeroGradients();
  arena_.BeginLastBackward();
  net_.dense->forward(torch::ones({1, 108})).sum().backward();
  EXPECT_LT(SentElements(), arena_.gradients().numel());
  arena_.Reduce(1.0);
  EXPECT_EQ(SentElements() * int64_t{sizeof(float)}, arena_.reduced_bytes());
  EXPECT_EQ(net_.dense->bias.grad().sum().item<float>(), 5.0f);
}

TEST_F(OverlapTest, BucketsLeaveInTheOrderThatTheFirstBackwardFilledThem) {
  // Told in the wrong order: backward fills first what the arena expects last.
  SmallNet net(/*batch_norm=*/false);
  NamedTensors backwards = net.Parameters();
  std::reverse(backwards.begin(), backwards.end());
  GradientArena arena(backwards, {}, 1, counting_,
                      {.first_bucket_bytes = 4, .bucket_bytes = 4, .overlap = true});
  const auto sent_by_a_step = [&] {
    counting_.sizes.clear();
    arena.ZeroGradients();
    arena.BeginLastBackward();
    Backward(net);
    arena.Reduce(1.0);
    return counting_.sizes;
  };
  const int64_t dense_weight = 5 * 108 + 4;  // Padded to a multiple of 16.
  const std::vector<int64_t> first = sent_by_a_step();
  const std::vector<int64_t> second = sent_by_a_step();
  const auto place = [&](const std::vector<int64_t>& sizes) {
    return std::find(sizes.begin(), sizes.end(), dense_weight) - sizes.begin();
  };
  EXPECT_GE(place(first), 4) << "of six buckets";
  EXPECT_LE(place(second), 1) << "the last layer's gradient is there first";
  const auto sum = [](const auto& sizes) { return std::accumulate(sizes.begin(), sizes.end(), 0); };
  EXPECT_EQ(sum(first), sum(second)) << "everything once";
  EXPECT_EQ(sent_by_a_step(), second);
}

TEST_F(OverlapTest, ALostRankComesOutOfBackwardAsItself) {
  arena_.ZeroGradients();
  arena_.BeginLastBackward();
  counting_.fail = true;
  EXPECT_THROW(Backward(net_), CommunicatorLost);
}

TEST_F(OverlapTest, HooksGoWithTheArena) {
  SmallNet net(/*batch_norm=*/false);
  {
    GradientArena arena(net.Parameters(), net.Buffers(), 1, counting_, {.overlap = true});
    arena.BeginLastBackward();
  }
  Backward(net);
  EXPECT_TRUE(counting_.sizes.empty());
}

}  // namespace
}  // namespace lockstep::trainer
