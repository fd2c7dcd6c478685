"""Weights as matrices, and the inputs that they multiply.

The kernel of a linear layer of Keras is one matrix of inputs by outputs. For grouped
and depthwise convolutions, it is one such matrix for each group of channels. The inputs
of a convolution are the patches of its images.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from keras import layers, ops
from numpy.lib.stride_tricks import sliding_window_view

from keras_lottery.keras_bridge.backends import current

# Patches overlap, and need many times the memory of their images. This is the largest
# number of their entries that is held at a time.
_CHUNK = 1 << 23


@dataclass(frozen=True)
class Matrices:
    """A weight as matrices, one for each group of channels: outputs are inputs · W.

    Args:
        weight_shape: the shape of the weight.
        split: the same shape with an axis of groups and outputs split in two.
        axes: the order of `split` in which groups come first, then inputs, then
            outputs.
        shape: (groups, inputs, outputs).
        read: maps the layer's input, an array, to the rows that the matrices multiply:
            arrays (groups, rows, inputs), one after the other.
        biased: whether the layer adds a bias to each output, in the order of the
            outputs.
    """

    weight_shape: tuple[int, ...]
    split: tuple[int, ...]
    axes: tuple[int, ...]
    shape: tuple[int, int, int]
    read: Callable[[np.ndarray], Iterator[np.ndarray]]
    biased: bool

    def of(self, weight: np.ndarray) -> np.ndarray:
        """Returns an array of the weight's shape as (groups, inputs, outputs)."""
        return weight.reshape(self.split).transpose(self.axes).reshape(self.shape)

    def weight(self, matrices: np.ndarray) -> np.ndarray:
        """Returns the array of the weight's shape that has these matrices."""
        moved = [self.split[axis] for axis in self.axes]
        array = np.asarray(matrices).reshape(moved).transpose(np.argsort(self.axes))
        return array.reshape(self.weight_shape)

    @property
    def is_plain(self) -> bool:
        """Whether the matrix is the weight with all axes but the last flattened."""
        in_order = self.axes == tuple(range(len(self.axes)))
        return in_order and self.shape[::2] == (1, self.weight_shape[-1])

    @property
    def outputs(self) -> np.ndarray:
        """The index of the output of each entry, in an array of the weight's shape."""
        groups, _, outputs = self.shape
        numbers = np.arange(groups * outputs).reshape(groups, 1, outputs)
        return self.weight(np.broadcast_to(numbers, self.shape))


def matrices(layer: layers.Layer, weight: str) -> Matrices | None:
    """Returns the matrices of a layer's weight, or `None` if its inputs are not known.

    The inputs are not known for cells of recurrent layers, embeddings and custom
    layers.

    Args:
        layer: a built layer.
        weight: the name of the attribute that holds the weight, such as `"kernel"`.
    """
    for kind, function in _KINDS.items():
        # A custom layer may do anything with its inputs.
        if isinstance(layer, kind) and type(layer).call is kind.call:
            known = weight in ("kernel", "pointwise_kernel")
            shape = tuple(layer.weight_variable(weight).shape)
            return function(layer, shape) if known else None
    return None


def _dense(layer: Any, shape: tuple[int, ...]) -> Matrices:
    def read(x: np.ndarray) -> Iterator[np.ndarray]:
        yield x.reshape(1, -1, shape[0])

    counts = 1, *shape
    return Matrices(shape, shape, (0, 1), counts, read, layer.use_bias)  # type: ignore[arg-type]


def _einsum(layer: Any, shape: tuple[int, ...]) -> Matrices | None:
    """In `abc,cd->abd`, c is an input, d an output, and a and b index the rows."""
    inputs, rest = layer.equation.replace(" ", "").split(",")
    kernel, outputs = rest.split("->")
    # The axes of an ellipsis are the first or the last ones, and not the kernel's.
    left = inputs.startswith("...")
    inputs, outputs = inputs.replace("...", ""), outputs.replace("...", "")
    if set(inputs) - set(kernel) - set(outputs) or len(set(kernel)) < len(kernel):
        return None
    grouped = [a for a in kernel if a in inputs and a in outputs]
    summed = [a for a in kernel if a in inputs and a not in outputs]
    made = [a for a in kernel if a not in inputs]
    rows = [a for a in inputs if a not in kernel]
    order = [kernel.index(a) for a in (*grouped, *summed, *made)]
    sizes = dict(zip(kernel, shape, strict=True))
    counts = [math.prod(sizes[a] for a in some) for some in (grouped, summed, made)]

    def read(x: np.ndarray) -> Iterator[np.ndarray]:
        more = x.ndim - len(inputs)
        first = more if left else 0
        at = {a: first + i for i, a in enumerate(inputs)}
        other = range(more) if left else range(len(inputs), x.ndim)
        places = (
            [at[a] for a in grouped],
            [at[a] for a in rows],
            [at[a] for a in summed],
        )
        x = x.transpose(*places[0], *other, *places[1], *places[2])
        yield x.reshape(counts[0], -1, counts[1])

    biased = (
        not grouped and [a for a in outputs if a in (layer.bias_axes or "")] == made
    )
    return Matrices(shape, shape, tuple(order), tuple(counts), read, biased)  # type: ignore


def _convolution(layer: Any, shape: tuple[int, ...]) -> Matrices:
    groups = layer.groups
    *sides, channels, filters = shape
    split = (*sides, channels, groups, filters // groups)
    rank = len(sides)
    axes = (rank + 1, *range(rank), rank, rank + 2)
    counts = groups, math.prod(sides) * channels, filters // groups

    def read(x: np.ndarray) -> Iterator[np.ndarray]:
        for patches in _patches(layer, x, sides):
            parts = patches.reshape(*patches.shape[:2], groups, channels)
            yield parts.transpose(2, 0, 1, 3).reshape(groups, -1, counts[1])

    return Matrices(shape, split, axes, counts, read, layer.use_bias)


def _depthwise(layer: Any, shape: tuple[int, ...]) -> Matrices:
    *sides, channels, multiplier = shape
    rank = len(sides)
    axes = (rank, *range(rank), rank + 1)
    counts = channels, math.prod(sides), multiplier

    def read(x: np.ndarray) -> Iterator[np.ndarray]:
        for patches in _patches(layer, x, sides):
            yield patches.transpose(2, 0, 1)

    return Matrices(shape, shape, axes, counts, read, layer.use_bias)


def _separable(layer: Any, shape: tuple[int, ...]) -> Matrices:
    """Returns the matrices of the pointwise part, which reads the depthwise outputs."""
    *_, inputs, outputs = shape

    def read(x: np.ndarray) -> Iterator[np.ndarray]:
        between = ops.depthwise_conv(
            ops.convert_to_tensor(x),
            ops.cast(layer.depthwise_kernel, x.dtype),
            strides=layer.strides,
            padding=layer.padding,
            data_format=layer.data_format,
            dilation_rate=layer.dilation_rate,
        )
        images = _channels_last(layer, current().array(between))
        yield images.reshape(1, -1, inputs)

    axes = tuple(range(len(shape)))
    return Matrices(shape, shape, axes, (1, inputs, outputs), read, layer.use_bias)


def _transposed(layer: Any, shape: tuple[int, ...]) -> Matrices:
    """Treats it as a convolution of the spread image by the reversed kernel."""
    *sides, filters, channels = shape
    rank = len(sides)
    axes = (*range(rank), rank + 1, rank)
    counts = 1, math.prod(sides) * channels, filters

    def read(x: np.ndarray) -> Iterator[np.ndarray]:
        batch = (None,) if layer.data_format == "channels_last" else (None, filters)
        made = layer.compute_output_shape((None, *x.shape[1:]))
        made = [size for size in made[len(batch) :]][:rank]
        images = _channels_last(layer, x)
        spread = _spread(images, layer.strides)
        for axis, (size, side) in enumerate(zip(made, sides, strict=True), start=1):
            reach = (side - 1) * layer.dilation_rate[axis - 1] + 1
            over = max(reach - layer.strides[axis - 1], 0)
            cut = over // 2 if layer.padding == "same" else 0
            # The first output is at position `cut` of all those that the spread image
            # reaches.
            before = reach - 1 - cut
            after = max(size + reach - 1 - before - spread.shape[axis], 0)
            widths = [(0, 0)] * spread.ndim
            widths[axis] = max(before, 0), after
            spread = np.pad(spread, widths)
            keep = [slice(None)] * spread.ndim
            keep[axis] = slice(max(-before, 0), max(-before, 0) + size + reach - 1)
            spread = spread[tuple(keep)]
        once = (1,) * rank
        for patches in _windows(spread, sides, once, layer.dilation_rate):
            yield patches[:, ::-1].reshape(1, -1, counts[1])

    return Matrices(shape, shape, axes, counts, read, layer.use_bias)


def _spread(images: np.ndarray, strides: Sequence[int]) -> np.ndarray:
    """Inserts zeros between the pixels of images."""
    sides = [(n - 1) * s + 1 for n, s in zip(images.shape[1:-1], strides, strict=True)]
    made = np.zeros((len(images), *sides, images.shape[-1]), images.dtype)
    made[(slice(None), *(slice(None, None, s) for s in strides))] = images
    return made


def _channels_last(layer: Any, x: np.ndarray) -> np.ndarray:
    return x if layer.data_format == "channels_last" else np.moveaxis(x, 1, -1)


def _patches(layer: Any, x: np.ndarray, sides: Sequence[int]) -> Iterator[np.ndarray]:
    """Yields the patches that a convolution reads: (positions, places, channels)."""
    images = _channels_last(layer, x)
    widths = [(0, 0)] * images.ndim
    for axis, side in enumerate(sides, start=1):
        reach = (side - 1) * layer.dilation_rate[axis - 1] + 1
        if layer.padding == "causal":
            widths[axis] = reach - 1, 0
        elif layer.padding == "same":
            stride = layer.strides[axis - 1]
            count = -(-images.shape[axis] // stride)
            over = max((count - 1) * stride + reach - images.shape[axis], 0)
            widths[axis] = over // 2, over - over // 2
    padded = np.pad(images, widths)
    yield from _windows(padded, sides, layer.strides, layer.dilation_rate)


def _windows(
    images: np.ndarray,
    sides: Sequence[int],
    strides: Sequence[int],
    dilation: Sequence[int],
) -> Iterator[np.ndarray]:
    """Yields windows of as many images at a time as fit into memory."""
    rank = len(sides)
    reach = [(side - 1) * d + 1 for side, d in zip(sides, dilation, strict=True)]
    view = sliding_window_view(images, reach, axis=tuple(range(1, rank + 1)))
    steps = tuple(slice(None, None, s) for s in strides)
    apart = tuple(slice(None, None, d) for d in dilation)
    view = view[(slice(None), *steps, slice(None), *apart)]
    # The channels come after the positions and before the places in a patch.
    view = np.moveaxis(view, rank + 1, -1)
    count = max(1, _CHUNK // max(1, math.prod(view.shape[1:])))
    for start in range(0, len(view), count):
        part = view[start : start + count]
        positions = math.prod(part.shape[: rank + 1])
        yield part.reshape(positions, math.prod(sides), images.shape[-1])


_KINDS: dict[type[layers.Layer], Callable[[Any, tuple[int, ...]], Matrices | None]] = {
    layers.Dense: _dense,
    layers.EinsumDense: _einsum,
    **dict.fromkeys((layers.DepthwiseConv1D, layers.DepthwiseConv2D), _depthwise),
    **dict.fromkeys((layers.SeparableConv1D, layers.SeparableConv2D), _separable),
    **dict.fromkeys(
        (layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose),
        _transposed,
    ),
    **dict.fromkeys((layers.Conv1D, layers.Conv2D, layers.Conv3D), _convolution),
}
