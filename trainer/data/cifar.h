// CIFAR-10 and CIFAR-100 in their binary version (https://www.cs.toronto.edu/~kriz/cifar.html).
//
//   CIFAR-10   data_batch_1.bin … data_batch_5.bin, test_batch.bin: 10,000 records each of 1 label
//              byte and 3072 pixel bytes; batches.meta.txt names the classes
//   CIFAR-100  train.bin with 50,000 and test.bin with 10,000 records of a coarse label, a fine
//              label (the one used) and 3072 pixel bytes; fine_label_names.txt names the classes
//
// Pixels are planes: 1024 red, 1024 green, 1024 blue, each row by row. The files are mapped, so the
// ranks of one host share one copy in memory; they must not be truncated while a run reads them.
#pragma once

#include <memory>
#include <string>

#include "trainer/data/dataset.h"

namespace lockstep::trainer {

struct CifarOptions {
  std::string path;  // The folder of the files, or the folder that the archive was unpacked in.
  bool hundred = false;
  Split split = Split::kTrain;
};

/// Checks every file's length and every label. Throws DataError naming the file (and the record).
std::unique_ptr<Dataset> OpenCifar(const CifarOptions& options);

}  // namespace lockstep::trainer
