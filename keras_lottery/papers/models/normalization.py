"""Batch normalisation as the papers' networks have it."""

from keras import layers


def normalization(name: str) -> layers.BatchNormalization:
    """A layer whose moving statistics follow the weights within some tens of steps.

    A momentum of 0.9 is that of the papers' frameworks. Keras's own, 0.99, leaves
    evaluations some hundred steps behind the training.
    """
    return layers.BatchNormalization(momentum=0.9, name=name)
