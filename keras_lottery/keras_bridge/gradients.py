"""First and second derivatives with respect to weights, and gradients of inputs.

Weights are the variables behind the masks. Pruned weights have derivatives too: those
that they would have without their masks, at zero.
"""

import contextlib
import operator
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras
import numpy as np

from keras_lottery.keras_bridge.backends import current
from keras_lottery.keras_bridge.datasets import is_dataset, read_whole
from keras_lottery.keras_bridge.internals.models import compute_loss, without_penalties
from keras_lottery.keras_bridge.layers import (
    State,
    get_masks,
    get_state,
    named_masks,
    named_variables,
    set_state,
)
from keras_lottery.keras_bridge.layers.masked import premasked
from keras_lottery.keras_bridge.layers.recurrent import (
    batch_size_of,
    check_whole_batches,
    recurrent_states,
)

BATCH_SIZE = 256

Scalar = Callable[[keras.Model, Any, Any], Any]
"""A scalar function of a model, inputs and targets, written in `keras.ops`."""


def loss(model: keras.Model, x: Any, y: Any) -> Any:
    """Returns the compiled loss of a batch in inference mode, without penalties.

    The penalties of regularisers, of weights and of outputs, are left out because they
    do not measure how well the model fits the data.
    """
    with without_penalties(model):
        return compute_loss(model, x, y, model(x, training=False), training=False)


def training_loss(model: keras.Model, x: Any, y: Any) -> Any:
    """Returns the compiled loss of a batch in training mode, without a training step.

    Dropout drops and BatchNormalization uses the batch's statistics, but their
    variables stay as they are. Penalties are left out, same as in `loss`.
    """
    with without_penalties(model):
        return compute_loss(model, x, y, model(x, training=True))


def gradients(
    model: keras.Model,
    x: Any,
    y: Any,
    batch_size: int = BATCH_SIZE,
    scalar: Scalar = loss,
    state: State | None = None,
) -> dict[str, np.ndarray]:
    """Returns the gradient of a scalar over all data.

    Batches are weighted by their numbers of examples. If the scalar is a mean over
    examples, as Keras's losses are, the result is the gradient of the mean over all
    examples.

    Args:
        model: a masked model.
        x, y: inputs and targets: arrays, or structures of them.
        batch_size: examples in a batch, limited by the memory.
        scalar: a function of (model, x, y); by default the compiled loss without the
            penalties of regularisers.
        state: the weights at which to take the gradient; the model's own by default.

    Returns:
        Mapping of the name of each weight that is trainable or masked to an array of
        its shape.

    Raises:
        ValueError: if the scalar is the loss and the model is not compiled.
        FloatingPointError: if a gradient is not finite.

    Example:

    >>> from keras_lottery.keras_bridge.layers import mask_model
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    >>> model.compile(loss="mse")
    >>> x = np.array([[1.0, 2.0], [3.0, 4.0]], "float32")
    >>> at_zero = {"dense/kernel": np.zeros((2, 1)), "dense/bias": np.zeros(1)}
    >>> y = np.ones((2, 1), "float32")
    >>> gradients(mask_model(model), x, y, state=at_zero)["dense/kernel"].tolist()
    [[-4.0], [-6.0]]
    """
    with holding(model, state):
        batches = in_batches(model, x, y, batch_size)
        return _mean(batch_gradients(model, batches, scalar))


def batch_gradients(
    model: keras.Model, batches: Any, scalar: Scalar = loss
) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """Yields the gradient of a scalar on one batch after another.

    Args:
        model: a masked model.
        batches: (x, y) of each batch.
        scalar: same as in `gradients`.

    Yields:
        The number of examples in the batch, and its gradient in the same form as in
        `gradients`.
    """
    yield from _evaluate(current().gradient, model, scalar, batches)


def hessian_vector_product(
    model: keras.Model,
    x: Any,
    y: Any,
    vector: Mapping[str, np.ndarray],
    batch_size: int = BATCH_SIZE,
    scalar: Scalar = loss,
    state: State | None = None,
) -> dict[str, np.ndarray]:
    """Returns the Hessian of a scalar over all data, times a vector.

    The Hessian is taken with respect to the weights that the vector names; the others
    are constant.

    Args:
        model, x, y, batch_size, scalar, state: same as in `gradients`.
        vector: mapping of the names of weights to arrays of their shapes.

    Returns:
        Mapping of the vector's names to arrays of the same shapes.

    Raises:
        ValueError: same as in `gradients`, or if the vector does not fit the model.
        FloatingPointError: if a product is not finite.

    Example:

    >>> from keras_lottery.keras_bridge.layers import mask_model
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    >>> model.compile(loss="mse")
    >>> model = mask_model(model)
    >>> x, y = np.array([[1.0, 2.0]], "float32"), np.ones((1, 1), "float32")
    >>> vector = {"dense/kernel": np.array([[1.0], [0.0]])}
    >>> hessian_vector_product(model, x, y, vector)["dense/kernel"].tolist()
    [[2.0], [4.0]]
    """
    weights = _weights(model, scalar)
    wrong = [
        name
        for name, array in vector.items()
        if name not in weights or weights[name].shape != np.shape(array)
    ]
    if wrong or not vector:
        raise ValueError(
            f"Expected a vector of some of the weights {sorted(weights)}, each of its "
            f"weight's shape. Received: {wrong or 'none'}"
        )
    with holding(model, state):
        batches = in_batches(model, x, y, batch_size)
        product = current().hessian_product
        return _mean(_evaluate(product, model, scalar, batches, vector))


def input_gradients(
    model: keras.Model, x: Any, y: Any, batch_size: int = BATCH_SIZE
) -> Any:
    """Returns the gradient of each example's loss with respect to its inputs.

    Args:
        model: a compiled model, masked or not, in inference mode.
        x, y: inputs and targets: arrays, or structures of them. All inputs are floats.
        batch_size: examples in a batch, limited by the memory.

    Returns:
        Arrays of the shapes of `x`, in the same structure: the gradient of each batch's
        loss, without regularisers' penalties, times its number of examples.

    Raises:
        ValueError: if the model is not compiled.
        FloatingPointError: if a gradient is not finite.
    """
    check_compiled(model)
    states = recurrent_states(model)
    fixed = [*model.variables, *model.metrics_variables]
    held = [*fixed, *states]

    def differentiate(inputs: list[Any], others: list[Any], y: Any) -> list[Any]:
        def function(inputs: list[Any]) -> Any:
            given = keras.tree.pack_sequence_as(x, inputs)
            pairs = zip(held, others, strict=True)
            with keras.StatelessScope(list(pairs), collect_losses=True):
                return loss(model, given, y)

        return derivative(function, inputs)

    # TensorFlow would trace an import inside the function that it compiles.
    derivative, compiled = current().gradient, current().compiled(differentiate)
    # They include the masks. Each batch starts a new sequence.
    others = [keras.ops.convert_to_tensor(variable.value) for variable in fixed]
    others += [keras.ops.zeros(v.shape, v.dtype) for v in states]
    parts = []
    for batch in in_batches(model, x, y, batch_size):
        inputs, targets = _map(keras.ops.convert_to_tensor, batch)
        with current().seeded(0):
            found = compiled(keras.tree.flatten(inputs), others, targets)
        arrays = [length(inputs) * current().array(gradient) for gradient in found]
        if not all(np.isfinite(array).all() for array in arrays):
            raise FloatingPointError(
                "The gradient with respect to the inputs is not finite. Look for NaN "
                "or infinity in the data and in the weights."
            )
        parts.append(arrays)
    whole = [np.concatenate(arrays) for arrays in zip(*parts, strict=True)]
    return keras.tree.pack_sequence_as(x, whole)


def check_compiled(model: keras.Model) -> None:
    """Raises ValueError unless the model has a loss."""
    if not model.compiled:
        raise ValueError(
            "Gradients need a loss. Received: a model that is not compiled. "
            "Call `model.compile(loss=...)` first."
        )


def _weights(model: keras.Model, scalar: Scalar) -> dict[str, keras.Variable]:
    """Returns the weights that are trainable or masked; frozen layers may be masked."""
    if scalar in (loss, training_loss):
        check_compiled(model)
    trained = {id(variable) for variable in model.trainable_variables}
    masked = named_masks(model)
    return {
        name: variable
        for name, variable in named_variables(model).items()
        if id(variable) in trained or name in masked
    }


@contextlib.contextmanager
def holding(model: keras.Model, state: State | None) -> Iterator[None]:
    """Inside, the model holds other weights.

    Args:
        model: a masked model.
        state: the weights; `None` leaves the model's own.
    """
    if state is None:
        yield
        return
    with keeping(model):
        set_state(model, state)
        yield


@contextlib.contextmanager
def keeping(model: keras.Model) -> Iterator[None]:
    """Restores a masked model's weights and masks on leaving the context."""
    own, masks = get_state(model), get_masks(model)
    try:
        yield
    finally:
        set_state(model, own, masks)


class _Compiled(threading.local):
    """The functions that this thread compiled and keeps."""

    kept: dict[Any, Callable[..., Any]] | None = None


_compiled = _Compiled()


@contextlib.contextmanager
def compiled_once(kept: dict[Any, Any] | None = None) -> Iterator[None]:
    """Inside, a derivative is compiled once for each model, in this thread.

    This is for rounds that need the same derivative at other weights. The layers, the
    loss and the choice of trainable weights must not change inside.

    Args:
        kept: a dictionary for the compiled functions, which can be passed again later.
    """
    before, _compiled.kept = _compiled.kept, {} if kept is None else kept
    try:
        yield
    finally:
        _compiled.kept = before


def in_batches(
    model: keras.Model, x: Any, y: Any, size: int
) -> Iterator[tuple[Any, Any]]:
    """Yields data (x, y) in batches of `size` examples; the last one may be smaller.

    If the model has a fixed batch size, all batches have that size.

    Raises:
        ValueError: if `size` is below 1, or the data do not fill such batches.
    """
    if size < 1:
        raise ValueError(f"Expected `batch_size` of at least 1. Received: {size}")
    check_whole_batches(model, length(x))
    size = batch_size_of(model) or size
    for start in range(0, length(x), size):
        some = slice(start, start + size)
        yield _map(operator.itemgetter(some), (x, y))


def _map(function: Callable[[Any], Any], structure: Any) -> Any:
    """Maps a function over a structure in which targets may be None."""
    return keras.tree.map_structure(
        lambda array: None if array is None else function(array), structure
    )


def training_arrays(data: Any) -> tuple[Any, Any]:
    """Returns training data (x, y) as NumPy arrays, or structures of them.

    Args:
        data: (x, y) of arrays or tables, or a data set, which is read whole.

    Raises:
        ValueError: if the data are not a pair, there are no examples, x and y differ in
            length, or a data set has no known end.
    """
    if is_dataset(data):
        data = read_whole(data)
    if not isinstance(data, tuple | list) or len(data) != 2:
        raise ValueError(
            "Expected `data` to be training data (x, y), in arrays. Received: "
            + (
                f"{len(data)} parts. Weights of examples are not taken."
                if isinstance(data, tuple | list)
                else f"data of type {type(data).__name__}"
            )
        )
    pair: tuple[Any, Any] = _map(np.asarray, tuple(data))
    arrays = [array for array in keras.tree.flatten(pair) if array is not None]
    lengths = {len(array) for array in arrays if array.ndim}
    if not lengths or 0 in lengths:
        raise ValueError("Expected examples in `data` as arrays. Received: none")
    if len(lengths) > 1 or not all(array.ndim for array in arrays):
        raise ValueError(
            "Expected x and y of one length in `data`. Received: arrays of shapes "
            f"{[array.shape for array in arrays]}"
        )
    return pair


def length(x: Any) -> int:
    """Returns the number of examples in an array, or in a structure of arrays."""
    return len(keras.tree.flatten(x)[0])


def _evaluate(
    derivative: Callable[..., list[Any]],
    model: keras.Model,
    scalar: Scalar,
    batches: Any,
    vector: Mapping[str, np.ndarray] | None = None,
) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """Yields each batch's derivative with respect to all weights or along a vector."""
    weights = _weights(model, scalar)
    names = list(weights if vector is None else vector)
    variables = [weights[name] for name in names]
    along = [
        keras.ops.convert_to_tensor(array, weights[name].dtype)
        for name, array in (vector or {}).items()
    ]
    chosen = {id(variable) for variable in variables}
    # Everything is passed as arguments: JAX would compile closed-over values into the
    # program.
    state = {id(v): v for v in [*model.variables, *model.metrics_variables]}
    fixed = [variable for key, variable in state.items() if key not in chosen]
    states = recurrent_states(model)

    def differentiate(
        values: list[Any], others: list[Any], along: list[Any], x: Any, y: Any
    ) -> list[Any]:
        def function(values: list[Any]) -> Any:
            held = [*variables, *fixed, *states]
            pairs = zip(held, [*values, *others], strict=True)
            with keras.StatelessScope(list(pairs), collect_losses=True), premasked():
                return scalar(model, x, y)

        return derivative(function, values, *([along] if vector is not None else []))

    # Kept functions keep their models alive, so that no other model gets the same id.
    key = (id(model), derivative, scalar, tuple(names))
    kept = {} if _compiled.kept is None else _compiled.kept
    if key not in kept:
        kept[key] = current().compiled(differentiate)
    compiled = kept[key]
    own = get_state(model)  # Pruned weights are zero in it.
    values = [keras.ops.convert_to_tensor(own[name]) for name in names]
    others = [keras.ops.convert_to_tensor(variable.value) for variable in fixed]
    # Each batch starts a new sequence.
    others += [keras.ops.zeros(v.shape, v.dtype) for v in states]
    for batch in batches:
        x, y = _map(keras.ops.convert_to_tensor, batch)
        with current().seeded(0):
            results = compiled(values, others, along, x, y)
        arrays = [current().array(result) for result in results]
        yield length(x), dict(zip(names, arrays, strict=True))


def _mean(parts: Iterator[tuple[int, dict[str, np.ndarray]]]) -> dict[str, np.ndarray]:
    """Returns the mean over batches weighted by size, summed in double precision."""
    sums: dict[str, np.ndarray] = {}
    dtypes: dict[str, np.dtype] = {}
    total = 0
    for count, arrays in parts:
        total += count
        for name, array in arrays.items():
            dtypes[name] = array.dtype
            sums[name] = sums.get(name, 0.0) + count * array.astype("float64")
    wrong = [name for name, array in sums.items() if not np.isfinite(array).all()]
    if wrong:
        raise FloatingPointError(
            f"Derivatives by the weights {wrong} are not finite. Look for NaN in the "
            "data and in the weights."
        )
    return {name: (array / total).astype(dtypes[name]) for name, array in sums.items()}
