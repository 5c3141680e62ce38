// Letters of five by seven dots, enough to name the rows and columns of a picture.
#pragma once

#include <array>
#include <cstdint>

namespace lockstep::trainer {

inline constexpr int kGlyphWidth = 5;   // Dots.
inline constexpr int kGlyphHeight = 7;  // Dots.

// Top row first; bit 4 is the leftmost dot.
using Glyph = std::array<uint8_t, kGlyphHeight>;

/// Digits, the English letters (small ones as their capitals), space and _-.,:/%+()&'; a box for
/// every other byte.
const Glyph& GlyphOf(char character);

}  // namespace lockstep::trainer
