// The part of an exported graph that turns a picture's bytes into what the network sees.
#pragma once

#include <string>

#include "trainer/export/onnx_graph.h"
#include "trainer/pictures/preprocessing.h"

namespace lockstep::trainer {

/// `pixels`: uint8 [batch, height, width, 3], red first. Returns the name of a float32 [batch,
/// channels, preprocessing.height, preprocessing.width], normalized.
std::string AddPreprocessing(OnnxGraph& graph, const std::string& pixels,
                             const Preprocessing& preprocessing);

}  // namespace lockstep::trainer
