"""Training that is sparse from the start, where weights are dropped and others grow."""

import warnings
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from keras_lottery import checks
from keras_lottery.in_fit.callbacks.updates import MaskUpdates
from keras_lottery.keras_bridge.layers import get_masks, get_state, set_masks
from keras_lottery.keras_bridge.layers.state import trained_masks
from keras_lottery.tickets import allocation as allocations
from keras_lottery.tickets.allocation import AllocationLike, Scores, kept_after, largest


class Regrowth(MaskUpdates):
    """Drops the smallest weights of each layer, and lets as many others grow.

    A subclass defines how many are dropped (`drop_fraction`) and which grow
    (`growth_scores`). The arguments are the same as those of `SET`.
    """

    def __init__(
        self,
        sparsity: float | None,
        end_step: int,
        frequency: int,
        allocation: AllocationLike,
        seed: int,
    ) -> None:
        super().__init__()
        if sparsity is not None:
            remedy = "None takes that of the model."
            checks.fraction("sparsity", sparsity, zero=False, remedy=remedy)
        checks.count("end_step", end_step, 1)
        checks.count("frequency", frequency, 1)
        checks.seed("seed", seed)
        if frequency >= end_step:
            raise ValueError(
                "Expected 1 <= frequency < end_step: masks change every `frequency` "
                "steps before `end_step`. Received: "
                f"frequency={frequency}, end_step={end_step}"
            )
        allocations.get(allocation)
        self.sparsity = sparsity
        self.end_step = end_step
        self.frequency = frequency
        self.allocation = allocation
        self.seed = seed
        self._dense = False

    def drop_fraction(self, step: int) -> float:
        """The share of a layer's weights that is dropped at a step."""
        raise NotImplementedError

    def growth_scores(self, step: int) -> Scores:
        """The scores of weights at a step; those with the largest scores grow."""
        raise NotImplementedError

    def is_update_step(self, step: int) -> bool:
        """Whether weights grow before the step number `step`."""
        return step > 0 and step % self.frequency == 0 and step < self.end_step

    def start(self) -> None:
        super().start()
        self._dense = start_sparse(self, self.sparsity, self._step)
        masks = trained_masks(self.model)
        if self.sparsity and masks.kept != kept_after(masks, self.sparsity):
            raise ValueError(
                f"The model is sparse already. Received: sparsity={self.sparsity}, and "
                f"a model of sparsity {masks.sparsity:.4f}. Pass `sparsity=None` to "
                "keep its masks."
            )

    def on_train_end(self, logs: dict | None = None) -> None:
        super().on_train_end(logs)
        if self._updated is None and (self._dense or self._step <= self.frequency):
            warnings.warn(
                f"Training ended after {self._step} steps, and {type(self).__name__} "
                f"changed no masks: frequency={self.frequency}, "
                f"end_step={self.end_step}. Train for longer, or choose a smaller "
                "`frequency`.",
                stacklevel=2,
            )

    def update(self, step: int) -> None:
        """Drops weights at a step, and lets others grow."""
        masks, state = trained_masks(self.model), get_state(self.model)
        scores, fraction = self.growth_scores(step), self.drop_fraction(step)
        new = {
            name: regrown(name, state[name], mask, scores[name], fraction)
            for name, mask in masks.items()
        }
        change_masks(self.model, new)


def regrown(
    name: str,
    weight: np.ndarray,
    mask: np.ndarray,
    score: np.ndarray,
    fraction: float,
) -> np.ndarray:
    """The mask of a layer after others have taken the place of its smallest weights.

    Any weight that is not kept may grow. One that is dropped and grows again at once
    keeps its value.

    Args:
        name: the name of the weight, for errors.
        weight, mask: the layer's weight, and its mask before.
        score: the scores; of the weights that are not kept, those with the largest
            scores grow.
        fraction: the share of live weights that is dropped.

    Example:

    >>> weight = np.array([3.0, 1.0, -2.0, 0.0, 0.0])
    >>> score = np.array([9.0, 0.0, 0.0, 1.0, 2.0])
    >>> regrown("kernel", weight, weight != 0, score, fraction=1 / 3)
    array([ True, False,  True, False,  True])
    """
    alive = int(np.count_nonzero(mask))
    count = round(fraction * alive)
    kept = choose(name, np.abs(weight), mask, alive - count)
    return kept | choose(name, score, ~kept, count)


def choose(name: str, score: np.ndarray, among: np.ndarray, count: int) -> np.ndarray:
    """Marks the `count` largest scores among some; of equal ones, the first."""
    return largest({name: score}, {name: among}, count)[name]


def change_masks(model: keras.Model, new: Mapping[str, np.ndarray]) -> None:
    """Replaces some of a model's masks.

    Weights that are dropped or grow are zero afterwards, and so are their optimizer
    slots.
    """
    masks = get_masks(model)
    after = {**masks, **new}
    set_masks(model, {name: mask & after[name] for name, mask in masks.items()})
    set_masks(model, after)


def start_sparse(callback: Any, sparsity: float | None, step: int) -> bool:
    """Prunes all trainable layers at random if they are dense.

    Args:
        callback: a callback with a `model`, `end_step`, `allocation` and `seed`.
        sparsity: the share to prune.
        step: the step at which the training starts.

    Returns:
        Whether the layers were dense.
    """
    masks = trained_masks(callback.model)
    if masks.sparsity:
        return False
    if sparsity is None:
        raise ValueError(
            "The model is dense. Received: sparsity=None. Pass a sparsity, or prune "
            "the model before it is trained."
        )
    if step >= callback.end_step:
        raise ValueError(
            f"The model is dense, and its optimizer has done {step} steps. Received: "
            f"end_step={callback.end_step}. Choose a later one, or compile the model "
            "again, which starts at step 0."
        )
    rng = np.random.default_rng(callback.seed)
    scores = {name: rng.random(mask.shape) for name, mask in masks.items()}
    change_masks(
        callback.model,
        allocations.get(callback.allocation)(scores, masks, sparsity),
    )
    return True
