"""Movement pruning, which removes weights that fine-tuning moves towards zero."""

from typing import Any, ClassVar

import keras
import numpy as np
from keras import ops

from keras_lottery import checks
from keras_lottery.in_fit.callbacks.gradual import GradualPruning
from keras_lottery.keras_bridge.gradient_change import GradientChange
from keras_lottery.keras_bridge.internals.optimizers import steps_done
from keras_lottery.keras_bridge.layers.state import read
from keras_lottery.pruning import Sparsity
from keras_lottery.tickets import Snapshot
from keras_lottery.tickets.allocation import AllocationLike, Scores
from keras_lottery.tickets.grouping import Granularity


@keras.saving.register_keras_serializable(package="keras_lottery")
class MovementPruning(GradualPruning):
    """Gradually prunes the weights that shrink while a trained model is fine-tuned.

    The score of a weight is S = -Σ_t w · ∂L/∂w over all steps so far. It is large if
    gradients push the weight away from zero, whatever its magnitude. Pruned weights
    stay pruned; in the paper, they keep their values behind the masks and may come
    back.

    The schedule, the counting of steps and the treatment of frozen layers are the same
    as in `GradualPruning`. A second `fit` of the same model with the same callback
    continues with its scores.

    Args:
        final_sparsity, end_step, frequency, initial_sparsity, power: same as
            `GradualPruning`.
        begin_step: the step of the first pruning. It is at least 1, because no weight
            has moved before the first step. In the paper, it is the end of the learning
            rate's warm-up.
        allocation, granularity: same as `prune`. The score of a block or filter is the
            mean score of its weights.

    Raises:
        ValueError: if an argument is out of range; when training begins, if the model
            is not masked or cannot be pruned in this way, if it was restored by
            `BackupAndRestore`, or if another callback changes its gradients.

    Reference:
        Sanh, Wolf, Rush 2020, "Movement pruning: adaptive sparsity by fine-tuning",
        section 4; Lagunas et al. 2021, "Block pruning for faster transformers".

    Example:

    >>> callback = MovementPruning(0.8, begin_step=100, end_step=1000)
    >>> [round(callback.sparsity_at(step), 3) for step in (0, 100, 550, 1000)]
    [0.0, 0.0, 0.7, 0.8]
    """

    not_in_backups: ClassVar[str] = "how far weights have moved"

    def __init__(
        self,
        final_sparsity: Sparsity,
        begin_step: int,
        end_step: int,
        frequency: int = 100,
        initial_sparsity: float = 0.0,
        power: float = 3,
        allocation: AllocationLike | None = None,
        granularity: Granularity = "weight",
    ) -> None:
        checks.count("begin_step", begin_step, 1)
        super().__init__(
            final_sparsity,
            begin_step,
            end_step,
            frequency,
            initial_sparsity,
            power,
            self._scores,
            allocation,
            granularity,
        )
        self._change: GradientChange | None = None
        self._sums: dict[str, keras.Variable] = {}
        self._moved: dict[str, np.ndarray] = {}
        self._trained: tuple[keras.Model, int] | None = None

    def start(self) -> None:
        """Begins to sum scores, or continues where the model's last `fit` ended."""
        if self._trained != (self.model, steps_done(self.model.optimizer)):
            self._moved = {}
        super().start()
        due = self.sparsity_at(self._step) > self._left().sparsity
        if not self._moved and self._step >= self.begin_step and due:
            raise ValueError(
                "Expected a training that begins before `begin_step`: nothing has "
                f"moved yet. Received: begin_step={self.begin_step}, and an optimizer "
                f"that has done {self._step} steps. Compile the model again, which "
                "starts at step 0, choose a later `begin_step`, or go on with the "
                "callback of the last `fit`."
            )
        self._change = GradientChange(self.model, self._observed)
        self._sums = self._change.add_variables("movement")
        for name, array in self._moved.items():
            if name in self._sums:
                self._sums[name].assign(array)

    def on_train_end(self, logs: dict | None = None) -> None:
        super().on_train_end(logs)
        if self._change is not None:
            self._moved = {name: read(one) for name, one in self._sums.items()}
            self._trained = self.model, steps_done(self.model.optimizer)
            self._change.remove()
            self._change, self._sums = None, {}

    def _scores(self, snapshot: Snapshot) -> Scores:
        moved = {name: read(one) for name, one in self._sums.items()} or self._moved
        zeros = {name: np.zeros(mask.shape) for name, mask in snapshot.masks.items()}
        return zeros | {name: moved[name] for name in zeros.keys() & moved.keys()}

    def _observed(self, grads: list[Any], variables: list[keras.Variable]) -> list[Any]:
        change = self._change
        assert change is not None
        names = {id(weight): name for name, weight in change.weights.items()}
        for gradient, variable in zip(grads, variables, strict=True):
            name = names.get(id(variable))
            if gradient is not None and name is not None:
                product = ops.multiply(variable, change.of_loss(gradient))
                self._sums[name].assign(self._sums[name] - product)
        return grads
