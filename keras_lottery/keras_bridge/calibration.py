"""Moments of layers' inputs, which are all that pruning without training needs.

They are summed over batches in double precision. Their memory therefore depends on the
layers' sizes and not on the number of examples.
"""

from collections.abc import Iterable
from typing import Any

import keras
import numpy as np

from keras_lottery.keras_bridge.layer_inputs import (
    call_recorded,
    in_batches_of_inputs,
    readers,
)
from keras_lottery.keras_bridge.linear import Matrices


def matrices_of(model: keras.Model, names: Iterable[str]) -> dict[str, Matrices]:
    """Returns the matrices of masked weights, by name.

    Raises:
        ValueError: if the inputs of a weight are not known.
    """
    found = {}
    layers = readers(model)
    for name in names:
        kinds = [of for _, of in layers[name]]
        if kinds[0] is None or None in kinds:
            kind = type(layers[name][0][0]).__name__.removeprefix("Masked")
            raise ValueError(
                f"The inputs of the weight `{name}` of a {kind} are not known: only "
                "those of Dense, EinsumDense and convolutions are. Leave it out with "
                "`exclude=` of the allocation or `prunable=` of `mask_model`, or "
                "choose a criterion that reads no inputs, such as 'magnitude'."
            )
        found[name] = kinds[0]
    return found


def input_norms(
    model: keras.Model, x: Any, names: Iterable[str], batch_size: int | None = None
) -> dict[str, np.ndarray]:
    """Returns, for each entry of a weight, the norm of its input over all of the data.

    Args:
        model: a masked model.
        x: inputs of the model, as arrays.
        names: the names of masked weights.
        batch_size: the number of examples in a batch; by default as many as are likely
            to fit into memory.

    Returns:
        Mapping of the names to arrays of the weights' shapes: ‖x_j‖₂, or zero for a
        weight that nothing reads.

    Example:

    >>> from keras_lottery.keras_bridge.layers import mask_model
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    >>> x = np.array([[3.0, 1.0], [4.0, 0.0]], "float32")
    >>> input_norms(mask_model(model), x, ["dense/kernel"])["dense/kernel"].tolist()
    [[5.0], [1.0]]
    """
    names = list(names)
    of = matrices_of(model, names)
    layers = {name: some for name, some in readers(model).items() if name in of}
    squares = {name: np.zeros(of[name].shape[:2]) for name in names}

    def record(name: str, here: Matrices, inputs: np.ndarray) -> None:
        for rows in here.read(inputs):
            # Sums in double precision, without a copy of the rows in it.
            squares[name] += np.einsum("gri,gri->gi", rows, rows, dtype="float64")

    for batch in in_batches_of_inputs(model, x, batch_size):
        call_recorded(model, batch, layers, record)
    return {
        name: _as_weight(of[name], np.sqrt(squares[name])).astype("float32")
        for name in names
    }


def _as_weight(of: Matrices, by_input: np.ndarray) -> np.ndarray:
    """Spreads a number for each input over the entries of a weight that read it."""
    return of.weight(np.broadcast_to(by_input[..., np.newaxis], of.shape))


def second_moments(
    model: keras.Model, x: Any, name: str, batch_size: int | None = None
) -> np.ndarray:
    """Returns XᵀX of the inputs that a weight multiplies, over all of the data.

    Args:
        model, x, batch_size: same as in `input_norms`.
        name: the name of a masked weight.

    Returns:
        An array (groups, inputs, inputs) of double precision. A Dense layer is one
        group, and the inputs of a convolution are the positions of a patch times its
        channels.

    Example:

    >>> from keras_lottery.keras_bridge.layers import mask_model
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    >>> x = np.array([[3.0, 1.0], [4.0, 0.0]], "float32")
    >>> second_moments(mask_model(model), x, "dense/kernel").tolist()
    [[[25.0, 3.0], [3.0, 1.0]]]
    """
    of = matrices_of(model, [name])[name]
    groups, count, _ = of.shape
    moments = np.zeros((groups, count, count))

    def record(name: str, here: Matrices, inputs: np.ndarray) -> None:
        for rows in here.read(inputs):
            doubled = rows.astype("float64")
            np.add(moments, doubled.swapaxes(1, 2) @ doubled, out=moments)

    layers = {name: readers(model)[name]}
    for batch in in_batches_of_inputs(model, x, batch_size):
        call_recorded(model, batch, layers, record)
    return moments
