#include "trainer/tensorboard/event.h"

#include <bit>
#include <cstring>

namespace lockstep::trainer {
namespace {

// Wire types.
constexpr uint32_t kVarint = 0;
constexpr uint32_t kFixed64 = 1;
constexpr uint32_t kLengthDelimited = 2;
constexpr uint32_t kFixed32 = 5;

constexpr uint64_t kSessionStart = 1;  // SessionLog.SessionStatus.START
constexpr uint64_t kStringType = 7;    // DataType.DT_STRING
constexpr uint64_t kRgb = 3;           // Summary.Image.colorspace

void Varint(uint64_t value, std::string& out) {
  for (; value >= 0x80; value >>= 7) out += static_cast<char>(value | 0x80);
  out += static_cast<char>(value);
}

size_t VarintSize(uint64_t value) {
  return value == 0 ? 1 : (static_cast<size_t>(std::bit_width(value)) + 6) / 7;
}

void Key(uint32_t field, uint32_t wire_type, std::string& out) {
  Varint(field << 3 | wire_type, out);
}

void Integer(uint32_t field, uint64_t value, std::string& out) {
  Key(field, kVarint, out);
  Varint(value, out);
}

void AppendDouble(double value, std::string& out) {
  char bytes[sizeof(value)];
  std::memcpy(bytes, &value, sizeof(value));
  out.append(bytes, sizeof(bytes));
}

void Double(uint32_t field, double value, std::string& out) {
  Key(field, kFixed64, out);
  AppendDouble(value, out);
}

void Float(uint32_t field, float value, std::string& out) {
  Key(field, kFixed32, out);
  char bytes[sizeof(value)];
  std::memcpy(bytes, &value, sizeof(value));
  out.append(bytes, sizeof(bytes));
}

void Bytes(uint32_t field, std::string_view bytes, std::string& out) {
  Key(field, kLengthDelimited, out);
  Varint(bytes.size(), out);
  out += bytes;
}

void PackedDoubles(uint32_t field, const std::vector<double>& values, std::string& out) {
  Key(field, kLengthDelimited, out);
  Varint(values.size() * sizeof(double), out);
  for (const double value : values) AppendDouble(value, out);
}

// Event: wall_time = 1, step = 2.
std::string EventHead(double seconds, int64_t step, size_t room) {
  std::string event;
  event.reserve(room + 32);
  Double(1, seconds, event);
  if (step != 0) Integer(2, static_cast<uint64_t>(step), event);
  return event;
}

}  // namespace

// Summary: value = 1. Summary.Value: tag = 1, simple_value = 2, image = 4, histo = 5, tensor = 8,
// metadata = 9.

void Summary::Scalar(std::string_view tag, double value) {
  const size_t size = 1 + VarintSize(tag.size()) + tag.size() + 1 + sizeof(float);
  Key(1, kLengthDelimited, bytes_);
  Varint(size, bytes_);
  Bytes(1, tag, bytes_);
  Float(2, static_cast<float>(value), bytes_);
}

// HistogramProto: min = 1, max = 2, num = 3, sum = 4, sum_squares = 5, bucket_limit = 6, bucket
// = 7.
void Summary::Histogram(std::string_view tag, const lockstep::trainer::Histogram& histogram) {
  std::string message;
  Double(1, histogram.min, message);
  Double(2, histogram.max, message);
  Double(3, histogram.count, message);
  Double(4, histogram.sum, message);
  Double(5, histogram.sum_of_squares, message);
  PackedDoubles(6, histogram.upper_bounds, message);
  PackedDoubles(7, histogram.counts, message);
  std::string value;
  Bytes(1, tag, value);
  Bytes(5, message, value);
  Bytes(1, value, bytes_);
}

// Summary.Image: height = 1, width = 2, colorspace = 3, encoded_image_string = 4.
void Summary::Picture(std::string_view tag, const PngPicture& picture) {
  std::string message;
  Integer(1, static_cast<uint64_t>(picture.height), message);
  Integer(2, static_cast<uint64_t>(picture.width), message);
  Integer(3, kRgb, message);
  Bytes(4, picture.bytes, message);
  std::string value;
  Bytes(1, tag, value);
  Bytes(4, message, value);
  Bytes(1, value, bytes_);
}

// TensorProto: dtype = 1, tensor_shape = 2 (absent: no dimensions), string_val = 8.
// SummaryMetadata: plugin_data = 1; its plugin_name = 1, whose empty content means version 0.
void Summary::Text(std::string_view tag, std::string_view markdown) {
  std::string plugin, metadata, tensor, value;
  Bytes(1, "text", plugin);
  Bytes(1, plugin, metadata);
  Integer(1, kStringType, tensor);
  Bytes(2, "", tensor);
  Bytes(8, markdown, tensor);
  Bytes(1, tag, value);
  Bytes(8, tensor, value);
  Bytes(9, metadata, value);
  Bytes(1, value, bytes_);
}

// Event: file_version = 3, summary = 5, session_log = 7. SessionLog: status = 1.

std::string SummaryEvent(double seconds, int64_t step, const Summary& summary) {
  std::string event = EventHead(seconds, step, summary.bytes().size());
  Bytes(5, summary.bytes(), event);
  return event;
}

std::string FileVersionEvent(double seconds) {
  std::string event = EventHead(seconds, 0, 0);
  Bytes(3, "brain.Event:2", event);
  return event;
}

std::string SessionStartEvent(double seconds, int64_t step) {
  std::string log;
  Integer(1, kSessionStart, log);
  std::string event = EventHead(seconds, step, log.size());
  Bytes(7, log, event);
  return event;
}

}  // namespace lockstep::trainer
