"""The recipes of the deep networks for CIFAR-10, by their differences."""

from dataclasses import replace

from keras_lottery.papers.models.recipe import Recipe

EPOCH = 351
"""Steps in an epoch of CIFAR-10: 45,000 images in batches of 128."""

# Frankle & Carbin 2019, figure 2, where the network is called ResNet-18.
RESNET_20 = Recipe(
    optimizer="sgd",
    learning_rate=0.01,
    batch_size=128,
    steps=30_000,
    rates={"conv_*": 0.2, "shortcut_*": 0.0, "output": 0.0},
    momentum=0.9,
    weight_decay=1e-4,
    drops=(20_000, 25_000),
    augment=True,
)
VGG_19 = replace(
    RESNET_20,
    batch_size=64,
    steps=112_480,
    rates={"conv_*": 0.2, "output": 0.0},
    drops=(56_240, 84_360),  # epochs 80 and 120 of 160
)
# Renda et al. 2020: 182 epochs.
RESNET_56 = replace(
    RESNET_20,
    learning_rate=0.1,
    steps=182 * EPOCH,
    weight_decay=2e-4,
    drops=(91 * EPOCH, 136 * EPOCH),
)
# Liu et al. 2021: 150 epochs. The weight decay is that of Frankle & Carbin.
VGG_11 = replace(
    RESNET_20,
    learning_rate=0.1,
    steps=150 * EPOCH,
    rates={"conv_1": 0.0, "conv_[2-8]": 0.2, "output": 0.2},
    drops=(80 * EPOCH, 120 * EPOCH),
)
MOBILENET_V2 = replace(
    VGG_11,
    rates={
        "stem": 0.0,
        "expand_*": 0.2,
        "depthwise_*": 0.2,
        "project_*": 0.2,
        "head": 0.2,
        "output": 0.2,
    },
    # Depthwise kernels are pruned, too.
    prunable=("stem", "expand_*", "depthwise_*", "project_*", "head", "output"),
)
