"""Rounds weights to a few evenly spaced levels, so that each takes only a few bits."""

from collections.abc import Collection, Mapping

import numpy as np

from keras_lottery import checks
from keras_lottery.tickets.allocation.names import check_patterns, matches

LEAST_BITS, MOST_BITS = 2, 6
"""One bit has no room for two signs; above six, the search for levels takes long."""

Bits = int | Mapping[str, int]
"""The number of bits for all kernels, or by pattern of weight or layer name."""


def check_bits(bits: Bits, least: int = LEAST_BITS, most: int = MOST_BITS) -> None:
    """Raises ValueError unless all bits are whole numbers from `least` to `most`."""
    if not isinstance(bits, Mapping):
        checks.count("bits", bits, least, most)
        return
    if not bits:
        checks.refuse("bits", "bits for at least one pattern of layers", bits)
    for pattern, number in bits.items():
        checks.count(f"bits[{pattern!r}]", number, least, most)


def bits_by_name(bits: Bits, names: Collection[str]) -> dict[str, int]:
    """The bits of each kernel that a pattern matches; the first match counts.

    Raises:
        ValueError: if a pattern matches no kernel.

    >>> bits_by_name({"conv*": 3, "*": 2}, ["conv_1/kernel", "dense/kernel"])
    {'conv_1/kernel': 3, 'dense/kernel': 2}
    """
    patterns = bits if isinstance(bits, Mapping) else {"*": bits}
    check_patterns(patterns, names)
    own = {
        name: [number for pattern, number in patterns.items() if matches(name, pattern)]
        for name in names
    }
    return {name: int(numbers[0]) for name, numbers in own.items() if numbers}


def on_levels(weights: np.ndarray, bits: int, spacing: float) -> np.ndarray:
    """The nearest of the levels k · spacing, k = -2^(b-1), …, -1, 1, …, 2^(b-1) - 1.

    Zero is not among these levels: it stands for pruned weights. Levels and zero
    together fit into b bits.

    >>> on_levels(np.array([0.1, 0.9, -1.6, -9.0, 9.0]), 2, 1.0)
    array([ 1.,  1., -2., -2.,  1.])
    """
    if not spacing:
        return np.zeros_like(weights)
    sides = np.where(weights * spacing < 0, -1, 1)
    most = np.where(sides < 0, 2 ** (bits - 1), 2 ** (bits - 1) - 1)
    steps = np.clip(np.round(np.abs(weights / spacing)), 1, most)
    return (spacing * sides * steps).astype(weights.dtype)


def best_spacing(weights: np.ndarray, bits: int) -> float:
    """The spacing whose levels have the least squared error; it may be negative.

    As the spacing falls, one weight after another moves to a higher level, each at the
    spacing |w| / (k + 1/2). Between two of these events, the numbers k of the weights'
    levels stay the same, and the error is least at the spacing Σ k w / Σ k², where it
    is Σ w² - (Σ k w)² / Σ k². The best spacing is therefore found without a grid. One
    sign has one level more than the other; both choices are tried.

    Args:
        weights: the live weights of a layer, an array of one dimension.
        bits: the number of bits of a level's number.

    Reference:
        Ren et al. 2019, "ADMM-NN", section 3.3, which searches on squared error.

    >>> best_spacing(np.array([0.5, -0.5, 1.0]), 2)
    -0.5
    """
    size = np.abs(weights.astype(np.float64))
    found = []
    for sign in (1, -1):
        most = np.where(weights * sign < 0, 2 ** (bits - 1), 2 ** (bits - 1) - 1)
        # At first, all weights are at level 1.
        events = [np.array([np.inf])]
        gains, counts = [size.sum(keepdims=True)], [np.array([1.0 * size.size])]
        for k in range(1, 2 ** (bits - 1)):
            rising = size[most > k]
            events.append(rising / (k + 0.5))
            gains.append(rising)
            counts.append(np.full(rising.size, 2.0 * k + 1))
        order = np.argsort(-np.concatenate(events), kind="stable")
        products = np.cumsum(np.concatenate(gains)[order])
        squares = np.cumsum(np.concatenate(counts)[order])
        explained = products**2 / np.maximum(squares, 1)
        best = int(np.argmax(explained))
        found.append((explained[best], sign * products[best] / max(squares[best], 1)))
    return float(max(found)[1])


class Levels:
    """The levels of some kernels, and the weights that are held at their levels.

    Args:
        bits: the bits of each kernel by name; other kernels may have any values.
    """

    def __init__(self, bits: Mapping[str, int]) -> None:
        self.bits = bits
        self.held: dict[str, np.ndarray] = {}
        self._spacings: dict[str, float] = {}

    def nearest(
        self, arrays: Mapping[str, np.ndarray], kept: Mapping[str, np.ndarray]
    ) -> dict[str, np.ndarray]:
        """Returns arrays with kept weights at their levels, and the others at zero.

        The levels are chosen anew unless weights are held at them.
        """
        found = {}
        for name, array in arrays.items():
            found[name] = np.where(kept[name], array, 0)
            live = array[kept[name]]
            if name in self.bits and live.size:
                spacing = self._spacings.get(name)
                if spacing is None:
                    spacing = best_spacing(live, self.bits[name])
                found[name][kept[name]] = on_levels(live, self.bits[name], spacing)
        return found

    def hold(
        self,
        weights: Mapping[str, np.ndarray],
        kept: Mapping[str, np.ndarray],
        share: float,
    ) -> None:
        """Holds the share of each kernel's weights that are nearest to their levels."""
        targets = self.nearest(weights, kept)
        for name, bits in self.bits.items():
            live = kept[name]
            if name not in self._spacings:
                self._spacings[name] = best_spacing(weights[name][live], bits)
            away = np.abs(weights[name] - targets[name])
            # Weights that are already held come first, pruned ones last.
            away[self.held.get(name, np.zeros_like(live))] = -1
            away[~live] = np.inf
            count = round(share * int(np.count_nonzero(live)))
            self.held[name] = np.zeros(live.shape, bool)
            nearest = np.argsort(away, axis=None, kind="stable")[:count]
            self.held[name].flat[nearest] = True
