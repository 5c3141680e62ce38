"""The models of the bench, as plain PyTorch: the same layers as Lockstep's (trainer/models), nothing more."""

import torch
from torch import nn


class Block(nn.Module):
    """The residual block of ResNet-18 (basic) or ResNet-50 (bottleneck)."""

    def __init__(self, inputs, channels, stride, bottleneck):
        super().__init__()
        outputs = 4 * channels if bottleneck else channels
        shapes = [(inputs, channels, 1, 1), (channels, channels, 3, stride), (channels, outputs, 1, 1)]
        if not bottleneck:
            shapes = [(inputs, channels, 3, stride), (channels, channels, 3, 1)]
        self.convs = nn.ModuleList(conv_norm(*shape) for shape in shapes)
        self.shortcut = conv_norm(inputs, outputs, 1, stride) if stride != 1 or inputs != outputs else nn.Identity()

    def forward(self, x):
        shortcut = self.shortcut(x)
        for conv in self.convs[:-1]:
            x = torch.relu_(conv(x))
        return torch.relu_(self.convs[-1](x).add_(shortcut))


def conv_norm(inputs, outputs, kernel, stride):
    return nn.Sequential(nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(outputs))


def resnet(blocks, bottleneck, image_size, classes):
    small = image_size <= 64
    layers = [conv_norm(3, 64, 3, 1) if small else conv_norm(3, 64, 7, 2), nn.ReLU(inplace=True)]
    layers += [] if small else [nn.MaxPool2d(3, 2, 1)]
    channels = 64
    for stage, count in enumerate(blocks):
        for i in range(count):
            layers.append(Block(channels, 64 << stage, 2 if stage > 0 and i == 0 else 1, bottleneck))
            channels = (64 << stage) * (4 if bottleneck else 1)
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes))


def cnn(filters, dense, image_size, classes):
    layers, channels, size = [], 3, image_size
    for count in filters:
        layers += [conv_norm(channels, count, 3, 1), nn.ReLU(inplace=True), nn.MaxPool2d(2)]
        channels, size = count, size // 2
    layers.append(nn.Flatten())
    features = channels * size * size
    for count in dense:
        layers += [nn.Linear(features, count), nn.ReLU(inplace=True)]
        features = count
    return nn.Sequential(*layers, nn.Linear(features, classes))


def make(name, image_size, classes):
    if name == "resnet18":
        return resnet([2, 2, 2, 2], False, image_size, classes)
    if name == "resnet50":
        return resnet([3, 4, 6, 3], True, image_size, classes)
    if name == "small-cnn":
        return cnn([32, 64, 128], [256], image_size, classes)
    if name == "mlp":
        return cnn([], [4096, 4096], image_size, classes)
    raise ValueError(f"no model {name}")
