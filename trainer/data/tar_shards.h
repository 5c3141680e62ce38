// Tar archives in the layout of WebDataset: a sample is what members one after another have the
// same key, which is a member's name up to the first dot of its last part:
//
//   0001.jpg 0001.cls 0002.jpg 0002.cls …
//
// The picture ends in jpg, jpeg, png or webp; the .cls holds the class, as a number or by name, the
// same way in all archives. classes.txt beside the archives has the names, one on each line: number
// n is line n, from 0. Without it numbers are their own names and names are sorted. Other members
// are left out and counted.
//
//   path/train-*.tar and path/val-*.tar, path/test-*.tar     given splits, or
//   path/train/*.tar and path/val/*.tar, path/test/*.tar     likewise, or
//   path/*.tar with data.split                               shared out, class by class
//
// Samples are in the order of the archives' names, then as in the archive. Opening reads every
// header and every .cls once, in order. Pictures are read by their places in the archives, so that
// the order of training stays a pure function of the seed and the epoch, and a resume needs one
// number. Training goes through the archives one after another, in a random order, and shuffles
// within a window (trainer/batches/sample_order.h), so what is read lies together.
#pragma once

#include "trainer/data/picture_listing.h"

namespace lockstep::trainer {

/// Throws DataError naming the archive and what is wrong: damaged, cut off; a sample without
/// picture or class, one whose key comes twice, a class out of range (all of them, the first
/// twenty; with data.on_bad_sample: skip they are left out).
PictureListing ListTarShards(const OpenRequest& request);

}  // namespace lockstep::trainer
