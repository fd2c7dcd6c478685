"""The inputs of a model's layers, batch by batch."""

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from keras_lottery.keras_bridge.backends import current
from keras_lottery.keras_bridge.datasets import is_dataset, read_inputs
from keras_lottery.keras_bridge.gradients import length
from keras_lottery.keras_bridge.internals.patches import overridden
from keras_lottery.keras_bridge.layers.masked import Masked
from keras_lottery.keras_bridge.layers.names import named_masks, walk
from keras_lottery.keras_bridge.layers.recurrent import (
    at_rest,
    batch_size_of,
    check_whole_batches,
)
from keras_lottery.keras_bridge.linear import Matrices, matrices

# The largest number of input entries in a batch, since activations grow with it.
_BATCH = 1 << 22


class _Reached(BaseException):
    """Ends a call of a model; not an `Exception`, to which Keras would add a text."""


def readers(model: keras.Model) -> dict[str, list[tuple[Masked, Matrices | None]]]:
    """Returns the layers that read each masked weight, with its matrices, by name."""
    names = {id(weight): name for name, (_, weight) in named_masks(model).items()}
    found: dict[str, list[tuple[Masked, Matrices | None]]] = {}
    for _, layer in walk(model):
        if isinstance(layer, Masked) and layer.built:
            for weight in layer.masked_weights:
                name = names[id(layer.weight_variable(weight))]
                found.setdefault(name, []).append((layer, matrices(layer, weight)))
    return found


def calls_in_order(model: keras.Model, x: Any) -> dict[str, int]:
    """Returns how often the model reads each masked weight, in order of first use."""
    calls: dict[str, int] = {}

    def count(name: str, of: Any, x: np.ndarray) -> None:
        calls[name] = calls.get(name, 0) + 1

    first = keras.tree.map_structure(lambda array: array[: _size(model, 1)], x)
    call_recorded(model, first, readers(model), count)
    return calls


def call_recorded(
    model: keras.Model,
    batch: Any,
    layers: Mapping[str, Sequence[tuple[keras.Layer, Any]]],
    record: Callable[[str, Any, Any], None],
    uses: int | None = None,
) -> None:
    """Calls a model in inference mode, and records the inputs of some of its layers.

    Args:
        model: a masked model that can be called, of any kind.
        batch: the model's inputs.
        layers: by name, the layers to record, each paired with any object.
        record: called at each use of a layer with its name, the paired object, and the
            layer's input, an array or a list of arrays.
        uses: the number of recorded uses after which the call stops; by default it runs
            to its end.
    """
    seen = 0

    def listening(name: str, layer: keras.Layer, of: Any) -> Callable[..., Any]:
        call = layer.call  # type: ignore[attr-defined]

        @functools.wraps(call)
        def recorded(*args: Any, **kwargs: Any) -> Any:
            nonlocal seen
            x = next(iter(inspect.signature(call).bind(*args, **kwargs).args))
            record(
                name, of, keras.tree.map_structure(functools.partial(_array, layer), x)
            )
            seen += 1
            if seen == uses:
                raise _Reached
            return call(*args, **kwargs)

        return recorded

    with contextlib.ExitStack() as stack, contextlib.suppress(_Reached):
        stack.enter_context(at_rest(model))
        for name, some in layers.items():
            for layer, of in some:
                patch = overridden(layer, "call", listening(name, layer, of))
                stack.enter_context(patch)
        model(
            keras.tree.map_structure(keras.ops.convert_to_tensor, batch), training=False
        )


def _array(layer: keras.Layer, x: Any) -> np.ndarray:
    try:
        array = np.asarray(current().array(x))
    except Exception as error:
        raise ValueError(
            f"The inputs of the layer '{layer.name}' cannot be read: it is called in a "
            "compiled function, such as the loop of a wrapper or of a recurrent layer. "
            "Leave it out, by `exclude=` of the allocation or `prunable=` of "
            "`mask_model`, or choose a criterion that reads no inputs, such as "
            "'magnitude'."
        ) from error
    return array if array.dtype == np.float64 else array.astype("float32")


def in_batches_of_inputs(
    model: keras.Model, x: Any, size: int | None = None
) -> Iterator[Any]:
    """Yields inputs in batches, which have the model's fixed batch size if it has one.

    Args:
        model: the model.
        x: the model's inputs, as arrays.
        size: the number of examples in a batch; by default as many as are likely to fit
            into memory, up to 256.
    """
    check_whole_batches(model, length(x))
    numbers = sum(array.size for array in keras.tree.flatten(x)) // length(x)
    size = _size(model, size or min(256, max(1, _BATCH // max(1, numbers))))
    for start in range(0, length(x), size):
        some = slice(start, start + size)
        yield keras.tree.map_structure(lambda array: array[some], x)  # noqa: B023


def _size(model: keras.Model, size: int) -> int:
    return batch_size_of(model) or size


def inputs_alone(data: Any, model: keras.Model) -> Any:
    """Returns the inputs x of data as NumPy arrays, or structures of them.

    Args:
        data: x alone, as an array or a dictionary of arrays; or (x, y) as in `fit`; or
            a data set of either. A pair of arrays is read as (x, y).
        model: the model that reads the inputs.

    Raises:
        ValueError: if there are no examples, or if arrays differ in length, do not have
            the shape of the model's input, or are not finite.
    """
    if is_dataset(data):
        x = read_inputs(data)
    else:
        whole = isinstance(data, tuple | list) and len(data) in (2, 3)
        x = keras.tree.map_structure(np.asarray, data[0] if whole else data)
    arrays = keras.tree.flatten(x)
    shapes = [array.shape for array in arrays]
    if not shapes or not all(s and s[0] == shapes[0][0] > 0 for s in shapes):
        raise ValueError(
            "Expected `data` to be inputs x, or (x, y), with examples along the first "
            f"axis, as many in each array. Received: arrays of shapes {shapes}"
        )
    expected = [tuple(t.shape) for t in getattr(model, "inputs", None) or ()]
    if expected and len(shapes) != len(expected):
        raise ValueError(
            f"Expected `data` to be {len(expected)} inputs. Received: {len(shapes)}. "
            "Pass an array for a model of one input, else a dictionary of arrays by "
            "name, or (x, y)."
        )
    if len(shapes) == len(expected) == 1 and not _fits(shapes[0], expected[0]):
        raise ValueError(
            f"Expected `data` to be inputs of shape {expected[0]}, with or without "
            f"targets. Received: shape {shapes[0]}"
        )
    if not all(np.isfinite(a).all() for a in arrays if a.dtype.kind == "f"):
        raise ValueError("Expected finite numbers in `data`. Received: NaN or infinity")
    return x


def _fits(shape: tuple[int, ...], expected: tuple[int | None, ...]) -> bool:
    return len(shape) == len(expected) and all(
        wanted in (None, size)
        for size, wanted in zip(shape[1:], expected[1:], strict=True)
    )
