#include "trainer/export/onnx_preprocessing.h"

#include <vector>

namespace lockstep::trainer {
namespace {

constexpr double kOne = 1 << 14;  // As in trainer/pictures/resize.cc.

constexpr int64_t kToDouble = static_cast<int64_t>(OnnxType::kDouble);
constexpr int64_t kToFloat = static_cast<int64_t>(OnnxType::kFloat);

constexpr auto kInt64 = OnnxType::kInt64;

// One side of the resize, as in trainer/pictures/resize.cc: all of it would become `new_size`
// pixels, of which `count` from `first` on are made. Names of int64 scalars.
struct Side {
  std::string old_size;
  std::string new_size;
  std::string first;
  int count = 0;
};

class Resizer {
 public:
  explicit Resizer(OnnxGraph& graph) : graph_(graph) {}

  std::string Binary(const char* operation, const std::string& a, const std::string& b) {
    return graph_.Add(operation, {a, b});
  }
  std::string Whole(int64_t value) { return graph_.Scalar(kInt64, static_cast<double>(value)); }
  std::string Number(double value) { return graph_.Scalar(OnnxType::kDouble, value); }
  std::string ToDouble(const std::string& a) {
    return graph_.Add("Cast", {a}, {{"to", kToDouble}});
  }

  /// [count, old_size], float32, every row whole numbers that sum to 2^14: MakeFilter() of
  /// resize.cc, in double as there.
  std::string Filter(const Side& side) {
    const std::string scale = Binary("Div", ToDouble(side.old_size), ToDouble(side.new_size));
    std::vector<double> middles;
    middles.reserve(static_cast<size_t>(side.count));
    for (int i = 0; i < side.count; ++i) middles.push_back(i + 0.5);
    const std::string places = graph_.Constant(OnnxType::kDouble, {side.count, 1}, middles);
    const std::string middle = Binary("Mul", Binary("Add", ToDouble(side.first), places), scale);
    const std::string reach = Binary("Max", scale, Number(1));
    const std::string indices = graph_.Add("Range", {Whole(0), side.old_size, Whole(1)});
    const std::string old_middle = Binary("Add", ToDouble(indices), Number(0.5));  // [old_size]
    const std::string distance = graph_.Add("Abs", {Binary("Sub", old_middle, middle)});
    const std::string share =
        Binary("Max", Binary("Sub", Number(1), Binary("Div", distance, reach)), Number(0));
    const std::string scaled = Binary("Mul", Binary("Div", share, SumOfRows(share)), Number(kOne));
    const std::string weights = graph_.Add("Floor", {Binary("Add", scaled, Number(0.5))});
    // What rounding lost or won goes to the heaviest, the first of equal ones.
    const std::string left = Binary("Sub", Number(kOne), SumOfRows(weights));
    const std::string heaviest =
        graph_.Add("ArgMax", {weights}, {{"axis", int64_t{1}}, {"keepdims", int64_t{1}}});
    const std::string is_heaviest = ToDouble(Binary("Equal", indices, heaviest));
    const std::string filter = Binary("Add", weights, Binary("Mul", is_heaviest, left));
    return graph_.Add("Cast", {filter}, {{"to", kToFloat}});
  }

 private:
  std::string SumOfRows(const std::string& matrix) {
    return graph_.Add("ReduceSum", {matrix, graph_.Integers({1})}, {{"keepdims", int64_t{1}}});
  }

  OnnxGraph& graph_;
};

// Sums of byte x weight to bytes: (sum + 2^13) >> 14.
std::string AddRounding(OnnxGraph& graph, const std::string& sums) {
  const std::string half = graph.Scalar(OnnxType::kFloat, kOne / 2);
  const std::string one = graph.Scalar(OnnxType::kFloat, kOne);
  return graph.Add("Floor", {graph.Add("Div", {graph.Add("Add", {sums, half}), one})});
}

struct Plan {
  Side across, down;
};

// Sizes and the place of the cut: Resize() of trainer/pictures/preprocessing.cc, in whole numbers.
Plan MakePlan(OnnxGraph& graph, const std::string& shape, const Preprocessing& preprocessing) {
  Resizer r(graph);
  Plan plan;
  plan.down.old_size = graph.Add("Gather", {shape, r.Whole(1)});
  plan.across.old_size = graph.Add("Gather", {shape, r.Whole(2)});
  plan.down.count = preprocessing.height;
  plan.across.count = preprocessing.width;
  const std::string shorter = r.Binary("Min", plan.down.old_size, plan.across.old_size);
  for (Side* side : {&plan.down, &plan.across}) {
    if (preprocessing.resize == config::ResizeRule::kStretch) {
      side->new_size = r.Whole(side->count);
      side->first = r.Whole(0);
      continue;
    }
    const std::string product =
        r.Binary("Mul", r.Whole(preprocessing.shorter_side), side->old_size);
    side->new_size = r.Binary("Div", product, shorter);
    // Half of what is left over; of an odd number the half that is even.
    const std::string rest = r.Binary("Sub", side->new_size, r.Whole(side->count));
    const std::string up =
        graph.Add("Cast", {r.Binary("Equal", r.Binary("Mod", rest, r.Whole(4)), r.Whole(3))},
                  {{"to", static_cast<int64_t>(kInt64)}});
    side->first = r.Binary("Add", r.Binary("Div", rest, r.Whole(2)), up);
  }
  return plan;
}

// Red, green and blue to how light they are (trainer/pictures/luma.h). The sums stay below 2^24.
std::string AddGrey(OnnxGraph& graph, const std::string& pixels) {
  const std::string weights = graph.Constant(OnnxType::kFloat, {1, 3, 1, 1}, {19595, 38470, 7471});
  const std::string sum =
      graph.Add("ReduceSum", {graph.Add("Mul", {pixels, weights}), graph.Integers({1})},
                {{"keepdims", int64_t{1}}});
  const std::string rounded = graph.Add("Add", {sum, graph.Scalar(OnnxType::kFloat, 0x8000)});
  return graph.Add("Floor", {graph.Add("Div", {rounded, graph.Scalar(OnnxType::kFloat, 0x10000)})});
}

std::string AddNormalization(OnnxGraph& graph, std::string pixels,
                             const Preprocessing& preprocessing) {
  if (preprocessing.bgr && preprocessing.channels == 3) {
    pixels = graph.Add("Gather", {pixels, graph.Integers({2, 1, 0})}, {{"axis", int64_t{1}}});
  }
  std::vector<double> factor, shift;
  for (size_t c = 0; c < preprocessing.mean.size(); ++c) {
    factor.push_back(1.0 / (255.0 * preprocessing.std[c]));
    shift.push_back(-preprocessing.mean[c] / preprocessing.std[c]);
  }
  const std::vector<int64_t> shape = {1, static_cast<int64_t>(factor.size()), 1, 1};
  const std::string scaled =
      graph.Add("Mul", {pixels, graph.Constant(OnnxType::kFloat, shape, factor)});
  return graph.Add("Add", {scaled, graph.Constant(OnnxType::kFloat, shape, shift)});
}

}  // namespace

std::string AddPreprocessing(OnnxGraph& graph, const std::string& pixels,
                             const Preprocessing& preprocessing) {
  const Plan plan = MakePlan(graph, graph.Add("Shape", {pixels}), preprocessing);
  Resizer resizer(graph);
  const std::string planes =
      graph.Add("Transpose", {pixels}, {{"perm", std::vector<int64_t>{0, 3, 1, 2}}});
  const std::string numbers = graph.Add("Cast", {planes}, {{"to", kToFloat}});
  const std::string across =
      graph.Add("Transpose", {resizer.Filter(plan.across)}, {{"perm", std::vector<int64_t>{1, 0}}});
  const std::string narrow = AddRounding(graph, graph.Add("MatMul", {numbers, across}));
  std::string resized =
      AddRounding(graph, graph.Add("MatMul", {resizer.Filter(plan.down), narrow}));
  if (preprocessing.channels == 1) resized = AddGrey(graph, resized);
  return AddNormalization(graph, resized, preprocessing);
}

}  // namespace lockstep::trainer
