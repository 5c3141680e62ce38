// Folders of JPEG and PNG pictures, one sub-folder per class:
//
//   path/train/<class>/*.jpg                the training pictures
//   path/val/<class>/*.png  or path/test/…  the held-out ones; val where both are there
//
// Classes are the sub-folders sorted by name (byte by byte), the same in both splits; samples are
// sorted by class, then name. Pictures are *.jpg, *.jpeg and *.png, whatever the case; other and
// hidden files are left out and counted.
//
// Opening looks at the header and the end of every picture, with many threads, so that a bad one is
// found before the first step. Decoded pictures stay in memory when all of the split take less than
// cache_bytes: later epochs then cost no decoding.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "trainer/data/dataset.h"

namespace lockstep::trainer {

struct ImageFolderOptions {
  std::string path;
  Split split = Split::kTrain;
  int image_size = 0;  // Pixels; pictures are shrunk or enlarged to this square. 0: they must all
                       // have one size already, which is kept.
  int threads = 0;     // For the look at every picture; 0 = as many as the machine has cores.
  int64_t cache_bytes = int64_t{512} << 20;  // 0 = keep nothing.
};

/// Throws DataError naming the folder or the pictures (up to 20 of them) and the reason.
std::unique_ptr<Dataset> OpenImageFolder(const ImageFolderOptions& options);

}  // namespace lockstep::trainer
