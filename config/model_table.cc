// The table of `model:` in run.yaml.
#include "config/run_table.h"

namespace lockstep::config {
namespace {

Fields<ConvBlockConfig> ConvBlock() {
  Fields<ConvBlockConfig> f;
  f.Integer("filters", &ConvBlockConfig::filters, "Output channels of the convolution.")
      .Range(1, 8192);
  f.Integer("kernel", &ConvBlockConfig::kernel, "Height and width of the convolution's kernel.")
      .Range(1, 31)
      .Unit("pixels");
  f.Integer("stride", &ConvBlockConfig::stride, "Step of the convolution.")
      .Range(1, 31)
      .Unit("pixels");
  f.Integer("padding", &ConvBlockConfig::padding,
            "Zeros around the picture before the convolution. auto: kernel / 2, which keeps the "
            "size at stride 1.")
      .Range(0, 31)
      .Auto(-1)
      .Unit("pixels");
  f.Choice("pool", &ConvBlockConfig::pool, {"none", "max", "average"},
           "Pool after the activation, with a stride of its size.");
  f.Integer("pool_size", &ConvBlockConfig::pool_size, "Height and width of the pool.")
      .Range(2, 31)
      .Unit("pixels");
  f.Boolean("batch_norm", &ConvBlockConfig::batch_norm,
            "Batch norm between the convolution and the activation.");
  f.Choice("activation", &ConvBlockConfig::activation,
           {"auto", "relu", "leaky_relu", "gelu", "silu", "tanh", "none"},
           "Activation of this block. auto: the cnn's.");
  f.Number("dropout", &ConvBlockConfig::dropout, "Probability of dropout after the pool.")
      .Below(0, 1);
  return f;
}

Fields<CnnConfig> Cnn() {
  Fields<CnnConfig> f;
  f.GroupList("blocks", &CnnConfig::blocks, ConvBlock(),
              "Convolution blocks, first to last. Empty: the picture goes straight to the dense "
              "layers.")
      .AtMost(64);
  f.Boolean("global_pool", &CnnConfig::global_pool,
            "Average over height and width before the dense layers.");
  f.IntegerList("dense", &CnnConfig::dense,
                "Sizes of the hidden dense layers before the classifier.")
      .Range(1, 1 << 16)
      .AtMost(16);
  f.Number("dropout", &CnnConfig::dropout,
           "Probability of dropout before each dense layer and before the classifier.")
      .Below(0, 1);
  f.Choice("activation", &CnnConfig::activation, {"relu", "leaky_relu", "gelu", "silu", "tanh"},
           "Activation after each convolution and each hidden dense layer.");
  return f;
}

Fields<HeadConfig> Head() {
  Fields<HeadConfig> f;
  f.Choice("kind", &HeadConfig::replace, {"own", "dense"},
           "own: the model's head, as published. dense: the trunk's features averaged over the "
           "picture, the hidden layers below, the classifier.");
  f.IntegerList("dense", &HeadConfig::dense, "For dense: sizes of the hidden layers.")
      .Range(1, 1 << 16)
      .AtMost(16);
  f.Number("dropout", &HeadConfig::dropout,
           "For dense: probability of dropout before each hidden layer and the classifier.")
      .Below(0, 1);
  return f;
}

}  // namespace

Fields<ModelConfig> ModelTable() {
  Fields<ModelConfig> f;
  f.TextChoice("name", &ModelConfig::name,
               {"cnn", "resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "vgg11",
                "vgg13", "vgg16", "vgg19", "vgg11_bn", "vgg13_bn", "vgg16_bn", "vgg19_bn",
                "inception_v3", "mobilenet_v2"},
               "Which model: cnn is composed from the keys below model.cnn.");
  f.Integer("num_classes", &ModelConfig::num_classes,
            "Outputs of the model. auto: the data set's classes or targets.")
      .Range(1, 1 << 20)
      .Auto();
  f.TextChoice("stem", &ModelConfig::stem, {"auto", "imagenet", "cifar"},
               "First layer of a resnet: imagenet (7x7, stride 2, max pool) or cifar (3x3). auto: "
               "cifar for pictures up to 64 pixels.");
  f.Boolean("sync_batch_norm", &ModelConfig::sync_batch_norm,
            "Batch norm over the samples that all ranks put through the model at once, instead of "
            "each rank over its own.");
  f.Group("cnn", &ModelConfig::cnn, Cnn(), "Layers of the model named cnn.");
  f.Group("head", &ModelConfig::head, Head(), "What turns the trunk's features into outputs.");
  f.Number("auxiliary_loss_weight", &ModelConfig::auxiliary_loss_weight,
           "For inception_v3: weight of the auxiliary head's loss in training. 0: without it.")
      .Within(0, 10);
  f.Text("pretrained", &ModelConfig::pretrained,
         "Start from these weights: a safetensors file, a PyTorch state dict (.pth, .pt), a "
         "checkpoint folder, or a name from the daemon's table of weights. Empty: from the seed.");
  f.Text("freeze", &ModelConfig::freeze,
         "What keeps its weights: backbone (all but the head), `N layers` (the first N that have "
         "weights; a norm belongs to the layer before it), or none. Frozen batch norms use their "
         "running statistics.")
      .Pattern("^(none|backbone|[1-9][0-9]{0,3} layers)$", "none, backbone, or N layers");
  f.Length("unfreeze_after", &ModelConfig::unfreeze_after,
           {Duration::Unit::kEpochs, Duration::Unit::kSteps},
           "Train the frozen part too from here on. 0s: never.");
  f.Choice("feature_cache", &ModelConfig::feature_cache, kUseWords,
           "Run the frozen trunk once over the data and train the head on what comes out. auto: "
           "where all of the trunk stays frozen and no random augmentation forbids it.");
  f.Integer("feature_views", &ModelConfig::feature_views,
            "Augmented variants of each training picture in the feature cache; one is used per "
            "epoch. 1: only the picture as it is.")
      .Range(1, 1000);
  return f;
}

}  // namespace lockstep::config
