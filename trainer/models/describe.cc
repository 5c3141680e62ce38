#include "trainer/models/describe.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace lockstep::trainer {
namespace {

std::string Pixels(const Extent2d& extent) {
  return absl::StrCat(extent.height, "x", extent.width);
}

bool IsWindow(OpKind kind) {
  return kind == OpKind::kConv2d || kind == OpKind::kMaxPool || kind == OpKind::kAvgPool;
}

// Those without a row of their own.
bool IsAppended(OpKind kind) {
  switch (kind) {
    case OpKind::kRelu:
    case OpKind::kRelu6:
    case OpKind::kLeakyRelu:
    case OpKind::kGelu:
    case OpKind::kSilu:
    case OpKind::kTanh:
    case OpKind::kDropout:
    case OpKind::kFlatten:
      return true;
    default:
      return false;
  }
}

std::string KindOf(const Operation& operation) {
  std::string text = NameOf(operation.kind);
  if (IsWindow(operation.kind)) absl::StrAppend(&text, " ", Pixels(operation.kernel));
  if (operation.kind == OpKind::kConv2d || operation.kind == OpKind::kMaxPool ||
      operation.kind == OpKind::kAvgPool) {
    if (operation.stride != Extent2d{1, 1}) {
      absl::StrAppend(&text, " / ", operation.stride.height);
    }
  }
  if (operation.kind == OpKind::kAdaptiveAvgPool) {
    absl::StrAppend(&text, " to ", Pixels(operation.pool_to));
  }
  if (operation.groups > 1) absl::StrAppend(&text, ", ", operation.groups, " groups");
  if (operation.kind == OpKind::kDropout) absl::StrAppend(&text, " ", operation.dropout);
  return text;
}

int64_t MultiplyAdds(const Graph& graph, int index) {
  const Operation& operation = graph.operations[static_cast<size_t>(index)];
  const int64_t outputs = graph.shapes[static_cast<size_t>(index)].numel();
  if (operation.kind == OpKind::kLinear) return outputs * graph.input_shape_of(index).channels;
  if (operation.kind != OpKind::kConv2d) return 0;
  return outputs * (graph.input_shape_of(index).channels / operation.groups) *
         operation.kernel.height * operation.kernel.width;
}

const char* NameOfPart(ModelPart part) {
  switch (part) {
    case ModelPart::kTrunk:
      return "trunk";
    case ModelPart::kHead:
      return "head";
    case ModelPart::kAuxiliary:
      return "auxiliary";
  }
  return "";
}

std::string ShapeText(const ValueShape& shape) {
  if (shape.height == 1 && shape.width == 1) return absl::StrCat(shape.channels);
  return absl::StrCat(shape.channels, " x ", shape.height, " x ", shape.width);
}

// 25557032 -> "25,557,032".
std::string Grouped(int64_t number) {
  const std::string digits = absl::StrCat(number);
  std::string text;
  for (size_t i = 0; i < digits.size(); ++i) {
    if (i > 0 && (digits.size() - i) % 3 == 0) text += ',';
    text += digits[i];
  }
  return text;
}

std::string Flops(int64_t multiply_adds) {
  const double flops = 2.0 * static_cast<double>(multiply_adds);
  if (flops == 0) return "";
  if (flops >= 1e9) return absl::StrFormat("%.2f G", flops / 1e9);
  if (flops >= 1e6) return absl::StrFormat("%.2f M", flops / 1e6);
  return absl::StrFormat("%.2f k", flops / 1e3);
}

nlohmann::ordered_json TotalJson(const PartTotal& total) {
  return {{"parameters", total.parameters},
          {"flops", 2 * total.multiply_adds},
          {"multiply_adds", total.multiply_adds}};
}

nlohmann::ordered_json ShapeJson(const ValueShape& shape) {
  return {shape.channels, shape.height, shape.width};
}

}  // namespace

ModelDescription DescribeModel(const Graph& graph) {
  ModelDescription description;
  description.input = graph.input;
  description.features = graph.shapes[static_cast<size_t>(graph.features)].numel();
  const std::vector<int> main = Needed(graph, {graph.output});
  std::vector<size_t> rows(graph.operations.size());  // Of each operation.
  for (int i = 1; i < static_cast<int>(graph.operations.size()); ++i) {
    const auto at = static_cast<size_t>(i);
    const Operation& operation = graph.operations[at];
    // A row is only continued by what directly follows it.
    if (IsAppended(operation.kind) && operation.inputs[0] == i - 1 && i > 1) {
      rows[at] = rows[at - 1];
      LayerDescription& row = description.layers[rows[at]];
      absl::StrAppend(&row.kind, ", ", KindOf(operation));
      row.output = graph.shapes[at];
      continue;
    }
    LayerDescription row;
    row.name = operation.name;
    row.kind = KindOf(operation);
    row.output = graph.shapes[at];
    row.multiply_adds = MultiplyAdds(graph, i);
    for (const TensorSpec& spec : TensorsOf(graph, i)) {
      if (spec.is_parameter()) row.parameters += spec.numel();
      const bool counter = spec.role == TensorSpec::Role::kNumBatchesTracked;
      description.weights_bytes += spec.numel() * (counter ? 8 : 4);
    }
    row.part = i > graph.features ? ModelPart::kHead : ModelPart::kTrunk;
    if (!std::binary_search(main.begin(), main.end(), i)) row.part = ModelPart::kAuxiliary;
    PartTotal& part = row.part == ModelPart::kTrunk  ? description.trunk
                      : row.part == ModelPart::kHead ? description.head
                                                     : description.auxiliary;
    for (PartTotal* total : {&part, &description.total}) {
      total->parameters += row.parameters;
      total->multiply_adds += row.multiply_adds;
    }
    rows[at] = description.layers.size();
    description.layers.push_back(std::move(row));
  }
  return description;
}

int64_t StepMultiplyAdds(const Graph& graph, int frozen, bool cached_features) {
  const std::vector<int> main = Needed(graph, {graph.output});
  int64_t sum = 0;
  for (int i = 1; i < static_cast<int>(graph.operations.size()); ++i) {
    const bool head = i > graph.features && std::binary_search(main.begin(), main.end(), i);
    if (cached_features && !head) continue;
    sum += MultiplyAdds(graph, i) * (i < frozen ? 1 : 3);
  }
  return sum;
}

std::string ToText(const ModelDescription& description) {
  size_t name_width = 10, kind_width = 4;
  for (const LayerDescription& layer : description.layers) {
    name_width = std::max(name_width, layer.name.size());
    kind_width = std::max(kind_width, layer.kind.size());
  }
  const auto line = [&](const std::string& name, const std::string& kind, const std::string& output,
                        const std::string& parameters, const std::string& flops) {
    return absl::StrFormat("%-*s  %-*s  %-18s  %13s  %9s\n", name_width, name, kind_width, kind,
                           output, parameters, flops);
  };
  std::string text = line("layer", "kind", "output", "parameters", "FLOPs");
  const InputShape& input = description.input;
  absl::StrAppend(
      &text, line("", "input", ShapeText({input.channels, input.height, input.width}), "", ""));
  ModelPart part = ModelPart::kTrunk;
  for (const LayerDescription& layer : description.layers) {
    if (layer.part != part) {
      part = layer.part;
      absl::StrAppend(&text, "-- ", NameOfPart(part), "\n");
    }
    absl::StrAppend(&text, line(layer.name, layer.kind, ShapeText(layer.output),
                                layer.parameters == 0 ? "" : Grouped(layer.parameters),
                                Flops(layer.multiply_adds)));
  }
  const auto total = [&](const char* name, const PartTotal& of, const std::string& output) {
    absl::StrAppend(&text, line(name, "", output, Grouped(of.parameters), Flops(of.multiply_adds)));
  };
  absl::StrAppend(&text, "\n");
  total("trunk", description.trunk, absl::StrCat(description.features, " features"));
  total("head", description.head, "");
  if (description.auxiliary.parameters > 0) total("auxiliary", description.auxiliary, "");
  total("all", description.total, "");
  absl::StrAppendFormat(&text, "weights and statistics: %.1f MiB in float32\n",
                        static_cast<double>(description.weights_bytes) / (1 << 20));
  absl::StrAppend(&text,
                  "FLOPs: forward pass of one picture, two for each multiply-add of convolutions "
                  "and dense layers.\n");
  return text;
}

std::string ToJson(const ModelDescription& description) {
  const InputShape& input = description.input;
  nlohmann::ordered_json layers = nlohmann::ordered_json::array();
  for (const LayerDescription& layer : description.layers) {
    layers.push_back({{"name", layer.name},
                      {"kind", layer.kind},
                      {"output", ShapeJson(layer.output)},
                      {"part", NameOfPart(layer.part)},
                      {"parameters", layer.parameters},
                      {"flops", 2 * layer.multiply_adds},
                      {"multiply_adds", layer.multiply_adds}});
  }
  const nlohmann::ordered_json json = {{"input", {input.channels, input.height, input.width}},
                                       {"layers", std::move(layers)},
                                       {"features", description.features},
                                       {"totals",
                                        {{"trunk", TotalJson(description.trunk)},
                                         {"head", TotalJson(description.head)},
                                         {"auxiliary", TotalJson(description.auxiliary)},
                                         {"all", TotalJson(description.total)}}},
                                       {"weights_bytes", description.weights_bytes}};
  return json.dump(2);
}

}  // namespace lockstep::trainer
