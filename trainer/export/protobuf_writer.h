// Writes protobuf's wire format: what an ONNX file is made of. The encoding is documented at
// protobuf.dev/programming-guides/encoding.
//
// Own code, and not protoc's, for two reasons: a message here keeps large bytes where they are (a
// VGG16 is 528 MB, and generated classes would hold it twice more while writing), and a source that
// works on weights may not see protobuf's headers. Only what ONNX needs is here: varints, floats,
// bytes, messages in messages, packed numbers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace lockstep::trainer {

class ProtobufWriter {
 public:
  void Integer(int field, int64_t value);
  void Float(int field, float value);
  void Text(int field, std::string_view text);
  void Integers(int field, std::span<const int64_t> values);  // Packed.
  /// Borrowed: `bytes` must live as long as the message that this becomes part of.
  void Bytes(int field, std::span<const std::byte> bytes);
  void OwnedBytes(int field, std::string bytes);
  void Message(int field, ProtobufWriter&& message);

  int64_t size() const { return size_; }
  /// The message, piece by piece; valid while this lives and is not changed.
  std::vector<std::span<const std::byte>> Pieces() const;

 private:
  struct Piece {
    std::string own;
    std::span<const std::byte> borrowed;  // In place of `own` where it is not empty.
  };
  void Raw(std::string_view bytes);
  void Varint(uint64_t value);
  void Tag(int field, int wire_type);

  std::vector<Piece> pieces_;
  int64_t size_ = 0;
};

}  // namespace lockstep::trainer
