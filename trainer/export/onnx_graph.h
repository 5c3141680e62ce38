// An ONNX graph while it is being put together: nodes, constants, weights. Values are named by
// strings, as in ONNX; Add() makes up the names.
//
// Field numbers, attribute types and data types are those of onnx.proto3 (github.com/onnx/onnx).
// IR version 8, operators of set 18: what runtimes since the end of 2022 read.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "trainer/export/protobuf_writer.h"

namespace lockstep::trainer {

enum class OnnxType { kFloat = 1, kUint8 = 2, kInt64 = 7, kFloat16 = 10, kDouble = 11 };

struct OnnxAttribute {
  std::string name;
  std::variant<int64_t, float, std::vector<int64_t>> value;
};

// A dimension is a number, or a name where it is only known at run time.
using OnnxDimension = std::variant<int64_t, std::string>;

class OnnxGraph {
 public:
  /// A node with one output, whose name is returned; `name` names both where it is given.
  std::string Add(const std::string& operation, const std::vector<std::string>& inputs,
                  const std::vector<OnnxAttribute>& attributes = {}, const std::string& name = "");

  /// Small constants; shapes [] (a scalar) and [values].
  std::string Scalar(OnnxType type, double value);
  std::string Integers(const std::vector<int64_t>& values);
  std::string Constant(OnnxType type, const std::vector<int64_t>& shape,
                       const std::vector<double>& values);

  /// A weight under its own name. The bytes are borrowed until the model is written.
  void Weight(const std::string& name, OnnxType type, const std::vector<int64_t>& shape,
              std::span<const std::byte> bytes);
  void OwnedWeight(const std::string& name, OnnxType type, const std::vector<int64_t>& shape,
                   std::string bytes);
  bool HasWeight(const std::string& name) const { return weights_.count(name) > 0; }

  void Input(const std::string& name, OnnxType type, const std::vector<OnnxDimension>& shape);
  void Output(const std::string& name, OnnxType type, const std::vector<OnnxDimension>& shape);

  /// The whole model; leaves this empty.
  ProtobufWriter Finish(const std::string& graph_name, const std::string& producer_version,
                        const std::map<std::string, std::string>& metadata);

 private:
  std::string Fresh(const std::string& stem);

  ProtobufWriter graph_;
  std::map<std::string, bool> weights_;
  int64_t next_ = 0;
};

}  // namespace lockstep::trainer
