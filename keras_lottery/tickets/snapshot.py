"""Snapshots, which hold a trained ticket and everything that a criterion may use."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import keras
import numpy as np

from keras_lottery.keras_bridge import calibration
from keras_lottery.keras_bridge.gradients import (
    Scalar,
    gradients,
    hessian_vector_product,
    length,
    loss,
    training_arrays,
)
from keras_lottery.keras_bridge.layer_inputs import inputs_alone
from keras_lottery.keras_bridge.layers import State, set_state
from keras_lottery.masks import Masks
from keras_lottery.tickets.allocation import Scores
from keras_lottery.tickets.allocation.names import included
from keras_lottery.tickets.grouping import Grouping, Weights

CALIBRATION = 1024
"""How many examples of a search's training data are used for calibration."""


@dataclass
class _Read:
    """A cache of data read for calibration; copies and pickles start empty."""

    data: Any = None
    x: Any = None

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return type(self), ()


@dataclass(frozen=True)
class Snapshot:
    """A trained ticket, with everything that a criterion may use.

    Args:
        masks: the ticket's masks of the weights that are to be scored.
        final: the current state of all variables, by name; `final[name]` is a weight if
            `name` is in `masks`.
        initial: the state before the dense network's training.
        rewind_point: the dense network's state at the rewind point.
        rng: random numbers for this level of this replicate.
        shared_model: the masked model, which other code uses too; see `model`.
        data: training data (x, y), arrays or a data set, or a function that gives
            them; see `training_data`.
        scores: the scores by which the ticket's masks were found, for controls.
        grouping: what is pruned together.
        exclude: patterns of the weights or layers that have no scores, because the
            allocation does not prune them.
        others: the masks of the weights that are not scored: those of excluded layers,
            and of frozen layers if these are not pruned.
    """

    masks: Masks
    final: State
    initial: State
    rewind_point: State
    rng: np.random.Generator
    shared_model: keras.Model | None
    data: Any = None
    scores: Scores | None = None
    grouping: Grouping = field(default_factory=Weights)
    exclude: Sequence[str] = ()
    others: Masks = field(default_factory=lambda: Masks({}))
    # `dataclasses.replace` keeps it: a data set may yield other images each time.
    _read: _Read = field(default_factory=_Read, repr=False, compare=False)

    @classmethod
    def untrained(cls, masks: Masks, state: State, **fields: Any) -> Self:
        """Makes the snapshot of an untrained network, whose weights are all initial."""
        return cls(masks, state, state, state, **fields)

    @property
    def model(self) -> keras.Model:
        """The masked model, with the snapshot's masks and final weights put into it.

        It is `None` if the criterion is called while the model is being trained. Other
        code puts other weights into the model, so read this property again instead of
        keeping the model.
        """
        if self.shared_model is not None:
            masks = {**self.masks, **self.others}
            set_state(self.shared_model, self.final, masks)
        return self.shared_model  # type: ignore[return-value]

    def leaving_out(self, patterns: Sequence[str]) -> Self:
        """Returns the snapshot for a criterion that need not score all weights.

        If groups reach over layers, a weight of an excluded layer can belong to a group
        that is scored. `masks` then stay complete, and a criterion of groups reads
        `exclude`.
        """
        if not patterns:
            return self
        left = included(self.grouping.left(self.masks), patterns)
        scored = self.masks
        if self.grouping.left(self.masks).keys() == self.masks.keys():
            scored = Masks({name: self.masks[name] for name in left})
        every = {**self.others, **self.masks}
        others = Masks({n: mask for n, mask in every.items() if n not in scored})
        return replace(self, masks=scored, others=others, exclude=patterns)

    def gradients(
        self, state: State | None = None, scalar: Scalar = loss
    ) -> dict[str, np.ndarray]:
        """Returns the gradient of the loss on all of `data`, also for pruned weights.

        Args:
            state: the weights at which to take the gradient, such as `initial`; by
                default `final`.
            scalar: another function of (model, x, y) to differentiate; see
                `gradients.gradients`.

        Returns:
            Mapping of each name in `masks` to an array of the weight's shape.

        Raises:
            ValueError: if there are no data, or the model is not compiled.
            FloatingPointError: if a gradient is not finite.
        """
        state = self.final if state is None else state
        data = self.training_data()
        found = gradients(self.model, *data, scalar=scalar, state=state)
        return {name: found[name] for name in self.masks}

    def hessian_vector_product(
        self,
        vector: Mapping[str, np.ndarray],
        state: State | None = None,
        scalar: Scalar = loss,
    ) -> dict[str, np.ndarray]:
        """Returns the Hessian with respect to the masked weights, times a vector.

        Args:
            vector: an array for each name in `masks`, such as `gradients()`.
            state, scalar: same as in `gradients`, which also lists the errors.

        Returns:
            Mapping of the vector's names to arrays of the same shapes.
        """
        state = self.final if state is None else state
        data = self.training_data()
        return hessian_vector_product(
            self.model, *data, vector, scalar=scalar, state=state
        )

    def inputs(self) -> Any:
        """Returns the inputs x of `data` as arrays, for calibration without targets.

        In a search, they are `CALIBRATION` random examples of the training data. They
        are read once for all criteria and repairs, also after `dataclasses.replace`.

        Raises:
            ValueError: if there are none.
        """
        if self.data is None or self.shared_model is None:
            raise ValueError(
                "Calibration needs inputs of the model, without targets. Pass "
                "`data=x` to `prune` or to the callback. In a search, mask_epochs="
                "'auto' has none."
            )
        if self._read.x is not None and self._read.data is not self.data:
            # The cache belongs to a snapshot with other data, which still needs it.
            object.__setattr__(self, "_read", _Read())
        if self._read.x is None:
            self._read.x = self._calibration()
            self._read.data = self.data
        return self._read.x

    def _calibration(self) -> Any:
        if not callable(self.data):
            return inputs_alone(self.data, self.shared_model)
        x = inputs_alone(self.data(), self.shared_model)
        count = length(x)
        if count <= CALIBRATION:
            return x
        # Not drawn from `rng`, which advances: a repair sees the criterion's examples.
        some = np.random.default_rng(count).choice(count, CALIBRATION, replace=False)
        return keras.tree.map_structure(lambda array: array[np.sort(some)], x)

    def input_norms(self) -> dict[str, np.ndarray]:
        """Returns, for each entry of a weight, the norm of its input over `inputs()`.

        The input is the one that the entry multiplies in the network with weights
        `final` and `masks`.

        Returns:
            Mapping of each name in `masks` to an array of the weight's shape.

        Raises:
            ValueError: if there are no data, or the inputs of a weight are not known.
        """
        x = self.inputs()
        return calibration.input_norms(self.model, x, self.masks)

    def second_moments(self, name: str) -> np.ndarray:
        """Returns XᵀX of a weight's inputs over `inputs()`: (groups, inputs, inputs).

        `calibration.matrices_of` gives the weight in the same form. The errors are the
        same as in `input_norms`.
        """
        x = self.inputs()
        return calibration.second_moments(self.model, x, name)

    def training_data(self) -> tuple[Any, Any]:
        """Returns the data (x, y) as arrays or structures of arrays.

        Raises:
            ValueError: if there are no data, or they are not (x, y) of equal length.
        """
        if self.data is None:
            raise ValueError(
                "This criterion needs training data. "
                "Pass `data=(x, y)` to `prune`, or use it in a search without "
                "mask_epochs='auto'."
            )
        return training_arrays(self.data() if callable(self.data) else self.data)
