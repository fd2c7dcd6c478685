"""NeST, in which a sparse seed grows where gradients are large, and is then pruned."""

from typing import Any

import keras
import numpy as np

from keras_lottery import checks
from keras_lottery.in_fit.callbacks.dense_gradients import DenseGradients
from keras_lottery.in_fit.callbacks.gradual import GradualPruning, warn_below_final
from keras_lottery.in_fit.callbacks.regrowth import (
    change_masks,
    choose,
    start_sparse,
)
from keras_lottery.in_fit.callbacks.updates import MaskUpdates
from keras_lottery.keras_bridge.layers.state import trained_masks
from keras_lottery.tickets import allocation as allocations
from keras_lottery.tickets.allocation import AllocationLike, Scores, kept_after
from keras_lottery.tickets.allocation.counts import largest_remainder


@keras.saving.register_keras_serializable(package="keras_lottery")
class NeST(MaskUpdates):
    """Trains from a sparse seed, which grows by gradients and is pruned by magnitude.

    Until `peak_step`, weights grow every `frequency` steps where the gradient of the
    loss is largest. In each layer, the same share of the pruned weights grows, so that
    the sparsity falls linearly from `initial_sparsity` to `peak_sparsity`. New weights
    and their optimizer slots start at zero. From `peak_step` to `end_step`, the
    smallest weights are pruned, same as by `GradualPruning`. Frozen layers keep their
    weights and masks, and do not count.

    This is the paper's growth and pruning of connections; its growth of neurons and
    feature maps is left out.

    When weights grow, the gradients of a training step with respect to all weights,
    including pruned ones, are computed on one batch drawn from `data`.

    Steps are counted by the optimizer, so a second `fit` resumes where the first one
    stopped; a `fit` that ends below `final_sparsity` warns. With `steps_per_execution`,
    masks change between executions, at most once.

    Args:
        final_sparsity: the share of prunable weights that end up zero.
        peak_step: the step of the last growth.
        end_step: the step of the last pruning.
        data: the training data, to draw batches from: (x, y) in arrays or structures
            of them, or a `tf.data.Dataset` or `PyDataset`, which is read whole.
        frequency: steps from one update to the next.
        initial_sparsity: the sparsity of the seed. A dense model is pruned at random
            when training begins. The masks of a sparse model are the seed; it grows as
            soon as its sparsity is above that line.
        peak_sparsity: the sparsity at `peak_step`, below the other two.
        allocation: how many weights each layer keeps, in the seed and in pruning;
            same as `prune`.
        batch_size: examples in a batch of `data`.
        seed: seed of the start and of the batches.

    Raises:
        ValueError: if an argument is out of range; when training begins, if there are
            no data, the model is not masked, or it is dense and past `end_step`.

    Reference:
        Dai et al. 2019, "NeST: a neural network synthesis tool based on a
        grow-and-prune paradigm", connection growth and magnitude-based pruning.

    Example:

    >>> callback = NeST(0.9, peak_step=400, end_step=1000)
    >>> [round(callback.sparsity_at(step), 3) for step in (0, 200, 400, 700, 1000)]
    [0.9, 0.7, 0.5, 0.85, 0.9]
    """

    def __init__(
        self,
        final_sparsity: float,
        peak_step: int,
        end_step: int,
        data: Any = None,
        frequency: int = 100,
        initial_sparsity: float = 0.9,
        peak_sparsity: float = 0.5,
        allocation: AllocationLike = "erk",
        batch_size: int = 256,
        seed: int = 0,
    ) -> None:
        super().__init__()
        checks.fraction("final_sparsity", final_sparsity, zero=False)
        checks.fraction("initial_sparsity", initial_sparsity, zero=False)
        checks.fraction("peak_sparsity", peak_sparsity, zero=False)
        if peak_sparsity >= min(initial_sparsity, final_sparsity):
            raise ValueError(
                "Expected 0 < peak_sparsity < initial_sparsity and final_sparsity. "
                f"Received: peak_sparsity={peak_sparsity}, "
                f"initial_sparsity={initial_sparsity}, final_sparsity={final_sparsity}"
            )
        checks.count("peak_step", peak_step, 1)
        checks.count("end_step", end_step, 1)
        checks.count("batch_size", batch_size, 1)
        if peak_step >= end_step:
            raise ValueError(
                "Expected 0 < peak_step < end_step. Received: "
                f"peak_step={peak_step}, end_step={end_step}"
            )
        self._pruning = GradualPruning(
            final_sparsity,
            peak_step,
            end_step,
            frequency,
            initial_sparsity=peak_sparsity,
            allocation=allocation,
            seed=seed,
        )
        allocations.get(allocation)
        self.final_sparsity = final_sparsity
        self.peak_step = peak_step
        self.end_step = end_step
        self.data = data
        self.frequency = frequency
        self.initial_sparsity = initial_sparsity
        self.peak_sparsity = peak_sparsity
        self.allocation = allocation
        self.batch_size = batch_size
        self.seed = seed

    def sparsity_at(self, step: int) -> float:
        """The target sparsity before the step number `step`."""
        if step > self.peak_step:
            return self._pruning.sparsity_at(step)
        change = self.peak_sparsity - self.initial_sparsity
        return self.initial_sparsity + change * step / self.peak_step

    def is_update_step(self, step: int) -> bool:
        """Whether weights grow or are pruned before the step number `step`."""
        if step > self.peak_step:
            return self._pruning.is_update_step(step)
        return step == self.peak_step or (step > 0 and step % self.frequency == 0)

    def start(self) -> None:
        self._gradients = DenseGradients(self.model, self.data, self.batch_size)
        super().start()
        start_sparse(self, self.initial_sparsity, self._step)
        self._pruning.set_model(self.model)

    def update(self, step: int) -> None:
        """Grows or prunes the model to the sparsity of a step."""
        if step > self.peak_step:
            self._pruning.update(step)
        else:
            self._grow(step)

    def _grow(self, step: int) -> None:
        masks = trained_masks(self.model)
        room = {name: int(np.count_nonzero(~mask)) for name, mask in masks.items()}
        dormant = sum(room.values())
        count = kept_after(masks, self.sparsity_at(step)) - masks.kept
        if count <= 0:
            return
        shares = {name: count * room[name] / dormant for name in masks}
        counts = largest_remainder(count, shares, room)
        scores: Scores = self._gradients(np.random.default_rng([self.seed, step]))
        new = {
            name: mask | choose(name, scores[name], ~mask, counts[name])
            for name, mask in masks.items()
        }
        change_masks(self.model, new)

    def on_train_end(self, logs: dict | None = None) -> None:
        super().on_train_end(logs)
        left = trained_masks(self.model).sparsity
        warn_below_final(self, self._step, self.final_sparsity, left)
