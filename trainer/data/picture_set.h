// A data set of stored pictures, whatever they are stored in: looked at before the first step,
// counted, described, read through PictureReader (trainer/pictures/picture_reader.h).
//
// data.on_bad_sample: skip leaves out what the look found bad; since that depends on the files
// alone, all ranks and resumes agree. A picture that goes bad after that (removed, truncated, while
// training reads it) is replaced by the next good one of the same class, the same on every rank,
// and counted; with fail, Read() throws and names it.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "trainer/data/dataset.h"
#include "trainer/data/picture_listing.h"

namespace lockstep::trainer {

struct PictureSetOptions {
  Split split = Split::kTrain;
  const config::RunConfig& config;
  const Preprocessing* preprocessing = nullptr;  // In place of the config's.
};

/// Throws DataError naming the bad pictures (the first twenty) and the reasons; a data set without
/// any picture left; pictures of several sizes where one is needed.
std::unique_ptr<Dataset> OpenPictureSet(PictureListing listing, const PictureSetOptions& options);

}  // namespace lockstep::trainer
