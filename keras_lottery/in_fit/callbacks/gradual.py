"""Gradual pruning, which follows a schedule of sparsities inside one `fit`."""

import warnings
from collections.abc import Mapping
from typing import Any

import keras

from keras_lottery import checks
from keras_lottery.in_fit.callbacks.updates import MaskUpdates
from keras_lottery.keras_bridge.layers.state import trained_masks
from keras_lottery.masks import Masks
from keras_lottery.pruning import (
    Sparsity,
    check_by_layer,
    chosen,
    default_allocation,
    of_network,
    prune,
    rehearse,
)
from keras_lottery.tickets import grouping
from keras_lottery.tickets.allocation import AllocationLike
from keras_lottery.tickets.criteria import CriterionLike
from keras_lottery.tickets.grouping import Granularity


@keras.saving.register_keras_serializable(package="keras_lottery")
class GradualPruning(MaskUpdates):
    """Raises the sparsity of a masked model step by step while it trains.

    At step t the sparsity is s_f + (s_i - s_f) (1 - (t - t_b) / (t_e - t_b))^power,
    from `begin_step` t_b to `end_step` t_e, every `frequency` steps. Steps are counted
    by the optimizer, so a second `fit` resumes where the first one stopped; a `fit`
    that ends below `final_sparsity` warns. Frozen layers keep their weights and masks,
    and do not count. With `steps_per_execution`, masks change between executions.

    A step takes as long at the end as at the beginning, even if filters are pruned:
    `fit` has compiled its step for the original variables, which other callbacks and
    the optimizer refer to. A search that prunes filters with rewind="learning_rate"
    trains smaller networks.

    Args:
        final_sparsity: s_f, the share of prunable weights, not counting frozen ones,
            that end up zero, or a share for each layer by pattern of names, see
            `prune`.
        begin_step: the step of the first pruning.
        end_step: the step of the last pruning.
        frequency: steps from one pruning to the next.
        initial_sparsity: s_i, the sparsity at `begin_step`.
        power: the exponent: 3 as in the paper, 1 for a linear schedule, 0 to prune to
            `final_sparsity` at once.
        criterion, allocation, granularity, data, seed: same as `prune`.

    Raises:
        ValueError: if an argument is out of range; when training begins, if the model
            is not masked or cannot be pruned in this way.

    Reference:
        Zhu & Gupta 2017, "To prune, or not to prune", equation 1.

    Example:

    >>> callback = GradualPruning(0.8, begin_step=0, end_step=1000)
    >>> [round(callback.sparsity_at(step), 3) for step in (0, 500, 1000)]
    [0.0, 0.7, 0.8]
    """

    def __init__(
        self,
        final_sparsity: Sparsity,
        begin_step: int,
        end_step: int,
        frequency: int = 100,
        initial_sparsity: float = 0.0,
        power: float = 3,
        criterion: CriterionLike = "magnitude",
        allocation: AllocationLike | None = None,
        granularity: Granularity = "weight",
        data: Any = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        check_by_layer("final_sparsity", final_sparsity, allocation)
        checks.fraction("initial_sparsity", initial_sparsity)
        self._final: float | None = None
        if not isinstance(final_sparsity, Mapping):
            self._set_final(final_sparsity, initial_sparsity)
        checks.count("begin_step", begin_step)
        checks.count("end_step", end_step)
        checks.count("frequency", frequency, 1)
        checks.number("power", power, 0)
        checks.seed("seed", seed)
        if begin_step > end_step:
            raise ValueError(
                "Expected 0 <= begin_step <= end_step. Received: "
                f"begin_step={begin_step}, end_step={end_step}"
            )
        chosen(criterion, allocation, granularity)
        if allocation is None and self._final is not None:
            allocation = default_allocation(criterion, granularity)
        self.final_sparsity = final_sparsity
        self.begin_step = begin_step
        self.end_step = end_step
        self.frequency = frequency
        self.initial_sparsity = initial_sparsity
        self.power = power
        self.criterion = criterion
        self.allocation = self._allocation = allocation
        self.granularity = granularity
        self.data = data
        self.seed = seed

    def sparsity_at(self, step: int) -> float:
        """The sparsity of the schedule after the pruning at a step."""
        if self._final is None:
            raise ValueError(
                "The model's sparsity is known once training begins, where "
                f"`final_sparsity` is given by layer: {self.final_sparsity}"
            )
        if step < self.begin_step:
            return 0.0
        span = max(self.end_step - self.begin_step, 1)
        left = 1 - min((step - self.begin_step) / span, 1)
        if step >= self.end_step:
            left = 0.0
        share = left**self.power if self.power else 0.0
        return self._final + (self.initial_sparsity - self._final) * share

    def _set_final(self, sparsity: float, initial_sparsity: float) -> None:
        if initial_sparsity > sparsity:
            raise ValueError(
                "Expected 0 <= initial_sparsity <= final_sparsity < 1. Received: "
                f"initial_sparsity={initial_sparsity}, final_sparsity={sparsity}"
            )
        self._final = sparsity

    def is_update_step(self, step: int) -> bool:
        """Whether the schedule prunes before the step number `step`."""
        if step == self.end_step:
            return True
        due = (step - self.begin_step) % self.frequency == 0
        return due and self.begin_step <= step <= self.end_step

    def start(self) -> None:
        super().start()
        final, self._allocation = of_network(
            self.final_sparsity, self.allocation, self._left()
        )
        self._set_final(final, self.initial_sparsity)
        if final > self._left().sparsity:
            rehearse(self.model, final, **self._how())

    def on_train_end(self, logs: dict | None = None) -> None:
        super().on_train_end(logs)
        if self._final is not None:
            warn_below_final(self, self._step, self._final, self._left().sparsity)

    def _left(self) -> Masks:
        masks = trained_masks(self.model)
        return grouping.get(self.granularity).of(self.model, masks).left(masks)

    def update(self, step: int) -> None:
        """Prunes the model to the schedule's sparsity at a step."""
        # If the model was pruned before, its sparsity may already be higher.
        sparsity = self.sparsity_at(step)
        if sparsity > self._left().sparsity:
            prune(self.model, sparsity, **self._how(step))

    def _how(self, step: int = 0) -> dict[str, Any]:
        return {
            "criterion": self.criterion,
            "allocation": self._allocation,
            "granularity": self.granularity,
            "data": self.data,
            "seed": self.seed + step,
            "frozen": False,
        }


def warn_below_final(callback: Any, step: int, final: float, sparsity: float) -> None:
    """Warns if training ended below the callback's final sparsity."""
    short = final - sparsity
    # After the last update, whole weights and groups come no nearer to the sparsity.
    if (
        callback._updated == callback.end_step
        or short <= 0.5 / trained_masks(callback.model).size
    ):
        return
    warnings.warn(
        f"Training ended after {step} steps, end_step={callback.end_step}: the "
        f"sparsity is {sparsity:.4f}, not final_sparsity={final:.4g}. "
        "Train for longer, or choose an earlier `end_step`.",
        stacklevel=3,
    )
