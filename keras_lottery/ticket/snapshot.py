"""What is known once a ticket is trained."""

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from keras_lottery.allocation import Scores
from keras_lottery.gradients import gradients
from keras_lottery.layers import State
from keras_lottery.masks import Masks


@dataclass(frozen=True)
class Snapshot:
    """What is known once a ticket is trained: all that a criterion may look at.

    Args:
        masks: the ticket's masks.
        final: the state of all variables now, by name; `final[name]` of a name in
            `masks` is a weight.
        initial: the state before the dense network's training.
        rewind_point: the dense network's state at the rewind point.
        rng: random numbers for this level of this replicate.
        model: the masked model, its variables holding `final`.
        data: training data (x, y), arrays.
        scores: what the ticket's masks were found by, where controls see the snapshot.
    """

    masks: Masks
    final: State
    initial: State
    rewind_point: State
    rng: np.random.Generator
    model: keras.Model
    data: tuple[Any, Any] | None = None
    scores: Scores | None = None

    def gradients(self) -> dict[str, np.ndarray]:
        """The gradient of the model's loss on `data`, for pruned weights as well.

        Returns:
            Mapping of each name in `masks` to an array of the weight's shape.

        Raises:
            ValueError: if there are no data, or the model is not compiled.
        """
        if self.data is None:
            raise ValueError(
                "This criterion needs training data. "
                "Pass `data=(x, y)` to `prune`, or use it in a search over arrays."
            )
        return {
            name: gradient
            for name, gradient in gradients(self.model, *self.data).items()
            if name in self.masks
        }
