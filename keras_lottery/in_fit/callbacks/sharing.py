"""Makes weights share a few values, and trains these values."""

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_lottery.in_fit.callbacks.common import Configured, InFit
from keras_lottery.in_fit.callbacks.levels import Bits, bits_by_name, check_bits
from keras_lottery.in_fit.callbacks.quantization import round_alike
from keras_lottery.keras_bridge.gradient_change import GradientChange
from keras_lottery.keras_bridge.internals.models import restored_epoch
from keras_lottery.keras_bridge.internals.optimizers import slots
from keras_lottery.keras_bridge.layers import (
    get_masks,
    get_state,
    named_masks,
    set_state,
)

MOST_BITS = 12
# Weights that share a value stay equal up to the last digits, which vector units may
# round differently.
_SPREAD = 1e-3
# Two values of a layer that are nearer than this differ only in their last digits.
_SAME = 1e-6


def share_weights(model: keras.Model, bits: Bits = 5) -> None:
    """Makes each layer's live weights share a few values, in place.

    The live weights of a masked kernel are clustered by k-means, starting from
    centroids that are spread evenly between the smallest and the largest weight, and
    take the value of their centroid. Pruned weights stay zero; biases and everything
    else stay as they are. `SharedWeights` trains the shared values, and
    `save_compressed` writes a small file.

    Args:
        model: a masked model, trained and already pruned.
        bits: the binary logarithm of the number of values that a kernel may have, from
            1 to 12: for all kernels, or by pattern of weight or layer name. The first
            match counts; a kernel that matches none keeps its values. The paper uses 5
            bits for dense layers and 8 for convolutions.

    Raises:
        ValueError: if the model is not masked, if `bits` is out of range, or if a
            pattern matches no kernel. The model is then unchanged.

    Reference:
        Han et al. 2015, section 3.

    Example:

    >>> import keras_lottery as kl
    >>> model = keras.Sequential([keras.Input((10,)), keras.layers.Dense(20)])
    >>> model = kl.mask_model(model)
    >>> kl.prune(model, 0.5)
    >>> share_weights(model, bits=3)
    >>> len(np.unique(model.layers[0].kernel))  # 8 values, and the zeros
    9
    """
    masks = get_masks(model)
    check_bits(bits, 1, MOST_BITS)
    state = get_state(model)
    for name, number in bits_by_name(bits, masks).items():
        mask = masks[name]
        live = state[name][mask]
        if len(live):
            if not np.isfinite(live.astype(np.float64)).all():
                raise ValueError(f"`{name}` holds weights that are not finite")
            state[name][mask] = _share(live, 2**number)
    set_state(model, state)


def _share(live: np.ndarray, most: int) -> np.ndarray:
    """The centroid of each value, for at most `most` clusters.

    This is Lloyd's algorithm, run until it converges, on sorted values, where a cluster
    consists of the values between two midpoints. It takes a moment where scikit-learn's
    `KMeans` takes minutes.
    """
    values, place, counts = np.unique(
        live.astype(np.float64), return_inverse=True, return_counts=True
    )
    number, total = (
        np.concatenate([[0], np.cumsum(part)]) for part in (counts, values * counts)
    )
    centroids = np.linspace(values[0], values[-1], min(most, len(values)))
    bounds = np.empty(0, int)
    while True:
        middles = np.searchsorted(values, (centroids[1:] + centroids[:-1]) / 2)
        before, bounds = bounds, np.concatenate([[0], middles, [len(values)]])
        if np.array_equal(bounds, before):
            nearest = np.repeat(centroids, np.diff(bounds))
            return nearest[place].astype(live.dtype)
        sizes = np.diff(number[bounds])
        centroids = np.diff(total[bounds]) / np.maximum(sizes, 1)
        if free := np.count_nonzero(sizes == 0):
            # A centroid without values moves to the value farthest from its centroid.
            distance = np.abs(values - np.repeat(centroids, np.diff(bounds)))
            centroids[sizes == 0] = values[np.argpartition(distance, -free)[-free:]]
            centroids.sort()


class SharedWeights(Configured, InFit):
    """Trains the values that weights share, each as one parameter.

    The gradients of the weights that share a value are summed, which gives the gradient
    with respect to that value, and each of these weights receives the sum. An optimizer
    that updates weights elementwise then moves them together. The optimizer slots of
    shared weights are reset, unless `BackupAndRestore` has restored them. Everything
    else trains as usual.
    With `QuantizationAware` in the same training, the values are rounded to eight bits
    and stay shared.
    The clusters are found when training begins: each consists of equal live weights of
    a masked kernel. If a `fit` raises, the next one trains the weights separately, as
    without this callback.

    Raises:
        ValueError: when training begins, if the model is not masked, has no kernel
            with shared weights, or was restored to the middle of an epoch,
            where weights that share a value are equal up to their last digits.
        RuntimeError: at the end of an epoch, if the optimizer moved weights that share
            a value apart (Muon does).

    Reference:
        Han et al. 2015, section 3.3, equation 3.

    Example::

        kl.share_weights(model, bits=3)
        model.fit(x, y, epochs=2, callbacks=[kl.callbacks.SharedWeights()])
        len(np.unique(model.layers[0].kernel))  # still 8, and the zeros
    """

    def __init__(self) -> None:
        super().__init__()
        self._clusters: dict[str, np.ndarray] = {}
        self._change: GradientChange | None = None

    def start(self) -> None:
        """Finds the weights that share a value."""
        self._clusters = clusters(self.model)
        restored = restored_epoch(self.model) is not None
        if restored:
            _check_apart(self.model)
        if not self._clusters:
            raise ValueError(
                "SharedWeights needs a model with shared weights. Received: model "
                f"'{self.model.name}', of which no kernel has fewer values than "
                "weights. Call `share_weights(model)` before `fit`."
            )
        weights = {n: weight for n, (_, weight) in named_masks(self.model).items()}
        round_alike(self.model, self._clusters)
        segments = {}
        for name, labels in self._clusters.items():
            flat = ops.convert_to_tensor(labels.ravel())
            segments[id(weights[name])] = flat, int(labels.max()) + 1

        def summed(grads: list[Any], variables: list[keras.Variable]) -> list[Any]:
            return [
                gradient
                if gradient is None or id(variable) not in segments
                else _summed(gradient, *segments[id(variable)])
                for gradient, variable in zip(grads, variables, strict=True)
            ]

        self._change = GradientChange(self.model, summed)
        if not restored:
            shared = [weights[name] for name in self._clusters]
            _clear_slots(self._change.optimizer, shared)

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        # This comes before other callbacks save the model at the end of the epoch.
        if batch + 1 == self.params["steps"]:
            self._make_equal()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        # The length of an epoch is not always known in advance.
        self._make_equal()

    def _make_equal(self) -> None:
        state = get_state(self.model)
        for name, labels in self._clusters.items():
            values = state[name]
            _, start, own = np.unique(labels, return_index=True, return_inverse=True)
            first = values.ravel()[start]
            spread = np.abs(values - first[own]).astype(np.float64).max()
            if not spread <= _SPREAD * np.abs(first).max():
                raise RuntimeError(
                    f"Weights of `{name}` that shared a value differ by {spread:.2g} "
                    "after training. Use an optimizer that updates weight by weight, "
                    "such as SGD or Adam."
                )
            state[name] = first[own]
        set_state(self.model, state)

    def on_train_end(self, logs: dict | None = None) -> None:
        super().on_train_end(logs)
        if self._change is not None:
            self._change.remove()


def clusters(model: keras.Model) -> dict[str, np.ndarray]:
    """The cluster number of each weight, for kernels with shared weights.

    Pruned weights have the number 0; values are numbered from 1 in ascending order.
    """
    state, found = get_state(model), {}
    for name, mask in get_masks(model).items():
        values, labels = np.unique(state[name][mask], return_inverse=True)
        if 0 < len(values) <= 2**MOST_BITS and len(values) < len(labels):
            found[name] = np.zeros(mask.shape, np.int32)
            found[name][mask] = labels + 1
    return found


def _check_apart(model: keras.Model) -> None:
    """Raises ValueError if values of a kernel differ only in their last digits."""
    state = get_state(model)
    for name, mask in get_masks(model).items():
        values = np.unique(state[name][mask]).astype(np.float64)
        if len(values) <= 2**MOST_BITS and np.any(
            np.diff(values) <= _SAME * np.abs(values).max(initial=0)
        ):
            raise ValueError(
                f"Weights of `{name}` share values except for their last digits. "
                "Received: a training restored to the middle of an epoch. Back up at "
                'the end of epochs, with `BackupAndRestore(save_freq="epoch")`.'
            )


def _summed(gradient: Any, segments: Any, number: int) -> Any:
    """Replaces each element by the sum over its segment."""
    sums = ops.segment_sum(ops.reshape(gradient, (-1,)), segments, number)
    return ops.reshape(ops.take(sums, segments), gradient.shape)


def _clear_slots(optimizer: Any, weights: list[keras.Variable]) -> None:
    shared = {id(weight) for weight in weights}
    for weight, slot, start in slots(optimizer):
        if id(weight) in shared:
            slot.assign(np.full(slot.shape, start))
