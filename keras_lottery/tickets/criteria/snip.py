"""The effect of a weight on the loss, before training."""

import numpy as np

from keras_lottery.keras_bridge.gradients import training_loss
from keras_lottery.tickets import Snapshot
from keras_lottery.tickets.allocation import Scores
from keras_lottery.tickets.criteria.criterion import in_rounds


def snip(snapshot: Snapshot) -> Scores:
    """|w ∂L/∂w|: keeps the weights that the loss depends on most.

    L is the compiled loss on all of the data in training mode: BatchNorm uses the
    statistics of each batch (of 256 examples), as the moving averages of an untrained
    network say nothing yet, and Dropout drops. L is the loss of the data alone, without
    the penalties of regularisers. The paper uses one batch with a few examples of each
    class.

    Reference:
        Lee et al. 2019, "SNIP: single-shot network pruning based on connection
        sensitivity": the connection sensitivity, not divided by its sum.

    Example:

    >>> import keras
    >>> import keras_lottery as kl
    >>> x, y = kl.data.load("digits").train
    >>> model = kl.mask_model(kl.models.lenet_300_100((8, 8, 1)))
    >>> model.compile(loss=keras.losses.SparseCategoricalCrossentropy(True))
    >>> kl.prune(model, 0.9, "snip", data=(x[:100], y[:100]))
    >>> round(kl.get_sparsity(model), 3)
    0.9
    """
    gradients = snapshot.gradients(scalar=training_loss)
    return {n: np.abs(snapshot.final[n] * gradients[n]) for n in snapshot.masks}


@in_rounds(100)
def iterative_snip(snapshot: Snapshot) -> Scores:
    """SNIP in 100 rounds: each round scores the weights of the network that is left.

    Reference:
        de Jorge et al. 2021, "Progressive skeletonization: trimming more fat from a
        network at initialization" ("Iterative SNIP").
    """
    return snip(snapshot)
