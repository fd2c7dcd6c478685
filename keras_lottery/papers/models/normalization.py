"""Batch normalisation as in the papers' networks."""

from keras import layers


def normalization(name: str) -> layers.BatchNormalization:
    """A layer whose moving statistics follow the weights within tens of steps.

    The momentum of 0.9 is the default of the papers' frameworks. With Keras's default
    of 0.99, evaluations lag hundreds of steps behind the training.
    """
    return layers.BatchNormalization(momentum=0.9, name=name)
