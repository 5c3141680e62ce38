// Functions whose bits are the same on every machine, unlike those of a C library, which picks
// another code path for each processor. Made of +, -, *, / and sqrt alone, which IEEE 754 rounds
// correctly. Good to about 1e-14.
#pragma once

namespace lockstep::trainer {

/// Natural logarithm; x > 0 and finite.
double ExactLog(double x);

/// e to the x; |x| <= 700.
double ExactExp(double x);

struct SineCosine {
  double sine = 0;
  double cosine = 0;
};

/// Of an angle in radians, within a turn either way.
SineCosine ExactSineCosine(double radians);

}  // namespace lockstep::trainer
