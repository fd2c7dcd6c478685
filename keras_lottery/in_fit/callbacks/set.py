"""Sparse evolutionary training, where random weights replace the smallest ones."""

import keras
import numpy as np

from keras_lottery import checks
from keras_lottery.in_fit.callbacks.regrowth import Regrowth
from keras_lottery.keras_bridge.layers import get_masks
from keras_lottery.tickets.allocation import AllocationLike, Scores


@keras.saving.register_keras_serializable(package="keras_lottery")
class SET(Regrowth):
    """Trains sparse from the start; random weights take the place of the smallest.

    Every `frequency` steps before `end_step`, each layer drops the share `zeta` of its
    weights, those of the smallest magnitude, and grows as many at random positions.
    New weights start at zero, with optimizer slots of zero. The number of weights of
    each layer stays the same. Frozen layers keep their masks, and do not count. A `fit`
    that is too short for an update warns.

    Steps are counted by the optimizer, so a second `fit` resumes where the first one
    stopped. With `steps_per_execution`, masks change between executions, at most once.

    Args:
        sparsity: the share of prunable weights, not counting frozen ones, that are
            zero. A dense model is pruned at random when training begins; a sparse one
            has to have this sparsity. `None` takes a sparse model as it is.
        end_step: no masks change from this step on.
        frequency: the number of steps from one update to the next, below `end_step`; an
            epoch in the paper.
        zeta: ζ, the share of live weights that are dropped at an update.
        allocation: how many weights each layer of a dense model keeps, see `prune`.
        seed: seed of the start and of growth.

    Raises:
        ValueError: if an argument is out of range; when training begins, if the model
            is not masked, does not fit `sparsity`, or is dense and past `end_step`.

    Reference:
        Mocanu et al. 2018, "Scalable training of artificial neural networks with
        adaptive sparse connectivity inspired by network science", algorithm 1. There,
        positive and negative weights each lose the share ζ.

    Example::

        model = kl.mask_model(kl.models.lenet_300_100())
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile("adam", loss)
        regrowth = kl.SET(0.9, end_step=1000, frequency=20)
        model.fit(x, y, epochs=8, callbacks=[regrowth])
        kl.get_sparsity(model)  # 0.9, from the first step to the last
    """

    def __init__(
        self,
        sparsity: float | None,
        end_step: int,
        frequency: int = 100,
        zeta: float = 0.3,
        allocation: AllocationLike = "erk",
        seed: int = 0,
    ) -> None:
        super().__init__(sparsity, end_step, frequency, allocation, seed)
        checks.fraction("zeta", zeta, zero=False, one=True)
        self.zeta = zeta

    def drop_fraction(self, step: int) -> float:
        """The share ζ, which is the same at every step."""
        return self.zeta

    def growth_scores(self, step: int) -> Scores:
        """Random numbers that depend on the seed and the step."""
        rng = np.random.default_rng([self.seed, step])
        return {name: rng.random(m.shape) for name, m in get_masks(self.model).items()}
