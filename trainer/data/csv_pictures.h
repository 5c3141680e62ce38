// Pictures with numbers, from a table: data.path is a CSV file (trainer/data/csv_file.h) of one
// line for each picture, with the column data.path_column (a path, relative to the CSV file's
// folder or absolute) and the columns to learn (data.targets, or all others but `split`).
//
// A column `split` of the words train, val and test says which line belongs where; without it
// data.split shares the lines out, by the seed and the paths (trainer/data/split.h). Where no line
// is val, the test lines are the held-out ones.
//
// csv_regression: any finite numbers. Each target's mean and (population) standard deviation are
// those of the training lines, also of the ones whose picture is bad, and of all of them where
// data.train_samples takes a part. A target that is the same number in every training line cannot
// be learnt and is an error. csv_multilabel: 0 or 1.
#pragma once

#include "trainer/data/picture_listing.h"

namespace lockstep::trainer {

/// Throws DataError naming the file, or every line (the first twenty) as FILE:LINE with the column:
/// a column that is not there, a field that is empty or no finite number (decimal point, whatever
/// the locale), a word that names no split. With data.on_bad_sample: skip, lines with faulty fields
/// are left out.
PictureListing ListCsvPictures(const OpenRequest& request);

}  // namespace lockstep::trainer
