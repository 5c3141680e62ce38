// A trained model as one ONNX file that needs nothing else: from a picture's pixels to
// probabilities. The preprocessing is part of the graph, so no other program can get it wrong.
//
// Input "pixels": uint8 [batch, height, width, 3], as a decoder gives them (red first, also where
// the model sees grey), of any height and width. Outputs, float32:
// "logits" [batch, outputs] and, by the model's loss, "probabilities" (softmax or, with several
// labels, sigmoid) or "values" (regression, in the data's own units).
//
// Resizing is the trainer's own (trainer/pictures/resize.cc), operation by operation: a triangle
// filter whose weights are whole numbers of 2^-14, across and then down, rounded to bytes after
// each. ONNX has a Resize of its own, but no runtime's has these bits. All sums stay below 2^24, so
// float32 products are exact in any order, and the pixels that reach the network are the trainer's
// to the bit. (A trainer that reads a large JPEG may let the decoder halve it first; that differs
// from decoding all of it, as ONNX's caller does, by a few units of 1/255.)
//
// Weights of operations that only training uses (auxiliary heads) are left out. With `half`,
// weights and network are float16, preprocessing and outputs are as before.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "trainer/card.h"
#include "trainer/checkpoint/safetensors.h"
#include "trainer/export/protobuf_writer.h"
#include "trainer/models/graph.h"

namespace lockstep::trainer {

struct OnnxOptions {
  bool half = false;
  std::string producer_version;
  std::string name = "lockstep";  // Of the graph: the run's.
};

/// The file; it borrows from `weights`. INVALID_ARGUMENT names the tensor that is missing, has
/// another shape or is not float32, the weight that float16 cannot hold, or says that card and
/// graph do not fit together. RESOURCE_EXHAUSTED: above the 2 GiB that protobuf can hold.
absl::StatusOr<ProtobufWriter> MakeOnnx(const Graph& graph, std::span<const TensorBytes> weights,
                                        const ModelCard& card, const OnnxOptions& options);

}  // namespace lockstep::trainer
