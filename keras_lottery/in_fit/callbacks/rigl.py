"""RigL ("rigging the lottery"), where weights grow where gradients are largest."""

import math
from typing import Any

import keras
import numpy as np

from keras_lottery import checks
from keras_lottery.in_fit.callbacks.dense_gradients import DenseGradients
from keras_lottery.in_fit.callbacks.regrowth import Regrowth
from keras_lottery.tickets.allocation import AllocationLike, Scores


@keras.saving.register_keras_serializable(package="keras_lottery")
class RigL(Regrowth):
    """Trains sparse from the start; weights grow where the gradient is largest.

    Every `frequency` steps t before `end_step`, each layer drops the share
    α/2 (1 + cos(π t / end_step)) of its weights, those of the smallest magnitude, and
    grows as many of those that are not kept, where the gradient of the loss is largest.
    A weight that is dropped and grows again at once keeps its value; others start at
    zero, with optimizer slots of zero. The number of weights of each layer stays the
    same. Frozen layers keep their masks, and do not count. A `fit` that is too short
    for an update warns.

    Only at these steps, the gradients of a training step with respect to all weights,
    including pruned ones, are computed on one batch drawn from `data`. That is one more
    forward and backward pass for each update, in addition to the step itself.

    Steps are counted by the optimizer, so a second `fit` resumes where the first one
    stopped. With `steps_per_execution`, masks change between executions, at most once.

    Args:
        sparsity: the share of prunable weights, not counting frozen ones, that are
            zero. A dense model is pruned at random when training begins; a sparse one
            has to have this sparsity. `None` takes a sparse model as it is.
        end_step: T_end; no masks change from this step on. In the paper, it is at three
            quarters of the training.
        data: the training data, to draw batches from: (x, y) in arrays or structures
            of them, or a `tf.data.Dataset` or `PyDataset`, which is read whole.
        frequency: ΔT, the number of steps from one update to the next, below
            `end_step`.
        alpha: α, the share of live weights that the first updates drop.
        allocation: how many weights each layer of a dense model keeps, see `prune`:
            the paper uses `"uniform"`, `"erdos_renyi"` and `"erk"`.
        batch_size: examples in a batch of `data`.
        seed: seed of the start and of the batches.

    Raises:
        ValueError: if an argument is out of range; when training begins, if there are
            no data, or the model is not masked, does not fit `sparsity`, or is dense
            and past `end_step`.

    Reference:
        Evci et al. 2020, "Rigging the lottery: making all tickets winners", algorithm
        1 and section 3.

    Example:

    >>> x, y = np.ones((8, 10)), np.ones((8, 10))
    >>> regrowth = RigL(0.9, end_step=30, data=(x, y), frequency=10)
    >>> [round(regrowth.drop_fraction(step), 3) for step in (0, 15, 30)]
    [0.3, 0.15, 0.0]
    """

    def __init__(
        self,
        sparsity: float | None,
        end_step: int,
        data: Any = None,
        frequency: int = 100,
        alpha: float = 0.3,
        allocation: AllocationLike = "erk",
        batch_size: int = 256,
        seed: int = 0,
    ) -> None:
        super().__init__(sparsity, end_step, frequency, allocation, seed)
        checks.count("batch_size", batch_size, 1)
        checks.fraction("alpha", alpha, zero=False, one=True)
        self.data = data
        self.alpha = alpha
        self.batch_size = batch_size

    def start(self) -> None:
        self._gradients = DenseGradients(self.model, self.data, self.batch_size)
        super().start()

    def drop_fraction(self, step: int) -> float:
        """The share α/2 (1 + cos(π t / T_end))."""
        return self.alpha / 2 * (1 + math.cos(math.pi * step / self.end_step))

    def growth_scores(self, step: int) -> Scores:
        """The magnitude of the loss's gradient with respect to each weight."""
        return self._gradients(np.random.default_rng([self.seed, step]))
