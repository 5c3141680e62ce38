// Pictures that are in the training data too: what they measure is memory, not skill.
#pragma once

#include "trainer/data/picture_listing.h"

namespace lockstep::trainer {

/// Adds a note to `held_out` that counts its files which are, by name and path, links, or byte for
/// byte, also among those of `training`, with an example. Cheap: only files of equal length are
/// read, 64 MiB in all; with more than 200,000 pictures nothing is looked at. Pictures that cannot
/// be read are left to the scan.
void NoteDuplicates(const PictureListing& training, PictureListing& held_out);

}  // namespace lockstep::trainer
