// The wire format: against bytes from protobuf's own documentation, and read back.
#include "trainer/export/protobuf_writer.h"

#include <gtest/gtest.h>

#include "tests/trainer/export/wire_reader.h"

namespace lockstep::trainer {
namespace {

TEST(ProtobufWriterTest, WritesTheDocumentationsExamples) {
  ProtobufWriter message;
  message.Integer(1, 150);
  EXPECT_EQ(Join(message), "\x08\x96\x01");
  ProtobufWriter text;
  text.Text(2, "testing");
  EXPECT_EQ(Join(text), "\x12\x07testing");
  ProtobufWriter outer;
  outer.Message(3, std::move(message));
  EXPECT_EQ(Join(outer), "\x1a\x03\x08\x96\x01");
  ProtobufWriter packed;
  packed.Integers(6, std::vector<int64_t>{3, 270, 86942});
  EXPECT_EQ(Join(packed), std::string("\x32\x06\x03\x8e\x02\x9e\xa7\x05"));
}

TEST(ProtobufWriterTest, NegativeNumbersTakeTenBytes) {
  ProtobufWriter message;
  message.Integer(1, -1);
  EXPECT_EQ(message.size(), 11);
  EXPECT_EQ(static_cast<int64_t>(ReadMessage(Join(message))[0].integer), -1);
}

TEST(ProtobufWriterTest, LargeBytesStayWhereTheyAre) {
  const std::vector<std::byte> large(1000, std::byte{7});
  ProtobufWriter inner;
  inner.Text(8, "weight");
  inner.Bytes(9, large);
  inner.Float(2, 1.5f);
  ProtobufWriter outer;
  outer.Message(5, std::move(inner));
  bool borrowed = false;
  for (const auto piece : outer.Pieces()) borrowed |= piece.data() == large.data();
  EXPECT_TRUE(borrowed);
  const auto fields = ReadMessage(ReadMessage(Join(outer))[0].bytes);
  EXPECT_EQ(TextOf(fields, 8), "weight");
  EXPECT_EQ(TextOf(fields, 9), std::string(1000, '\7'));
  EXPECT_EQ(fields.back().real, 1.5f);
}

TEST(ProtobufWriterTest, SizeIsWhatThePiecesHold) {
  ProtobufWriter outer;
  for (int i = 0; i < 300; ++i) {
    ProtobufWriter inner;
    inner.OwnedBytes(9, std::string(static_cast<size_t>(i), 'x'));
    inner.Integer(1, i);
    outer.Message(1, std::move(inner));
  }
  const std::string bytes = Join(outer);
  EXPECT_EQ(outer.size(), static_cast<int64_t>(bytes.size()));
  const auto fields = ReadMessage(bytes);
  ASSERT_EQ(fields.size(), 300u);
  EXPECT_EQ(TextOf(ReadMessage(fields[299].bytes), 9).size(), 299u);
}

}  // namespace
}  // namespace lockstep::trainer
