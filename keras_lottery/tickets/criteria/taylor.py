"""The first-order effect of a weight on the loss, after training."""

import numpy as np

from keras_lottery.tickets import Snapshot
from keras_lottery.tickets.allocation import Scores
from keras_lottery.tickets.criteria.batches import batches, mean_over_batches


def taylor(snapshot: Snapshot) -> Scores:
    """|w| E|∂L/∂w|: keeps the weights whose removal moves the loss of a batch most.

    E is the mean over batches. A batch has one example for up to 100 examples, and 32
    from 3,200 examples on. The gradient of the mean loss, which `snip` uses, vanishes
    in a trained network.

    Reference:
        Molchanov et al. 2017, "Pruning convolutional neural networks for resource
        efficient inference": the Taylor criterion, for weights.
    """
    data = batches(snapshot.model, *snapshot.training_data())
    mean = mean_over_batches(snapshot, np.abs, data)
    return {name: np.abs(snapshot.final[name]) * mean[name] for name in snapshot.masks}
