#include "trainer/checkpoint/manifest.h"

#include <xxhash.h>

#include <new>
#include <nlohmann/json.hpp>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "trainer/checkpoint/store.h"

namespace lockstep::trainer {
namespace {

using Json = nlohmann::ordered_json;

constexpr char kFormat[] = "lockstep-checkpoint";
constexpr size_t kDigits = 32;
// As ToJson() writes it; the digits follow.
constexpr char kOwnHashKey[] = "\"manifest_xxh3_128\": \"";

std::string Hash(const std::string& text) {
  return Describe({std::as_bytes(std::span(text))}).xxh3_128;
}

absl::Status Damaged(const std::string& problem) {
  return absl::DataLossError(absl::StrCat(kManifestFile, ": ", problem));
}

// The version is looked at first: the rest of a newer manifest may be anything.
absl::Status CheckFormat(const Json& json) {
  const auto format = json.find("format");
  const auto version = json.find("format_version");
  if (format == json.end() || !format->is_string() || version == json.end() ||
      !version->is_number_integer()) {
    return Damaged("does not say its format and version");
  }
  if (format->get<std::string>() != kFormat) {
    return absl::FailedPreconditionError(
        absl::StrCat(kManifestFile, ": format '", format->get<std::string>(), "' is not '", kFormat,
                     "': something else wrote this folder"));
  }
  if (version->get<int64_t>() != kCheckpointFormatVersion) {
    return absl::FailedPreconditionError(
        absl::StrCat(kManifestFile, ": format version ", version->get<int64_t>(),
                     "; this program reads version ", kCheckpointFormatVersion,
                     ": use the version of Lockstep that wrote it"));
  }
  return absl::OkStatus();
}

absl::Status CheckOwnHash(std::string text) {
  const size_t key = text.rfind(kOwnHashKey);
  if (key == std::string::npos) return Damaged("has no hash of its own");
  const size_t digits = key + sizeof(kOwnHashKey) - 1;
  if (text.size() < digits + kDigits) return Damaged("is cut off");
  const std::string written = text.substr(digits, kDigits);
  text.replace(digits, kDigits, kDigits, '0');
  if (Hash(text) != written) return Damaged("its bytes do not match its own hash");
  return absl::OkStatus();
}

// What the hash has proved to be as written is read without suspicion.
Manifest Read(const Json& json) {
  Manifest manifest;
  manifest.step = json.at("step").get<int64_t>();
  manifest.created_unix_seconds = json.at("created_unix_seconds").get<double>();
  if (json.contains("metric")) manifest.metric = json.at("metric").get<double>();
  for (const auto& [name, entry] : json.at("files").items()) {
    manifest.files[name] = {entry.at("size").get<int64_t>(),
                            entry.at("xxh3_128").get<std::string>()};
  }
  return manifest;
}

}  // namespace

int64_t Manifest::TotalBytes() const {
  int64_t total = 0;
  for (const auto& [name, entry] : files) total += entry.bytes;
  return total;
}

std::string ToJson(const Manifest& manifest) {
  Json json;
  json["format"] = kFormat;
  json["format_version"] = kCheckpointFormatVersion;
  json["step"] = manifest.step;
  json["created_unix_seconds"] = manifest.created_unix_seconds;
  if (manifest.metric) json["metric"] = *manifest.metric;
  for (const auto& [name, entry] : manifest.files) {
    json["files"][name] = {{"size", entry.bytes}, {"xxh3_128", entry.xxh3_128}};
  }
  json["manifest_xxh3_128"] = std::string(kDigits, '0');
  std::string text = json.dump(2) + "\n";
  const size_t digits = text.rfind(kOwnHashKey) + sizeof(kOwnHashKey) - 1;
  return text.replace(digits, kDigits, Hash(text));
}

absl::StatusOr<Manifest> ParseManifest(const std::string& text) {
  const Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) return Damaged("is not a JSON object");
  const absl::Status format = CheckFormat(json);
  if (!format.ok()) return format;
  if (absl::Status status = CheckOwnHash(text); !status.ok()) return status;
  try {
    Manifest manifest = Read(json);
    for (const char* name : {kWeightsFile, kOptimizerFile, kStateFile}) {
      if (manifest.files.count(name) == 0) return Damaged(absl::StrCat("does not list ", name));
    }
    if (manifest.files.size() != 3) return Damaged("lists files that do not belong here");
    return manifest;
  } catch (const nlohmann::json::exception& error) {
    return Damaged(error.what());
  }
}

struct Hasher::State {
  XXH3_state_t* xxh3 = XXH3_createState();
  int64_t bytes = 0;
};

Hasher::Hasher() : state_(std::make_unique<State>()) {
  if (state_->xxh3 == nullptr) throw std::bad_alloc();
  XXH3_128bits_reset(state_->xxh3);
}

Hasher::~Hasher() {
  XXH3_freeState(state_->xxh3);
}

void Hasher::Add(std::span<const std::byte> piece) {
  XXH3_128bits_update(state_->xxh3, piece.data(), piece.size());
  state_->bytes += static_cast<int64_t>(piece.size());
}

ManifestEntry Hasher::Finish() const {
  XXH128_canonical_t canonical;
  XXH128_canonicalFromHash(&canonical, XXH3_128bits_digest(state_->xxh3));
  return {state_->bytes,
          absl::BytesToHexString(absl::string_view(reinterpret_cast<const char*>(canonical.digest),
                                                   sizeof(canonical.digest)))};
}

ManifestEntry Describe(const std::vector<std::span<const std::byte>>& pieces) {
  Hasher hasher;
  for (const auto& piece : pieces) hasher.Add(piece);
  return hasher.Finish();
}

}  // namespace lockstep::trainer
