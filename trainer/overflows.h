// Which steps that are not finite are how float16 finds its loss scale, and which are trouble.
//
// The scale begins at 65,536, halves when a scaled gradient overflows, and doubles after 2,000
// steps without (trainer/step/precision.h). So the first steps of a run overflow by design, and one
// now and then later: the optimizer leaves such a step out and nothing is wrong with the gradient.
// The scale explains a step as long as it could still be cut; a loss that is not finite it never
// explains. One thread.
#pragma once

#include <cmath>

namespace lockstep::trainer {

class Overflows {
 public:
  /// `scaled`: there is a loss scale. Without one nothing is explained.
  explicit Overflows(bool scaled) : cuts_left_(scaled ? kMostCuts : 0), scaled_(scaled) {}

  /// Takes the next step; true when it was not finite and is trouble.
  bool IsTrouble(bool nonfinite, double loss) {
    if (!nonfinite) {
      if (++finite_ >= kGrowAfter) {
        finite_ = 0;
        if (scaled_) ++cuts_left_;
      }
      return false;
    }
    finite_ = 0;
    if (!std::isfinite(loss) || cuts_left_ == 0) return true;
    --cuts_left_;
    return false;
  }

  static constexpr int kMostCuts = 24;  // Bring 65,536 down to 2^-8, as far as a run may go.

 private:
  static constexpr int kGrowAfter = 2000;

  int cuts_left_;
  int finite_ = 0;  // Steps since the scale last changed.
  bool scaled_;
};

}  // namespace lockstep::trainer
