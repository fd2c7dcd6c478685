"""What is known once a ticket is trained."""

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
"""How many examples of a search's training data calibration takes."""


@dataclass
class _Read:
    """What was read of data for calibration; copies and pickles leave it behind."""

    data: Any = None
    x: Any = None

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return type(self), ()


@dataclass(frozen=True)
class Snapshot:
    """What is known once a ticket is trained: everything that a criterion may use.

    Args:
        masks: the ticket's masks, of the weights that are to be scored.
        final: the state of all variables now, by name; `final[name]` of a name in
            `masks` is a weight.
        initial: the state before the dense network's training.
        rewind_point: the dense network's state at the rewind point.
        rng: random numbers for this level of this replicate.
        shared_model: the masked model, which others use too; see `model`.
        data: training data (x, y), arrays or a data set, or a function that gives
            them; see `training_data`.
        scores: what the ticket's masks were found by, where controls see the snapshot.
        grouping: what is pruned together.
        exclude: patterns of what has no scores, since the allocation leaves it as it
            is.
        others: the masks of the weights that are not scored: of such layers, and of
            frozen ones where they stay as they are.
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
    # `dataclasses.replace` passes it on: a data set may draw other images each time.
    _read: _Read = field(default_factory=_Read, repr=False, compare=False)

    @classmethod
    def untrained(cls, masks: Masks, state: State, **fields: Any) -> Self:
        """The snapshot of a network that is not trained: it has its initial weights."""
        return cls(masks, state, state, state, **fields)

    @property
    def model(self) -> keras.Model:
        """The masked model, with the snapshot's masks and final weights put into it.

        It is `None` where a criterion is asked while the model is trained. Others put
        their own weights into it: ask for it again instead of keeping it.
        """
        if self.shared_model is not None:
            masks = {**self.masks, **self.others}
            set_state(self.shared_model, self.final, masks)
        return self.shared_model  # type: ignore[return-value]

    def leaving_out(self, patterns: Sequence[str]) -> Self:
        """The snapshot as a criterion sees it that is not asked for all scores.

        Where groups reach over layers, what makes one may serve another: `exclude` is
        for a criterion of groups to look at then, and `masks` stay as they are.
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
        """The gradient of the loss on all of `data`, for pruned weights as well.

        Args:
            state: the weights to take it at, such as `initial`; by default `final`.
            scalar: another function of (model, x, y), see `gradients.gradients`.

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
        """The Hessian of the loss by the masked weights, times a vector.

        Args:
            vector: an array for each name in `masks`, such as `gradients()`.
            state, scalar: same as in `gradients`, and so are the errors.

        Returns:
            Mapping of the vector's names to arrays of the same shapes.
        """
        state = self.final if state is None else state
        data = self.training_data()
        return hessian_vector_product(
            self.model, *data, vector, scalar=scalar, state=state
        )

    def inputs(self) -> Any:
        """The inputs x of `data`, which need no targets, in arrays: for calibration.

        Of a search's training data, `CALIBRATION` examples at random. They are read
        once for every criterion and repair, also after `dataclasses.replace`.

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
            # It is that of a snapshot with other data, which still needs it.
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
        # Not of `rng`, which goes on: a repair sees what the criterion saw.
        some = np.random.default_rng(count).choice(count, CALIBRATION, replace=False)
        return keras.tree.map_structure(lambda array: array[np.sort(some)], x)

    def input_norms(self) -> dict[str, np.ndarray]:
        """The norm over `inputs()` of the input that each entry of a weight multiplies.

        Of the network as it is, with `final` and `masks`.

        Returns:
            Mapping of each name in `masks` to an array of the weight's shape.

        Raises:
            ValueError: if there are no data, or the inputs of a weight are not known.
        """
        x = self.inputs()
        return calibration.input_norms(self.model, x, self.masks)

    def second_moments(self, name: str) -> np.ndarray:
        """XᵀX of what a weight multiplies, over `inputs()`: (groups, inputs, inputs).

        `calibration.matrices_of` has the weight in that form. The errors are those of
        `input_norms`.
        """
        x = self.inputs()
        return calibration.second_moments(self.model, x, name)

    def training_data(self) -> tuple[Any, Any]:
        """The data (x, y), as arrays or structures of them.

        Raises:
            ValueError: if there are none, or they are not (x, y) of one length.
        """
        if self.data is None:
            raise ValueError(
                "This criterion needs training data. "
                "Pass `data=(x, y)` to `prune`, or use it in a search without "
                "mask_epochs='auto'."
            )
        return training_arrays(self.data() if callable(self.data) else self.data)
