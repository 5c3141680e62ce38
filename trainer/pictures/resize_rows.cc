#include "trainer/pictures/resize_rows.h"

#include <immintrin.h>

#include <cstring>

namespace lockstep::trainer {
namespace {

constexpr int32_t kHalf = kWeightOne / 2;

void NarrowPixel(const Filter& filter, const Tap& tap, const uint8_t* pixel, size_t channels,
                 uint8_t* to) {
  for (size_t channel = 0; channel < channels; ++channel) {
    int32_t sum = kHalf;
    for (int j = 0; j < tap.count; ++j) {
      sum += filter.weights[tap.weights + static_cast<size_t>(j)] *
             pixel[static_cast<size_t>(j) * channels + channel];
    }
    to[channel] = static_cast<uint8_t>(sum >> kWeightBits);
  }
}

// Four red-green-blue pixels at once: pairs of the same colour beside each other, times their
// weights, added up by one instruction.
__attribute__((target("ssse3"))) void NarrowRgb(const Filter& filter, const uint8_t* from,
                                                const uint8_t* end, uint8_t* to) {
  const __m128i first_two = _mm_setr_epi8(0, -1, 3, -1, 1, -1, 4, -1, 2, -1, 5, -1, -1, -1, -1, -1);
  const __m128i second_two =
      _mm_setr_epi8(6, -1, 9, -1, 7, -1, 10, -1, 8, -1, 11, -1, -1, -1, -1, -1);
  for (const Tap& tap : filter.taps) {
    const uint8_t* pixel = from + static_cast<ptrdiff_t>(tap.first) * 3;
    const int padded = (tap.count + 3) & ~3;
    if (end - pixel < padded * 3 + 4) {  // A load of 16 bytes would pass the end.
      NarrowPixel(filter, tap, pixel, 3, to);
      to += 3;
      continue;
    }
    const int16_t* weights = &filter.weights[tap.weights];
    __m128i sum = _mm_set1_epi32(kHalf);
    for (int j = 0; j < tap.count; j += 4, pixel += 12) {
      const __m128i pixels = _mm_loadu_si128(reinterpret_cast<const __m128i*>(pixel));
      const __m128i four = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(weights + j));
      sum = _mm_add_epi32(
          sum, _mm_madd_epi16(_mm_shuffle_epi8(pixels, first_two), _mm_shuffle_epi32(four, 0x00)));
      sum = _mm_add_epi32(
          sum, _mm_madd_epi16(_mm_shuffle_epi8(pixels, second_two), _mm_shuffle_epi32(four, 0x55)));
    }
    sum = _mm_srai_epi32(sum, kWeightBits);
    sum = _mm_packus_epi16(_mm_packs_epi32(sum, sum), sum);
    const int rgb = _mm_cvtsi128_si32(sum);
    std::memcpy(to, &rgb, sizeof rgb);  // The fourth byte is the next pixel's to write.
    to += 3;
  }
}

}  // namespace

void NarrowRow(const Filter& filter, const uint8_t* from, const uint8_t* end, size_t channels,
               uint8_t* to) {
  static const bool vectors = __builtin_cpu_supports("ssse3") != 0;
  if (vectors && channels == 3) return NarrowRgb(filter, from, end, to);
  for (const Tap& tap : filter.taps) {
    NarrowPixel(filter, tap, from + static_cast<size_t>(tap.first) * channels, channels, to);
    to += channels;
  }
}

void SumRows(std::span<const uint8_t* const> rows, const int16_t* weights, size_t bytes,
             uint8_t* to) {
  const __m128i zero = _mm_setzero_si128();
  for (size_t i = 0; i < bytes; i += 16) {
    __m128i sums[4];
    for (__m128i& sum : sums) sum = _mm_set1_epi32(kHalf);
    for (size_t j = 0; j < rows.size(); j += 2) {
      // Of an odd row without a partner the weight beside is zero.
      const uint8_t* other = rows[j + 1 < rows.size() ? j + 1 : j];
      const __m128i one = _mm_loadu_si128(reinterpret_cast<const __m128i*>(rows[j] + i));
      const __m128i two = _mm_loadu_si128(reinterpret_cast<const __m128i*>(other + i));
      int32_t both = 0;
      std::memcpy(&both, weights + j, sizeof both);
      const __m128i pair = _mm_set1_epi32(both);
      const __m128i low = _mm_unpacklo_epi8(one, two);
      const __m128i high = _mm_unpackhi_epi8(one, two);
      sums[0] = _mm_add_epi32(sums[0], _mm_madd_epi16(_mm_unpacklo_epi8(low, zero), pair));
      sums[1] = _mm_add_epi32(sums[1], _mm_madd_epi16(_mm_unpackhi_epi8(low, zero), pair));
      sums[2] = _mm_add_epi32(sums[2], _mm_madd_epi16(_mm_unpacklo_epi8(high, zero), pair));
      sums[3] = _mm_add_epi32(sums[3], _mm_madd_epi16(_mm_unpackhi_epi8(high, zero), pair));
    }
    for (__m128i& sum : sums) sum = _mm_srai_epi32(sum, kWeightBits);
    const __m128i made =
        _mm_packus_epi16(_mm_packs_epi32(sums[0], sums[1]), _mm_packs_epi32(sums[2], sums[3]));
    if (bytes - i >= 16) {
      _mm_storeu_si128(reinterpret_cast<__m128i*>(to + i), made);
    } else {
      uint8_t rest[16];
      _mm_storeu_si128(reinterpret_cast<__m128i*>(rest), made);
      std::memcpy(to + i, rest, bytes - i);
    }
  }
}

}  // namespace lockstep::trainer
