// Folders of pictures, one sub-folder per class. Either the splits are given as folders:
//
//   path/train/<class>/*.jpg                the training pictures
//   path/val/<class>/*.png  or path/test/…  the held-out ones; where both are there val is held out
//                                           and test is the test split
//
// or data.split says how to share out path/<class>/*.jpg, class by class (trainer/data/split.h).
//
// Classes are the sub-folders sorted by name (byte by byte), the same in every split; samples are
// sorted by class, then name. Pictures are *.jpg, *.jpeg, *.png and *.webp, whatever the case;
// other and hidden files are left out and counted. Links are followed; folders within a class are
// not gone into, so a link that leads back cannot hang anything.
#pragma once

#include "trainer/data/picture_listing.h"

namespace lockstep::trainer {

/// Throws DataError naming the folder and what is wrong with it: missing, not listable, no classes,
/// a class without pictures, a class that only one split has, a class too small to be shared out.
PictureListing ListImageFolder(const OpenRequest& request);

/// By the ending: .jpg, .jpeg, .png, .webp.
bool IsPictureName(const std::string& name);

}  // namespace lockstep::trainer
