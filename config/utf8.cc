#include "config/utf8.h"

#include <cstdint>

namespace lockstep::config {
namespace {

// Length of the well-formed sequence at the front of `text` and its code point; 0 = malformed.
size_t Decode(std::string_view text, uint32_t& code_point) {
  const auto byte = [text](size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char lead = byte(0);
  size_t length = 0;
  uint32_t smallest = 0;  // Below this the sequence is longer than need be.
  if (lead < 0x80) {
    code_point = lead;
    return 1;
  }
  if ((lead & 0xE0) == 0xC0) {
    length = 2, smallest = 0x80, code_point = lead & 0x1F;
  } else if ((lead & 0xF0) == 0xE0) {
    length = 3, smallest = 0x800, code_point = lead & 0x0F;
  } else if ((lead & 0xF8) == 0xF0) {
    length = 4, smallest = 0x10000, code_point = lead & 0x07;
  }
  if (length == 0 || text.size() < length) return 0;
  for (size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xC0) != 0x80) return 0;
    code_point = (code_point << 6) | (byte(i) & 0x3F);
  }
  const bool surrogate = code_point >= 0xD800 && code_point <= 0xDFFF;
  return code_point < smallest || code_point > 0x10FFFF || surrogate ? 0 : length;
}

}  // namespace

BadCharacter FindBadCharacter(std::string_view text) {
  for (size_t position = 0; position < text.size();) {
    uint32_t code_point = 0;
    const size_t length = Decode(text.substr(position), code_point);
    if (length == 0) return {position, "not UTF-8"};
    if (code_point == 0) return {position, "a NUL byte"};
    const bool line_end =
        code_point == '\n' || (code_point == '\r' && text.substr(position + 1).starts_with('\n'));
    const bool control = code_point < 0x20 || (code_point >= 0x7F && code_point < 0xA0);
    if (control && code_point != '\t' && !line_end) return {position, "a control character"};
    position += length;
  }
  return {};
}

}  // namespace lockstep::config
