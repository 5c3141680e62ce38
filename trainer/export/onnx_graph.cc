#include "trainer/export/onnx_graph.h"

#include <cstring>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "trainer/export/half.h"

namespace lockstep::trainer {
namespace {

constexpr int64_t kIrVersion = 8;
constexpr int64_t kOperatorSet = 18;

// AttributeProto.type.
constexpr int64_t kAttributeFloat = 1;
constexpr int64_t kAttributeInt = 2;
constexpr int64_t kAttributeInts = 7;

template <typename Value>
void Append(std::string& bytes, Value value) {
  char raw[sizeof(Value)];
  std::memcpy(raw, &value, sizeof(Value));  // Little-endian, as ONNX wants and as this machine is.
  bytes.append(raw, sizeof(Value));
}

std::string Encode(OnnxType type, const std::vector<double>& values) {
  std::string bytes;
  for (const double value : values) {
    switch (type) {
      case OnnxType::kFloat:
        Append(bytes, static_cast<float>(value));
        break;
      case OnnxType::kFloat16:
        Append(bytes, HalfBits(static_cast<float>(value)));
        break;
      case OnnxType::kDouble:
        Append(bytes, value);
        break;
      case OnnxType::kInt64:
        Append(bytes, static_cast<int64_t>(value));
        break;
      case OnnxType::kUint8:
        Append(bytes, static_cast<uint8_t>(value));
        break;
    }
  }
  return bytes;
}

ProtobufWriter TensorHead(const std::string& name, OnnxType type,
                          const std::vector<int64_t>& shape) {
  ProtobufWriter tensor;
  if (!shape.empty()) tensor.Integers(1, shape);
  tensor.Integer(2, static_cast<int64_t>(type));
  tensor.Text(8, name);
  return tensor;
}

ProtobufWriter ValueInfo(const std::string& name, OnnxType type,
                         const std::vector<OnnxDimension>& shape) {
  ProtobufWriter dimensions;
  for (const OnnxDimension& dimension : shape) {
    ProtobufWriter one;
    if (const auto* number = std::get_if<int64_t>(&dimension)) {
      one.Integer(1, *number);
    } else {
      one.Text(2, std::get<std::string>(dimension));
    }
    dimensions.Message(1, std::move(one));
  }
  ProtobufWriter tensor_type;
  tensor_type.Integer(1, static_cast<int64_t>(type));
  tensor_type.Message(2, std::move(dimensions));
  ProtobufWriter value_type;
  value_type.Message(1, std::move(tensor_type));
  ProtobufWriter info;
  info.Text(1, name);
  info.Message(2, std::move(value_type));
  return info;
}

ProtobufWriter AttributeMessage(const OnnxAttribute& attribute) {
  ProtobufWriter message;
  message.Text(1, attribute.name);
  if (const auto* number = std::get_if<int64_t>(&attribute.value)) {
    message.Integer(3, *number);
    message.Integer(20, kAttributeInt);
  } else if (const auto* real = std::get_if<float>(&attribute.value)) {
    message.Float(2, *real);
    message.Integer(20, kAttributeFloat);
  } else {
    for (const int64_t one : std::get<std::vector<int64_t>>(attribute.value))
      message.Integer(8, one);
    message.Integer(20, kAttributeInts);
  }
  return message;
}

}  // namespace

std::string OnnxGraph::Fresh(const std::string& stem) {
  return absl::StrCat(stem, "_", next_++);
}

std::string OnnxGraph::Add(const std::string& operation, const std::vector<std::string>& inputs,
                           const std::vector<OnnxAttribute>& attributes, const std::string& name) {
  std::string output = name.empty() ? Fresh(absl::AsciiStrToLower(operation)) : name;
  ProtobufWriter node;
  for (const std::string& input : inputs) node.Text(1, input);
  node.Text(2, output);
  node.Text(3, output);
  node.Text(4, operation);
  for (const OnnxAttribute& attribute : attributes) node.Message(5, AttributeMessage(attribute));
  graph_.Message(1, std::move(node));
  return output;
}

std::string OnnxGraph::Constant(OnnxType type, const std::vector<int64_t>& shape,
                                const std::vector<double>& values) {
  std::string name = Fresh("constant");
  OwnedWeight(name, type, shape, Encode(type, values));
  return name;
}

std::string OnnxGraph::Scalar(OnnxType type, double value) {
  return Constant(type, {}, {value});
}

std::string OnnxGraph::Integers(const std::vector<int64_t>& values) {
  return Constant(OnnxType::kInt64, {static_cast<int64_t>(values.size())},
                  {values.begin(), values.end()});
}

void OnnxGraph::Weight(const std::string& name, OnnxType type, const std::vector<int64_t>& shape,
                       std::span<const std::byte> bytes) {
  ProtobufWriter tensor = TensorHead(name, type, shape);
  tensor.Bytes(9, bytes);
  graph_.Message(5, std::move(tensor));
  weights_[name] = true;
}

void OnnxGraph::OwnedWeight(const std::string& name, OnnxType type,
                            const std::vector<int64_t>& shape, std::string bytes) {
  ProtobufWriter tensor = TensorHead(name, type, shape);
  tensor.OwnedBytes(9, std::move(bytes));
  graph_.Message(5, std::move(tensor));
  weights_[name] = true;
}

void OnnxGraph::Input(const std::string& name, OnnxType type,
                      const std::vector<OnnxDimension>& shape) {
  graph_.Message(11, ValueInfo(name, type, shape));
}

void OnnxGraph::Output(const std::string& name, OnnxType type,
                       const std::vector<OnnxDimension>& shape) {
  graph_.Message(12, ValueInfo(name, type, shape));
}

ProtobufWriter OnnxGraph::Finish(const std::string& graph_name, const std::string& producer_version,
                                 const std::map<std::string, std::string>& metadata) {
  graph_.Text(2, graph_name);
  ProtobufWriter operators;
  operators.Text(1, "");
  operators.Integer(2, kOperatorSet);
  ProtobufWriter model;
  model.Integer(1, kIrVersion);
  model.Text(2, "lockstep");
  model.Text(3, producer_version);
  model.Message(8, std::move(operators));
  for (const auto& [key, value] : metadata) {
    ProtobufWriter entry;
    entry.Text(1, key);
    entry.Text(2, value);
    model.Message(14, std::move(entry));
  }
  model.Message(7, std::move(graph_));
  graph_ = {};
  weights_.clear();
  return model;
}

}  // namespace lockstep::trainer
