// Hashing what a data set is made of. Each part goes in with its length, so that parts cannot run
// into one another.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

struct XXH3_state_s;

namespace lockstep::trainer {

class Fingerprint {
 public:
  Fingerprint();
  ~Fingerprint();
  void Add(std::string_view text);
  void Add(int64_t number);
  void Add(double number);
  /// 32 hexadecimal digits: xxh3-128 of all that was added.
  std::string Hex() const;

 private:
  struct Free {
    void operator()(XXH3_state_s* state) const;
  };
  std::unique_ptr<XXH3_state_s, Free> state_;
};

}  // namespace lockstep::trainer
