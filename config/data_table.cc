// The table of `data:` in run.yaml.
#include "config/run_table.h"

namespace lockstep::config {
namespace {

constexpr int kMostPixels = 4096;

Fields<ColorJitterConfig> ColorJitter() {
  Fields<ColorJitterConfig> f;
  f.Number("brightness", &ColorJitterConfig::brightness,
           "Multiply the brightness by a random factor from 1 - this to 1 + this.")
      .Within(0, 1);
  f.Number("contrast", &ColorJitterConfig::contrast, "Likewise the contrast.").Within(0, 1);
  f.Number("saturation", &ColorJitterConfig::saturation, "Likewise the saturation.").Within(0, 1);
  f.Number("hue", &ColorJitterConfig::hue,
           "Turn the hue by a random part of the colour circle, up to this either way.")
      .Within(0, 0.5);
  return f;
}

Fields<AugmentConfig> Augment() {
  Fields<AugmentConfig> f;
  f.Choice("flip", &AugmentConfig::horizontal_flip, {"none", "horizontal"},
           "Mirror a training picture left to right with probability one half.");
  f.Integer("crop_padding", &AugmentConfig::crop_padding,
            "Pad a training picture by this much on each side and crop it back at a random place.")
      .Range(0, kMostPixels)
      .Unit("pixels");
  f.Number("resized_crop", &AugmentConfig::resized_crop,
           "Train on a random crop of at least this share of the picture's area and a shape from "
           "3:4 to 4:3, resized; 0.08 is usual for ImageNet. 0: off.")
      .Within(0, 1);
  f.Number("rotation_degrees", &AugmentConfig::rotation_degrees,
           "Turn a training picture by a random angle, up to this either way.")
      .Within(0, 180)
      .Unit("degrees");
  f.Group("color_jitter", &AugmentConfig::color_jitter, ColorJitter(),
          "Random changes of colour. 0: off.");
  f.Number("random_erasing", &AugmentConfig::random_erasing,
           "Probability of blanking a random rectangle of a training picture.")
      .Within(0, 1);
  f.Number("mixup", &AugmentConfig::mixup,
           "Blend each training picture and its target with another one; the share is drawn from "
           "a beta distribution with this alpha. 0: off.")
      .Within(0, 100);
  f.Number("cutmix", &AugmentConfig::cutmix,
           "Paste a rectangle of another training picture, targets shared by area; alpha as for "
           "mixup. With both, one of the two is drawn for each sample. 0: off.")
      .Within(0, 100);
  return f;
}

}  // namespace

Fields<DataConfig> DataTable() {
  Fields<DataConfig> f;
  f.Choice("kind", &DataConfig::kind,
           {"shapes", "cifar10", "cifar100", "image_folder", "csv_regression", "csv_multilabel",
            "tar_shards"},
           "What the data set is. shapes: drawn by the program, needs no files. image_folder: "
           "CLASS/*.jpg, below train/ and val/ or test/, or split by data.split. csv_regression, "
           "csv_multilabel: a CSV file with paths and numbers. tar_shards: *.tar in the WebDataset "
           "layout.");
  f.Text("path", &DataConfig::path,
         "The data set: the folder with the .bin files (cifar10, cifar100), with the pictures "
         "(image_folder) or with the .tar files (tar_shards), or the CSV file.");
  f.NumberList("split", &DataConfig::split,
               "Shares of training and held-out pictures, and of test pictures if there is a third "
               "number, drawn from the seed and class by class: [80, 20] or [150, 50, 50]. Empty: "
               "as the folders, the archives' names or the column `split` say.")
      .Above(0, 1e9)
      .AtMost(3);
  f.Text("path_column", &DataConfig::path_column,
         "For csv_*: the column with the picture's path, relative to the CSV file.");
  f.TextList("targets", &DataConfig::targets,
             "For csv_*: the columns to learn. Empty: all but path_column and `split`, a column of "
             "the words train, val and test that stands in for data.split.")
      .AtMost(1000);
  f.Choice("preset", &DataConfig::preset,
           {"auto", "imagenet", "inception", "vgg16_keras", "cifar", "plain"},
           "How pictures become tensors: size, resize rule, mean, std and channel order. "
           "auto: that of the data set, or what the pretrained model expects.");
  f.Integer("image_size", &DataConfig::image_size,
            "Width and height of what the model sees. auto: the preset's or the data set's own.")
      .Range(1, kMostPixels)
      .Auto()
      .Unit("pixels");
  f.Choice("resize", &DataConfig::resize, {"auto", "crop", "stretch"},
           "crop: scale the shorter side to shorter_side and cut out the centre. stretch: change "
           "the shape. auto: the preset's.");
  f.Integer("shorter_side", &DataConfig::shorter_side,
            "The shorter side before the centre is cut out. auto: the preset's share of "
            "image_size (imagenet: 8/7).")
      .Range(1, 2 * kMostPixels)
      .Auto()
      .Unit("pixels");
  f.Choice("channel_order", &DataConfig::channel_order, {"auto", "rgb", "bgr"},
           "Order of the colours in the tensor. auto: the preset's.");
  f.Integer("train_samples", &DataConfig::train_samples,
            "Train on so many pictures: generated ones (shapes) or the first of the seeded order. "
            "auto: all of them (shapes: 8000).")
      .Range(1, 1 << 30)
      .Auto()
      .Unit("samples");
  f.Integer("eval_samples", &DataConfig::eval_samples,
            "Evaluate on so many held-out pictures. auto: all of them (shapes: 2000).")
      .Range(1, 1 << 30)
      .Auto()
      .Unit("samples");
  f.Integer("prefetch_threads", &DataConfig::prefetch_threads, "Loader threads of a rank.")
      .Range(1, 64);
  f.Integer("prefetch_batches", &DataConfig::prefetch_batches, "Batches that a rank keeps ready.")
      .Range(1, 64);
  f.Choice("resident", &DataConfig::resident, kUseWords,
           "Keep all training pictures in GPU memory and augment them there. auto: where they fit "
           "into a quarter of what is free. Pictures and bits are the same either way.");
  f.Choice("on_bad_sample", &DataConfig::on_bad_sample, {"fail", "skip"},
           "What a picture that cannot be used does: end the run before its first step, or be "
           "left out, which is told and counted.");
  f.Choice("cache", &DataConfig::cache, {"auto", "memory", "disk", "never"},
           "Keep decoded and resized pictures. auto: in memory where all of them take less than "
           "512 MiB.");
  f.Text("cache_folder", &DataConfig::cache_folder,
         "Folder of the caches on disk. Empty: $XDG_CACHE_HOME/lockstep or ~/.cache/lockstep.");
  f.NumberList("mean", &DataConfig::mean,
               "Mean of red, green and blue (in the order of channel_order) on the 0 to 1 scale, "
               "subtracted from every pixel. Empty: the preset's.")
      .Within(0, 1)
      .AtMost(3);
  f.NumberList("std", &DataConfig::std,
               "Standard deviation likewise, every pixel is divided by it. Empty: the preset's.")
      .Above(0, 1)
      .AtMost(3);
  f.Group("augment", &DataConfig::augment, Augment(),
          "Random changes to training pictures; the same ones in every repetition of a run.");
  return f;
}

}  // namespace lockstep::config
