"""Which weights of a network are left: an immutable mapping of boolean arrays."""

from collections.abc import Iterator, Mapping

import numpy as np

from keras_lottery import checks


class Masks(Mapping[str, np.ndarray]):
    """Immutable mapping of weight name to boolean array, `True` where a weight is kept.

    Args:
        arrays: mapping of weight name (layer path and weight, such as
            `"hidden/kernel"`) to an array of booleans, or of zeros and ones, of the
            weight's shape. The arrays are copied and made read-only.

    Raises:
        ValueError: if an array holds anything but zeros and ones.

    Example:

    >>> masks = Masks({"hidden/kernel": [[True, False], [True, True]]})
    >>> masks.kept, masks.size, masks.density, masks.sparsity
    (3, 4, 0.75, 0.25)
    """

    def __init__(self, arrays: Mapping[str, np.ndarray]) -> None:
        form = "arrays by weight name"
        for name in checks.instance("arrays", arrays, Mapping, form):
            checks.text("arrays", name)
        self._arrays = {name: _frozen_bool(name, a) for name, a in arrays.items()}

    @classmethod
    def dense(cls, shapes: Mapping[str, tuple[int, ...]]) -> "Masks":
        """Returns masks that keep every weight.

        >>> Masks.dense({"hidden/kernel": (2, 3)}).kept
        6
        """
        return cls({name: np.ones(shape, bool) for name, shape in shapes.items()})

    def __getitem__(self, name: str) -> np.ndarray:
        return self._arrays[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Mapping):
            return NotImplemented
        return self.keys() == other.keys() and all(
            np.array_equal(self[name], other[name]) for name in self
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<Masks: {self.kept:,} of {self.size:,} weights in {len(self)} tensors>"

    @property
    def kept(self) -> int:
        """The number of remaining weights."""
        return sum(int(np.count_nonzero(mask)) for mask in self.values())

    @property
    def size(self) -> int:
        """The number of all weights, kept and pruned."""
        return sum(mask.size for mask in self.values())

    @property
    def density(self) -> float:
        """The share of remaining weights, which papers call P_m."""
        return self.kept / self.size

    @property
    def sparsity(self) -> float:
        """The share of pruned weights."""
        return (self.size - self.kept) / self.size


def _frozen_bool(name: str, array: np.ndarray) -> np.ndarray:
    array = np.asarray(array)
    mask = np.array(array, bool)
    if array.dtype != bool and not np.array_equal(mask, array):
        raise ValueError(
            f"Expected a mask of booleans, or of zeros and ones, for `{name}`. "
            f"Received: values from {array.min()} to {array.max()}."
        )
    mask.flags.writeable = False
    return mask
