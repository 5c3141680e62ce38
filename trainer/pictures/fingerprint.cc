#include "trainer/pictures/fingerprint.h"

#include <xxhash.h>

#include <cinttypes>
#include <cstdio>
#include <new>

namespace lockstep::trainer {

void Fingerprint::Free::operator()(XXH3_state_s* state) const {
  XXH3_freeState(state);
}

Fingerprint::Fingerprint() : state_(XXH3_createState()) {
  if (!state_) throw std::bad_alloc();
  XXH3_128bits_reset(state_.get());
}

Fingerprint::~Fingerprint() = default;

void Fingerprint::Add(std::string_view text) {
  Add(static_cast<int64_t>(text.size()));
  XXH3_128bits_update(state_.get(), text.data(), text.size());
}

void Fingerprint::Add(int64_t number) {
  XXH3_128bits_update(state_.get(), &number, sizeof number);
}

void Fingerprint::Add(double number) {
  XXH3_128bits_update(state_.get(), &number, sizeof number);
}

std::string Fingerprint::Hex() const {
  const XXH128_hash_t hash = XXH3_128bits_digest(state_.get());
  char text[33];
  std::snprintf(text, sizeof text, "%016" PRIx64 "%016" PRIx64, uint64_t{hash.high64},
                uint64_t{hash.low64});
  return text;
}

}  // namespace lockstep::trainer
