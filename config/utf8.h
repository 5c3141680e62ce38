// The few things that must be known about UTF-8 to screen a text.
#pragma once

#include <cstddef>
#include <string_view>

namespace lockstep::config {

struct BadCharacter {
  size_t position = 0;        // Byte.
  const char* why = nullptr;  // nullptr = none.
};

/// The first byte that is not part of printable text: malformed UTF-8 (RFC 3629: no overlong forms,
/// surrogates or code points above U+10FFFF) or a control character other than tab and line ends.
BadCharacter FindBadCharacter(std::string_view text);

}  // namespace lockstep::config
