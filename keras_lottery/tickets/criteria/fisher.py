"""The second-order effect of a weight on the loss, from gradients."""

import numpy as np

from keras_lottery.tickets import Snapshot
from keras_lottery.tickets.allocation import Scores
from keras_lottery.tickets.criteria.batches import batches, mean_over_batches


def fisher(snapshot: Snapshot) -> Scores:
    """w² E[(∂L/∂w)²] / 2: keeps the weights that the data determine most.

    E is the mean over batches. A batch has one example for up to 100 examples, and 32
    from 3,200 examples on. With one example per batch, E is the diagonal of the
    empirical Fisher information; with n of them, near a minimum, it is that diagonal
    divided by n.

    Reference:
        Theis et al. 2018, "Faster gaze prediction with dense networks and Fisher
        pruning": the saliency of a feature map, for weights.
    """
    data = batches(snapshot.model, *snapshot.training_data())
    mean = mean_over_batches(snapshot, np.square, data)
    return {name: snapshot.final[name] ** 2 * mean[name] / 2 for name in snapshot.masks}
