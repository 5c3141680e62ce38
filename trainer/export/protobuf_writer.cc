#include "trainer/export/protobuf_writer.h"

#include <bit>
#include <iterator>
#include <utility>

namespace lockstep::trainer {
namespace {

constexpr int kVarint = 0;
constexpr int kLengthDelimited = 2;
constexpr int kFixed32 = 5;

// Small things are copied: a piece of its own costs more.
constexpr size_t kSmallBytes = 256;
// A longer piece is not added to: to grow, it would be copied.
constexpr size_t kMostJoinedBytes = 64u << 10;

size_t VarintBytes(uint64_t value) {
  size_t bytes = 1;
  while (value >= 0x80) {
    value >>= 7;
    ++bytes;
  }
  return bytes;
}

}  // namespace

void ProtobufWriter::Raw(std::string_view bytes) {
  if (pieces_.empty() || !pieces_.back().borrowed.empty() ||
      pieces_.back().own.size() > kMostJoinedBytes) {
    pieces_.emplace_back();
  }
  pieces_.back().own.append(bytes);
  size_ += static_cast<int64_t>(bytes.size());
}

void ProtobufWriter::Varint(uint64_t value) {
  char bytes[10];
  size_t count = 0;
  while (value >= 0x80) {
    bytes[count++] = static_cast<char>((value & 0x7f) | 0x80);
    value >>= 7;
  }
  bytes[count++] = static_cast<char>(value);
  Raw({bytes, count});
}

void ProtobufWriter::Tag(int field, int wire_type) {
  Varint((static_cast<uint64_t>(field) << 3) | static_cast<uint64_t>(wire_type));
}

void ProtobufWriter::Integer(int field, int64_t value) {
  Tag(field, kVarint);
  Varint(static_cast<uint64_t>(value));
}

void ProtobufWriter::Float(int field, float value) {
  Tag(field, kFixed32);
  const auto bits = std::bit_cast<uint32_t>(value);
  char bytes[4];
  for (int i = 0; i < 4; ++i) bytes[i] = static_cast<char>(bits >> (8 * i));
  Raw({bytes, 4});
}

void ProtobufWriter::Text(int field, std::string_view text) {
  Tag(field, kLengthDelimited);
  Varint(text.size());
  Raw(text);
}

void ProtobufWriter::Integers(int field, std::span<const int64_t> values) {
  size_t bytes = 0;
  for (const int64_t value : values) bytes += VarintBytes(static_cast<uint64_t>(value));
  Tag(field, kLengthDelimited);
  Varint(bytes);
  for (const int64_t value : values) Varint(static_cast<uint64_t>(value));
}

void ProtobufWriter::Bytes(int field, std::span<const std::byte> bytes) {
  if (bytes.size() <= kSmallBytes) {
    Text(field, {reinterpret_cast<const char*>(bytes.data()), bytes.size()});
    return;
  }
  Tag(field, kLengthDelimited);
  Varint(bytes.size());
  pieces_.push_back({{}, bytes});
  size_ += static_cast<int64_t>(bytes.size());
}

void ProtobufWriter::OwnedBytes(int field, std::string bytes) {
  Tag(field, kLengthDelimited);
  Varint(bytes.size());
  size_ += static_cast<int64_t>(bytes.size());
  pieces_.push_back({std::move(bytes), {}});
}

void ProtobufWriter::Message(int field, ProtobufWriter&& message) {
  Tag(field, kLengthDelimited);
  Varint(static_cast<uint64_t>(message.size_));
  size_ += message.size_;
  auto from = message.pieces_.begin();
  if (from != message.pieces_.end() && from->borrowed.empty() && from->own.size() <= kSmallBytes) {
    pieces_.back().own.append(from->own);
    ++from;
  }
  pieces_.insert(pieces_.end(), std::make_move_iterator(from),
                 std::make_move_iterator(message.pieces_.end()));
  message = {};
}

std::vector<std::span<const std::byte>> ProtobufWriter::Pieces() const {
  std::vector<std::span<const std::byte>> pieces;
  pieces.reserve(pieces_.size());
  for (const Piece& piece : pieces_) {
    pieces.push_back(piece.borrowed.empty() ? std::as_bytes(std::span(piece.own)) : piece.borrowed);
  }
  return pieces;
}

}  // namespace lockstep::trainer
