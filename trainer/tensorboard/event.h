// The messages inside of an event file, written by hand in protobuf's wire format, because the
// trainer must not see protobuf (its headers and LibTorch's do not mix).
//
// Messages and field numbers: TensorBoard, tensorboard/compat/proto/event.proto, summary.proto,
// histogram.proto, tensor.proto, tensor_shape.proto, types.proto; the encoding: protobuf.dev,
// "Encoding". Values are in the first form that TensorBoard had for each kind (simple_value, histo,
// image), the one that PyTorch writes: TensorBoard's EventAccumulator gives those by Scalars(),
// Histograms() and Images(), and its pages turn them into tensors while they read. The tensor form
// would show in the pages alone. Text has only that one.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace lockstep::trainer {

// How values are spread. Bucket i holds those up to upper_bounds[i] and above the bound before it.
struct Histogram {
  double min = 0;
  double max = 0;
  double count = 0;
  double sum = 0;
  double sum_of_squares = 0;
  std::vector<double> upper_bounds;  // Ascending.
  std::vector<double> counts;        // As many.
};

// An encoded picture.
struct PngPicture {
  int width = 0;   // Pixels.
  int height = 0;  // Pixels.
  std::string bytes;
};

// The values of one step, collected into one message.
class Summary {
 public:
  void Scalar(std::string_view tag, double value);  // Kept as float32.
  void Histogram(std::string_view tag, const Histogram& histogram);
  void Picture(std::string_view tag, const PngPicture& picture);
  void Text(std::string_view tag, std::string_view markdown);

  void Clear() { bytes_.clear(); }  // Keeps its memory.
  bool empty() const { return bytes_.empty(); }
  const std::string& bytes() const { return bytes_; }

 private:
  std::string bytes_;
};

/// `seconds` since 1970 in all of them.
std::string SummaryEvent(double seconds, int64_t step, const Summary& summary);
/// The first record of each file.
std::string FileVersionEvent(double seconds);
/// "From here on events begin at `step`": whoever has read later ones from an earlier file drops
/// them.
std::string SessionStartEvent(double seconds, int64_t step);

}  // namespace lockstep::trainer
