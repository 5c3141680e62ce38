#include "trainer/pictures/exact_math.h"

#include <cmath>

namespace lockstep::trainer {
namespace {

constexpr double kLn2 = 0.693147180559945309417232121458;

}  // namespace

double ExactLog(double x) {
  int exponent = 0;
  double mantissa = std::frexp(x, &exponent);  // In [1/2, 1); exact.
  if (mantissa < 0.70710678118654752) {
    mantissa *= 2;
    --exponent;
  }
  // ln m = 2 artanh((m - 1) / (m + 1)), and the argument is at most 0.172: 20 terms are plenty.
  const double t = (mantissa - 1) / (mantissa + 1);
  const double square = t * t;
  double sum = 0;
  for (int n = 39; n >= 1; n -= 2) sum = sum * square + 1.0 / n;
  return 2 * t * sum + exponent * kLn2;
}

double ExactExp(double x) {
  const double power = std::floor(x / kLn2 + 0.5);
  const double rest = x - power * kLn2;  // At most 0.35.
  double sum = 1;
  for (int n = 18; n >= 1; --n) sum = 1 + sum * rest / n;
  return std::ldexp(sum, static_cast<int>(power));
}

SineCosine ExactSineCosine(double radians) {
  // Taylor's series of a sixteenth, then four doublings of the angle.
  const double x = radians / 16;
  const double square = x * x;
  double sine = 1;
  double cosine = 1;
  for (int n = 20; n >= 2; n -= 2) {
    sine = 1 - sine * square / (n * (n + 1));
    cosine = 1 - cosine * square / (n * (n - 1));
  }
  sine *= x;
  for (int doubling = 0; doubling < 4; ++doubling) {
    const double doubled = 2 * sine * cosine;
    cosine = 1 - 2 * sine * sine;
    sine = doubled;
  }
  return {sine, cosine};
}

}  // namespace lockstep::trainer
