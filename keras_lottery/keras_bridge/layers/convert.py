"""Conversion of ordinary Keras models to masked ones, and back."""

import fnmatch
import re
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import keras

from keras_lottery.checks import names, refuse
from keras_lottery.keras_bridge import checks
from keras_lottery.keras_bridge.internals.layers import own_variables
from keras_lottery.keras_bridge.internals.models import compile_arguments
from keras_lottery.keras_bridge.internals.optimizers import (
    exclude_from_decay,
    schedule_of,
    undecayed,
)
from keras_lottery.keras_bridge.layers.copying import duplicate
from keras_lottery.keras_bridge.layers.inside import class_of, hold, release
from keras_lottery.keras_bridge.layers.kinds import (
    MASKED_LAYERS,
    ORDINARY_LAYERS,
    is_multiplied,
)
from keras_lottery.keras_bridge.layers.masked import Masked, mask_layer, unmask_layer
from keras_lottery.keras_bridge.layers.names import named_variables, walk
from keras_lottery.keras_bridge.xnnpack import sparse_layers

XNNPACK = "xnnpack"
"""`prunable=` for the convolutions that run sparsely on ARM."""

Prunable = Callable[[keras.layers.Layer], bool] | str | Iterable[str] | None

Layers = list[tuple[str, keras.layers.Layer]]


def check_prunable(prunable: Prunable) -> None:
    """Raises ValueError if `prunable` is not a valid choice of layers."""
    if prunable is None or callable(prunable):
        return
    form = "a function, or names or patterns of layers, at least one"
    given = [prunable] if isinstance(prunable, str) else prunable
    if isinstance(given, Iterator) or not names("prunable", given, form):
        refuse("prunable", form, prunable)


def mask_model(model: keras.Model, prunable: Prunable = None) -> keras.Model:
    """Returns a masked copy of a model, with the same weights and outputs.

    The kernels that `prunable` chooses get masks, which keep all weights at first. By
    default these are the kernels of Dense, EinsumDense, all convolutions except
    depthwise ones, LSTM, GRU and SimpleRNN (recurrent kernels too), wherever they are:
    in nested and subclassed models, in attention layers and wrappers. Use
    `register_masked` to add layers of your own. Biases, normalisation and the depthwise
    part of separable convolutions are never masked. Depthwise convolutions, embeddings
    and frozen layers are masked only if `prunable` chooses them; a warning names frozen
    layers that it leaves out. Another warning names other layers with kernels, such as
    one of your own derived from Dense, unless you pass `prunable`.

    The given model is left untouched; if it is compiled, the copy is compiled in the
    same way, with a fresh optimizer.

    Args:
        model: a built model. Layers that are masked already keep their masks. A
            subclassed model or layer is rebuilt from its config, which has to hold
            every argument of the constructor.
        prunable: which layers to mask:

            - a function `layer -> bool`, called with each layer that has a masked form
              and with recurrent layers whose cells have one;
            - a layer name or path, with wildcards (`"conv*"`, `"encoder/*"`), or
              several of them; the name of a layer that contains others chooses all of
              them;
            - `"xnnpack"`, for the layers with 1x1 kernels that LiteRT runs sparsely on
              ARM, see `export.explain_sparse`;
            - `None`, for all except depthwise convolutions, embeddings and frozen
              layers (`trainable=False`); if the model already has masked layers, for
              only those.

    Raises:
        ValueError: if the model is not built or cannot be copied, if a layer has a
            name that TensorFlow refuses, if a name matches no layer with a masked form,
            or if no layer is left to mask.

    Example:

    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    >>> masked = mask_model(model)
    >>> [type(layer).__name__ for layer in masked.layers]
    ['MaskedDense']
    """
    checks.model("model", model)
    check_prunable(prunable)
    check_layer_names(model)
    chosen = _choose(model, prunable)
    if prunable is None and not is_masked(model):
        _warn_of_kernels(model, chosen)
        _warn_of_frozen(model)
    masked = duplicate(model)
    release(masked)
    inside = dict(walk(masked))
    for path in chosen:
        if not isinstance(inside[path], Masked):
            mask_layer(inside[path], MASKED_LAYERS[type(inside[path])])
    hold(masked)
    compile_alike(model, masked)
    return masked


def strip_masks(model: keras.Model) -> keras.Model:
    """Returns a copy with ordinary Keras layers, in which pruned weights are zeros.

    Args:
        model: a masked model; it is left untouched.

    Raises:
        ValueError: if the model is not built or cannot be copied.

    Example:

    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    >>> [type(layer).__name__ for layer in strip_masks(mask_model(model)).layers]
    ['Dense']
    """
    checks.model("model", model)
    plain = duplicate(model)
    release(plain)
    for _, layer in walk(plain):
        if type(layer) in ORDINARY_LAYERS:
            unmask_layer(layer, ORDINARY_LAYERS[type(layer)])
    compile_alike(model, plain)
    return plain


def check_layer_names(model: keras.Model) -> None:
    """Raises ValueError for layer names that TensorFlow's graphs reject in `fit`."""
    # Inputs are not scopes of a graph.
    inputs = keras.layers.InputLayer
    names = [layer.name for _, layer in walk(model) if not isinstance(layer, inputs)]
    refused = [name for name in names if not re.fullmatch(r"[\w.\\/>-]*", name, re.A)]
    if refused and keras.backend.backend() == "tensorflow":
        raise ValueError(
            "Expected layer names of ASCII letters, digits and `_.\\/>-`, since "
            "TensorFlow refuses others where Keras trains or exports a model. "
            f"Received: {refused}. Give the layers other names."
        )


def masked_by_default(layer: keras.layers.Layer) -> bool:
    """Whether `mask_model` masks a layer by default.

    A depthwise kernel has few weights for each channel, so that pruning soon makes its
    output channel constant.
    """
    return is_multiplied(class_of(layer)) and not is_depthwise(layer)


def is_depthwise(layer: keras.layers.Layer) -> bool:
    """Whether a layer convolves each of several channels by itself."""
    if isinstance(layer, keras.layers.DepthwiseConv1D | keras.layers.DepthwiseConv2D):
        return True
    groups = getattr(layer, "groups", 1)
    return layer.built and groups > 1 and layer.kernel.shape[-2] == 1


def is_masked(model: keras.Model) -> bool:
    """Whether the model has a masked layer."""
    return any(isinstance(layer, Masked) for _, layer in walk(model))


def _choose(model: keras.Model, prunable: Prunable) -> list[str]:
    """Returns the paths of the layers to mask."""
    layers = list(walk(model))
    has_masks = is_masked(model)
    if prunable is None:
        # If a model has masked layers, its layers have been chosen already.
        chosen = [
            path
            for path, layer in layers
            if not has_masks and masked_by_default(layer) and not _frozen(layer)
        ]
    elif prunable == XNNPACK:
        chosen = _sparse_on_arm(model, layers)
    elif callable(prunable):
        cells = {
            id(cell)
            for _, layer in layers
            if _cells(layer) and prunable(layer)
            for cell in _cells(layer)
        }
        chosen = [
            path
            for path, layer in layers
            if _maskable(layer) and (id(layer) in cells or prunable(layer))
        ]
    else:
        chosen = _matches(layers, prunable)
    if not chosen and not has_masks:
        raise ValueError(
            "No layer to prune was found. Expected at least one layer of "
            f"{_class_names()} that `prunable` chooses; frozen layers have to be named "
            "there. Received: "
            f"prunable={prunable!r} and these layers:\n{_listing(layers)}"
        )
    return chosen


def _sparse_on_arm(model: keras.Model, layers: Layers) -> list[str]:
    """Returns the layers that XNNPACK can run sparsely; ValueError if none can."""
    fitting = sparse_layers(model)
    chosen = [path for path, layer in layers if id(layer) in fitting]
    if not chosen:
        raise ValueError(
            "Expected a model with 1x1 convolutions that LiteRT runs sparsely on ARM, "
            f"for prunable={XNNPACK!r}. Received: model '{model.name}', which has "
            "none. `kl.export.explain_sparse(model)` says why, and "
            "`kl.export.adapt_for_xnnpack(model)` changes the padding, if that is why."
        )
    return chosen


def _warn_of_kernels(model: keras.Model, chosen: list[str]) -> None:
    """Warns about layers with kernels that have no masked form."""
    layers = dict(walk(model))
    masked = {id(v) for path in chosen for v in layers[path].variables}
    default = tuple(kind for kind in MASKED_LAYERS if is_multiplied(kind))
    left_out = {
        path: layer
        for path, layer in layers.items()
        if not _maskable(layer)
        and any(
            # A wrapper's kernel may belong to a layer inside it.
            id(variable) not in masked
            and (
                isinstance(layer, default)
                or variable.name in ("kernel", "recurrent_kernel")
            )
            for variable in own_variables(layer)
        )
    }
    if left_out:
        names = ", ".join(f"{p} ({class_of(x).__name__})" for p, x in left_out.items())
        warnings.warn(
            f"These layers have kernels, but no masked form, and stay dense: {names}. "
            "Call `keras_lottery.register_masked` for their classes to prune them too, "
            "or name the layers to prune in `prunable`.",
            stacklevel=3,
        )


def _frozen(layer: keras.layers.Layer) -> bool:
    return bool(layer.weights) and not layer.trainable_weights


def _warn_of_frozen(model: keras.Model) -> None:
    frozen = [
        path
        for path, layer in walk(model)
        if masked_by_default(layer) and _frozen(layer)
    ]
    if frozen:
        warnings.warn(
            f"These layers are frozen, and stay dense: {', '.join(frozen)}. Name them "
            "in `prunable` to prune them too, or set `layer.trainable = True`.",
            stacklevel=3,
        )


def _matches(layers: Layers, prunable: str | Iterable[str]) -> list[str]:
    chosen = []
    for pattern in [prunable] if isinstance(prunable, str) else list(prunable):
        # The layer's own name in Keras comes first: a stable path may be the name of
        # another layer.
        matched = [
            (path, layer)
            for path, layer in layers
            if fnmatch.fnmatchcase(layer.name, pattern)
        ] or [item for item in layers if fnmatch.fnmatchcase(item[0], pattern)]
        inside = [
            (path, layer)
            for path, layer in layers
            if any(path.startswith(f"{parent}/") for parent, _ in matched)
            and not issubclass(class_of(layer), keras.layers.Embedding)
        ]
        able = [path for path, layer in matched + inside if _maskable(layer)]
        if not able and not any(isinstance(one, Masked) for _, one in matched + inside):
            raise ValueError(
                f"`prunable` names {pattern!r}, which matches no layer that can be "
                f"masked ({_class_names()}). The model's layers:\n{_listing(layers)}"
            )
        chosen += able
    return chosen


def _cells(layer: keras.layers.Layer) -> list[keras.layers.Layer]:
    """Returns the cells of a recurrent layer that have a masked form.

    A recurrent layer keeps its weights in its cells, which may be stacked, or be in the
    forward and backward layers.
    """
    if not (hasattr(layer, "cell") or isinstance(layer, keras.layers.Bidirectional)):
        return []
    return [
        cell
        for _, cell in walk(layer)
        if hasattr(cell, "state_size") and _maskable(cell)
    ]


def _maskable(layer: keras.layers.Layer) -> bool:
    return class_of(layer) in MASKED_LAYERS


def _class_names() -> str:
    return ", ".join(sorted(layer.__name__ for layer in MASKED_LAYERS))


def _listing(layers: Layers) -> str:
    return "\n".join(f"  {path} ({type(layer).__name__})" for path, layer in layers)


def compile_alike(model: keras.Model, new: keras.Model) -> None:
    """Compiles `new` like `model`, with a fresh optimizer and fresh metrics."""
    if not model.compiled:
        return
    if type(model).compile is not keras.Model.compile:
        warnings.warn(
            f"{type(model).__name__} has a `compile` of its own. The copy of model "
            f"'{model.name}' is not compiled: call `compile` on it.",
            stacklevel=3,
        )
        return
    config = compile_arguments(model)
    config["optimizer"] = fresh_optimizer(model.optimizer)
    excluded = undecayed(model.optimizer, named_variables(model))
    exclude_from_decay(config["optimizer"], excluded, named_variables(new))
    config["metrics"] = _fresh_metrics(config["metrics"])
    config["weighted_metrics"] = _fresh_metrics(config["weighted_metrics"])
    new.compile(**config)


def fresh_optimizer(optimizer: keras.optimizers.Optimizer) -> Any:
    """Returns an optimizer with the same settings and no slots yet."""
    schedule = schedule_of(optimizer)
    # A custom schedule need not be registered with Keras.
    own = {type(schedule).__name__: type(schedule)} if schedule else {}
    with keras.saving.custom_object_scope(own):
        new = type(optimizer).from_config(optimizer.get_config())
    # Only the patterns of names are copied, as the variables belong to another model.
    exclude_from_decay(new, undecayed(optimizer, {}), {})
    return new


def _fresh_metrics(metrics: Any) -> Any:
    """Returns new metric objects, since these hold state; keeps names and functions."""

    def fresh(metric: Any) -> Any:
        if isinstance(metric, keras.metrics.Metric):
            return type(metric).from_config(metric.get_config())
        return metric

    return keras.tree.map_structure(fresh, metrics)
