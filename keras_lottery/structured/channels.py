"""Channels, and the groups of channels that can only be removed together.

A channel is an entry of a tensor's last axis: a unit of a Dense layer, a filter of a
convolution.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from keras_lottery.keras_bridge.graph import Shape, Use


@dataclass(eq=False)
class Tensor:
    """What is known about the channels of one tensor.

    Args:
        atoms: a number for each channel; equal numbers stand for the same channel.
        value: the channel's value if it is the same for every input and at every
            position, else NaN.
        needed: whether the model's outputs depend on the channel, beyond what is
            folded into the layers that read it.
    """

    atoms: np.ndarray
    value: np.ndarray = field(init=False)
    needed: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.value = np.full(self.width, np.nan)
        self.needed = np.zeros(self.width, bool)

    @property
    def width(self) -> int:
        """The number of channels; 0 if the last axis has no known length."""
        return len(self.atoms)

    @property
    def constant(self) -> np.ndarray:
        """Marks the channels that have a known value."""
        return ~np.isnan(self.value)


@dataclass(eq=False)
class Call:
    """One use of a layer in the model, with the tensors that it reads and returns."""

    use: Use
    inputs: list[Tensor]
    outputs: list[Tensor]

    @property
    def layer(self) -> Any:
        """The layer, or the function of `keras.ops`."""
        return self.use.layer

    @property
    def input_shapes(self) -> list[Shape]:
        """The shapes of the input tensors, with the batch axis first."""
        return self.use.input_shapes

    @property
    def output_shapes(self) -> list[Shape]:
        """The shapes of the output tensors, with the batch axis first."""
        return self.use.output_shapes


class Channels:
    """The channels of all tensors of a model, and how they are tied."""

    def __init__(self) -> None:
        self.count = 0
        self._ties: list[tuple[np.ndarray, np.ndarray]] = []
        self._fixed: list[np.ndarray] = []

    def new_tensor(self, channels: int) -> Tensor:
        """Returns a tensor with new channels."""
        self.count += channels
        return Tensor(np.arange(self.count - channels, self.count))

    def tie(self, one: np.ndarray, other: np.ndarray) -> None:
        """Puts channels, given by their atoms, into the same groups."""
        self._ties.append((one, other))

    def fix(self, tensor: Tensor) -> None:
        """Marks all channels of a tensor as ones that must stay."""
        self._fixed.append(tensor.atoms)

    def groups(self) -> np.ndarray:
        """Returns the index of each channel's group; a group is removed as a whole."""
        none = np.zeros(0, int)
        one = np.concatenate([none, *(one for one, _ in self._ties)])
        other = np.concatenate([none, *(other for _, other in self._ties)])
        edges = coo_array(
            (np.ones(len(one), bool), (one, other)), shape=(self.count, self.count)
        )
        return connected_components(edges, directed=False)[1]

    def fixed(self) -> np.ndarray:
        """Returns the channels that must stay, whatever their values."""
        return np.concatenate([np.zeros(0, int), *self._fixed])


def width(shape: Sequence[int | None]) -> int:
    """Returns the number of channels of a shape that starts with the batch axis."""
    return shape[-1] or 0 if len(shape) > 1 else 0
