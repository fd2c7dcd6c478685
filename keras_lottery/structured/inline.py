"""`inline`: opens the blocks of a model, so that channels can be followed in them."""

import contextlib
import warnings
from collections.abc import Iterator
from functools import partial
from typing import Any

import keras
import numpy as np

from keras_lottery.keras_bridge.internals.graph import has_graph, nodes_of
from keras_lottery.keras_bridge.internals.layers import (
    children,
    own_variables,
    random_generators,
)
from keras_lottery.keras_bridge.internals.masking import padding_mask
from keras_lottery.keras_bridge.layers import is_masked, walk
from keras_lottery.keras_bridge.layers.convert import compile_alike
from keras_lottery.keras_bridge.layers.copying import clone, duplicate
from keras_lottery.keras_bridge.layers.inside import class_of, hold
from keras_lottery.structured.decoders import (
    call_equal,
    equal_layer,
    takes_symbols,
)
from keras_lottery.structured.removal import check_followed
from keras_lottery.structured.rules.attention import ATTENTION


def inline(model: keras.Model) -> keras.Model:
    """Returns a model in which blocks are replaced by nested Functional models.

    A block is a layer that is made of other layers, such as a transformer block of
    keras-hub or of a class of your own. It is replaced by a Functional model with its
    name and its layers, made by calling the block once on symbolic tensors. `compact`
    and `granularity="filter"` follow channels through such a model, but not through a
    block. Weights, masks and outputs in inference stay the same, and so do other
    layers.

    Python code in a block's `call` runs once, with `training` false: a branch `if
    training:` is not taken. Inner layers that depend on training, such as Dropout,
    still do.

    In keras-hub's decoders GPT-2, Gemma and Llama, attention and normalisation become
    equal layers, of Keras or of this library, which can be rebuilt with fewer heads. At
    padding in front of a text, the outputs are not those of Gemma and Llama.

    Args:
        model: a built Sequential or Functional model, or one of keras-hub's backbones;
            masked or not. It is left untouched; if it is compiled, the new one is
            compiled in the same way, with a fresh optimizer.

    Returns:
        The new model. Loading it from a file does not need the blocks' classes.

    Raises:
        ValueError: if the model is not built or is a subclassed model, or if it has
            blocks and none of them can be opened. A warning names single blocks that
            cannot.

    Example:

    >>> import keras_lottery as kl
    >>> class Block(keras.layers.Layer):
    ...     def build(self, shape):
    ...         self.expand = keras.layers.Dense(8, "relu", name="expand")
    ...         self.project = keras.layers.Dense(shape[-1], name="project")
    ...         self.expand.build(shape)
    ...         self.project.build((*shape[:-1], 8))
    ...     def call(self, x):
    ...         return x + self.project(self.expand(x))
    >>> model = keras.Sequential([keras.Input((4,)), Block(name="block")])
    >>> open_model = kl.mask_model(kl.inline(model))
    >>> kl.prune(open_model, 0.5, granularity="filter")
    >>> model.count_params(), kl.compact(open_model).count_params()
    (76, 40)
    """
    check_followed(model)
    blocks = {path: layer for path, layer in walk(model) if _is_block(layer)}
    copy = duplicate(model)
    opener = _Opener(copy)
    new = opener.graph(copy)
    if blocks and not opener.opened:
        raise ValueError(
            f"Expected blocks that can be opened in model '{model.name}'. Received: "
            f"{_listing(opener.closed)}"
        )
    if opener.closed:
        warnings.warn(
            f"These blocks stay closed, and `compact` keeps all inside them: "
            f"{_listing(opener.closed)}",
            stacklevel=2,
        )
    if is_masked(new):
        hold(new)
    compile_alike(model, new)
    return new


class _Opener:
    """Opens blocks, each of them once for all its uses.

    Args:
        model: the model that contains the blocks.

    Attributes:
        opened: the paths of the opened blocks.
        closed: the blocks that cannot be opened, and why.
    """

    def __init__(self, model: keras.Model) -> None:
        self._paths = {id(layer): path for path, layer in walk(model)}
        self.opened: list[str] = []
        self.closed: dict[str, str] = {}
        self._copies: dict[int, Any] = {}
        self._replaced: dict[int, Any] = {}
        self._graphs: dict[int, keras.Model | None] = {}

    def graph(self, model: Any) -> keras.Model:
        """Returns a Functional model of the same layers in which blocks are opened."""
        if isinstance(model, keras.Sequential):
            first = keras.Input(
                batch_shape=model.input_shape, dtype=model.inputs[0].dtype
            )
            x = first
            for layer in model.layers:
                x = self._call(self._copy(layer), x)
            return keras.Model(first, x, name=model.name)
        return clone(model, self._copy, call=self._call)

    def _copy(self, layer: Any) -> Any:
        if id(layer) not in self._copies:
            new = self.graph(layer) if has_graph(layer) else layer
            with self._naming(layer):
                equal = equal_layer(layer)
            if equal is not None:
                new = equal
                self._replaced[id(new)] = layer
            self._copies[id(layer)] = new
        return self._copies[id(layer)]

    @contextlib.contextmanager
    def _naming(self, layer: Any) -> Iterator[None]:
        """Says in errors which layer has no equal, and what remains."""
        try:
            yield
        except ValueError as error:
            raise ValueError(
                f"'{self._path(layer)}' has no equal that could be rebuilt: {error}. "
                "`mask_model` and `drop_blocks` take the model as it is."
            ) from error

    def _call(self, layer: Any, *args: Any, **kwargs: Any) -> Any:
        if id(layer) in self._replaced:
            old = self._replaced[id(layer)]
            with self._naming(old):
                return call_equal(old, layer, args, kwargs)
        if not _is_block(layer):
            return layer(*args, **kwargs)
        tensors = {
            id(x): x
            for x in keras.tree.flatten((args, kwargs))
            if isinstance(x, keras.KerasTensor)
        }
        if id(layer) not in self._graphs:
            self._graphs[id(layer)] = self._open(layer, tensors, args, kwargs)
        opened = self._graphs[id(layer)]
        if opened is None:
            return layer(*args, **kwargs)
        given = list(tensors.values())
        return opened(given if len(given) > 1 else given[0])

    def _open(
        self, layer: Any, tensors: dict[int, Any], args: Any, kwargs: Any
    ) -> keras.Model | None:
        """Returns the graph of a block, or `None` if the block cannot be opened."""
        if reason := _why_closed(layer, list(tensors.values())):
            self._close(layer, reason)
            return None
        inputs = {
            number: keras.Input(batch_shape=x.shape, dtype=x.dtype)
            for number, x in tensors.items()
        }
        own_args, own_kwargs = keras.tree.map_structure(
            lambda x: inputs.get(id(x), x), (args, kwargs)
        )
        first = list(inputs.values())
        if layer.autocast:
            # Keras does the same around `call`.
            own_args, own_kwargs = keras.tree.map_structure(
                partial(_cast, layer.compute_dtype), (own_args, own_kwargs)
            )
        try:
            with takes_symbols(layer, first):
                outputs = layer.call(*own_args, **own_kwargs)
        except Exception as error:
            self._close(layer, "its `call` takes no symbolic tensors", error)
            return None
        try:
            made = self.graph(
                keras.Model(
                    first if len(first) > 1 else first[0], outputs, name=layer.name
                )
            )
        except Exception as error:
            self._close(layer, "what its `call` does makes no graph", error)
            return None
        try:
            # A file cannot hold a tensor that the block itself stores.
            keras.saving.serialize_keras_object(made)
        except Exception as error:
            self._close(layer, "a file could not hold its graph", error)
            return None
        self.opened.append(self._path(layer))
        return made

    def _close(self, layer: Any, reason: str, error: Exception | None = None) -> None:
        """Records why a block stays as it is, with the first line of an error."""
        if error is not None:
            told = str(error).strip().partition("\n")[0][:200]
            reason = f"{reason} ({told or type(error).__name__})"
        self.closed[self._path(layer)] = reason

    def _path(self, layer: Any) -> str:
        return self._paths.get(id(layer), layer.name)


def _cast(dtype: str, value: Any) -> Any:
    """Casts tensors of floats to a dtype, and returns anything else unchanged."""
    if not isinstance(value, keras.KerasTensor) or value.dtype == dtype:
        return value
    if keras.backend.is_float_dtype(value.dtype):
        return keras.ops.cast(value, dtype)
    return value


def _is_block(layer: Any) -> bool:
    """Whether a layer is made of other layers and its class is not one of Keras's."""
    return (
        isinstance(layer, keras.layers.Layer)
        and not has_graph(layer)
        and not isinstance(layer, ATTENTION)
        and class_of(layer).__module__.partition(".")[0] != "keras"
        and bool(children(layer))
    )


def _why_closed(layer: Any, tensors: list[Any]) -> str:
    """Returns why a block cannot be opened, as far as this is known beforehand."""
    if own_variables(layer):
        names = [variable.name for variable in own_variables(layer)]
        return f"it has weights of its own, {names}, which are of no layer inside"
    if random_generators(layer):
        return "it draws random numbers of its own"
    if not tensors:
        return "it reads no tensor"
    if len(set(map(_call_of, nodes_of(layer)))) > 1:
        return "it is called in several ways, and a graph holds one"
    if any(padding_mask(tensor) is not None for tensor in tensors):
        return (
            "it reads a tensor with Keras's mask of padding (`mask_zero`, `Masking`), "
            "which does not go through operations inside it"
        )
    return ""


def _call_of(node: Any) -> str:
    """Returns how a layer is called in one place: its tensors and other arguments."""
    tensors = {id(tensor): number for number, tensor in enumerate(node.input_tensors)}

    def told(value: Any) -> str:
        if isinstance(value, keras.KerasTensor):
            return f"tensor {tensors[id(value)]} {value.shape} {value.dtype}"
        if keras.ops.is_tensor(value) or isinstance(value, np.ndarray):
            # The `repr` of a large array leaves out most of it.
            array = keras.ops.convert_to_numpy(value)
            return f"{array.shape} {array.dtype} {array.tobytes()!r}"
        return repr(value)

    arguments = node.arguments.args, node.arguments.kwargs
    return str(keras.tree.map_structure(told, arguments))


def _listing(closed: dict[str, str]) -> str:
    return "; ".join(f"'{name}': {reason}" for name, reason in closed.items())
