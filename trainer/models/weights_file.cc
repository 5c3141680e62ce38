#include "trainer/models/weights_file.h"

#include <cstring>
#include <filesystem>
#include <fstream>
#include <system_error>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "trainer/checkpoint/checkpoint_folder.h"
#include "trainer/models/torch_file.h"

namespace lockstep::trainer {
namespace {

namespace fs = std::filesystem;

absl::Status About(const std::string& path, const absl::Status& status) {
  return absl::Status(status.code(), absl::StrCat(path, ": ", status.message()));
}

absl::StatusOr<std::vector<std::byte>> ReadWhole(const fs::path& path) {
  std::error_code error;
  const std::uintmax_t size = fs::file_size(path, error);
  std::ifstream in(path, std::ios::binary);
  if (error || !in) {
    return absl::InvalidArgumentError(error ? error.message() : "cannot be opened for reading");
  }
  std::vector<std::byte> bytes(size);
  in.read(reinterpret_cast<char*>(bytes.data()), static_cast<std::streamsize>(size));
  if (static_cast<std::uintmax_t>(in.gcount()) != size) {
    return absl::DataLossError(
        absl::StrCat("only ", in.gcount(), " of ", size, " bytes could be read"));
  }
  return bytes;
}

// What a file is that is no weights; empty where nobody knows.
std::string WhatItIs(const std::vector<std::byte>& bytes) {
  if (bytes.empty()) return "the file is empty";
  std::string start(reinterpret_cast<const char*>(bytes.data()),
                    std::min<size_t>(bytes.size(), 256));
  if (absl::StartsWith(start, "version https://git-lfs")) {
    return "the file is a pointer of git lfs, not the weights; fetch them with `git lfs pull`";
  }
  if (absl::StartsWith(start, "\x89HDF")) {
    return "the file is HDF5 (Keras?); weights are read from safetensors and PyTorch state dicts";
  }
  if (absl::StartsWith(start, "\x80")) {
    return "the file is a pickle, but none of torch.save's; save model.state_dict() with it";
  }
  start = absl::AsciiStrToLower(absl::StripLeadingAsciiWhitespace(start));
  if (absl::StartsWith(start, "<!doctype") || absl::StartsWith(start, "<html") ||
      absl::StartsWith(start, "<?xml")) {
    return "the file is a web page, not weights: what the download gave was probably an error";
  }
  return "";
}

bool LooksLikeSafetensors(const std::vector<std::byte>& bytes) {
  return bytes.size() > 8 && bytes[8] == std::byte{'{'};
}

absl::Status ParseInto(WeightsFile& file) {
  if (LooksLikeTorchFile(file.bytes)) {
    file.format = "PyTorch state dict";
    absl::StatusOr<TorchFile> parsed = ParseTorchFile(file.bytes);
    if (!parsed.ok()) return parsed.status();
    file.tensors = std::move(parsed->tensors);
    file.copies = std::move(parsed->copies);
    return absl::OkStatus();
  }
  if (!LooksLikeSafetensors(file.bytes)) {
    const std::string other = WhatItIs(file.bytes);
    return absl::InvalidArgumentError(
        other.empty() ? "the file is neither safetensors nor a PyTorch state dict (.pth, .pt)"
                      : other);
  }
  if (file.format.empty()) file.format = "safetensors";
  absl::StatusOr<SafetensorsView> parsed = ParseSafetensors(file.bytes);
  if (!parsed.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat("the safetensors file is damaged or cut short: ", parsed.status().message()));
  }
  file.tensors = std::move(parsed->tensors);
  return absl::OkStatus();
}

absl::StatusOr<std::vector<std::byte>> ReadCheckpoint(const fs::path& path) {
  absl::StatusOr<CheckpointFolder> folder = CheckpointFolder::Open(path);
  if (!folder.ok()) {
    return absl::Status(folder.status().code(),
                        absl::StrCat(folder.status().message(),
                                     "; expected a checkpoint's folder, such as "
                                     "RUN/checkpoints/step-000000123, or a file"));
  }
  return folder->Read(kWeightsFile);
}

}  // namespace

absl::StatusOr<WeightsFile> ReadWeightsFile(const std::string& path) {
  std::error_code error;
  const fs::file_status kind = fs::status(path, error);
  if (kind.type() == fs::file_type::not_found) {
    return absl::NotFoundError(absl::StrCat(path, ": there is no such file of weights"));
  }
  WeightsFile file;
  const bool folder = kind.type() == fs::file_type::directory;
  if (folder) file.format = "checkpoint";
  if (!folder && kind.type() != fs::file_type::regular) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": ", error ? error.message() : "neither a file nor a folder"));
  }
  // Without the slash that would make the folder's name empty.
  fs::path plain = fs::path(path).lexically_normal();
  if (!plain.has_filename()) plain = plain.parent_path();
  absl::StatusOr<std::vector<std::byte>> bytes = folder ? ReadCheckpoint(plain) : ReadWhole(plain);
  if (!bytes.ok()) return About(path, bytes.status());
  file.bytes = *std::move(bytes);
  const absl::Status parsed = ParseInto(file);
  if (!parsed.ok()) return About(path, parsed);
  file.xxh3_128 = Describe({file.bytes}).xxh3_128;
  return file;
}

}  // namespace lockstep::trainer
