"""Writes compressed models to disk, and reads them."""

import contextlib
import json
import os
import random
from collections.abc import Iterator

import keras
import numpy as np

from keras_lottery import checks
from keras_lottery.compress.codec import (
    decode,
    encode,
    position_bytes,
    shared_values,
    weight_bytes,
)
from keras_lottery.compress.report import CompressionReport
from keras_lottery.files import CorruptedFileError, refuse_damage, write_atomically
from keras_lottery.keras_bridge import architecture
from keras_lottery.keras_bridge.layers import (
    get_masks,
    get_state,
    named_masks,
    named_variables,
    set_state,
    walk,
)
from keras_lottery.keras_bridge.layers.copying import own_objects
from keras_lottery.masks import Masks


def save_compressed(
    model: keras.Model, path: str | os.PathLike[str], float16: bool = False
) -> CompressionReport:
    """Writes a masked model to a small file, from which it is restored bit for bit.

    Live weights are written as indices of the values that they share (weights that do
    not share values are written as they are), and positions as the gaps between them.
    Both are coded by a range coder, which takes no more bits than a Huffman code.
    Everything else is written as it is. Optimizer, loss and metrics are left out. The
    bytes are decoded and compared with the model before the file is put in place.

    Args:
        model: a masked model.
        path: the file to write, ending in `.klc`. An older file is replaced.
        float16: whether to round everything but the masked weights (biases,
            normalisation, unmasked layers) to half precision. Loading then gives the
            rounded model; the given model is left untouched.

    Returns:
        The report, which is also printed.

    Raises:
        ValueError: if the model is not masked, `path` has another ending, a layer
            cannot be rebuilt from its config (a Lambda layer cannot), or a number does
            not fit float16. Nothing is written then.

    Reference:
        Han et al. 2015, section 4, with a range coder instead of Huffman's code.

    Example:

    >>> import tempfile
    >>> import keras_lottery as kl
    >>> model = keras.Sequential([keras.Input((100,)), keras.layers.Dense(100)])
    >>> model = kl.mask_model(model)
    >>> kl.prune(model, 0.9)
    >>> kl.share_weights(model, bits=4)
    >>> folder = tempfile.TemporaryDirectory()
    >>> report = save_compressed(model, f"{folder.name}/small.klc")
    /...small.klc (compressed)
      dense           ... bytes, 1/1.0 of dense
      ...
    >>> report.bytes < 0.1 * report.dense_bytes
    True
    >>> again = load_compressed(report.path)
    >>> kl.get_masks(again) == kl.get_masks(model)
    True
    """
    path = checks.path("path", path, (".klc",))
    checks.flag("float16", float16)
    state, masks = get_state(model), get_masks(model)
    if float16:
        for name in state.keys() - masks.keys():
            state[name] = _half(name, state[name])
    text = _architecture(model)
    _check_layers(model, text)
    data = encode(text, state, masks)
    _check(data, state, masks)
    sizes = {
        stage: len(encode(text, state, masks, stage))
        for stage in ("dense", "pruned", "quantized")
    }
    write_atomically(path, lambda file: file.write(data))
    shared = {name: shared_values(state[name][mask]) for name, mask in masks.items()}
    report = CompressionReport(
        path=path,
        dense_bytes=sizes["dense"],
        pruned_bytes=sizes["pruned"],
        quantized_bytes=sizes["quantized"],
        bytes=path.stat().st_size,
        sparsity=masks.sparsity,
        values={name: pair and len(pair[0]) for name, pair in shared.items()},
        data_bytes=sum(weight_bytes(state[name][mask]) for name, mask in masks.items()),
        index_bytes=sum(position_bytes(mask) for mask in masks.values()),
    )
    print(report)
    return report


def load_compressed(
    path: str | os.PathLike[str], max_bytes: int = 2**32
) -> keras.Model:
    """Reads a model that `save_compressed` wrote.

    Args:
        path: the file to read.
        max_bytes: how many bytes the variables of the model may take, since a small
            file may hold a large model that consists almost entirely of zeros. The
            layers are built before their shapes are compared: like
            `keras.saving.load_model`, this function trusts the author of the file not
            to claim layers of another size.

    Returns:
        The masked model, not compiled.

    Raises:
        FileNotFoundError: if there is no such file.
        CorruptedFileError: if the file is damaged, of another kind, or inconsistent.
        TypeError: if a layer of the user's own is not registered with Keras.
    """
    checks.count("max_bytes", max_bytes, 1, 2**63 - 1)
    data = checks.existing_file("path", path).read_bytes()
    with refuse_damage(path):
        text, state, masks = decode(data, max_bytes)
    try:
        model = architecture.from_text(text)
        shapes = {n: tuple(v.shape) for n, v in named_variables(model).items()}
        fits = shapes == {name: array.shape for name, array in state.items()}
        fits = fits and named_masks(model).keys() == masks.keys()
    except Exception as error:
        if isinstance(error, TypeError) and "Could not locate" in str(error):
            raise
        raise CorruptedFileError(
            f"Keras cannot build the model that '{os.fspath(path)}' describes: {error}"
        ) from error
    if not fits:
        raise CorruptedFileError(
            f"'{os.fspath(path)}' holds variables that do not fit its own model."
        )
    set_state(model, state, masks)
    return model


def _architecture(model: keras.Model) -> str:
    """The model's layers without its compilation, as JSON without spaces."""
    config = json.loads(architecture.to_text(model))
    config.pop("compile_config", None)
    return json.dumps(config, separators=(",", ":"))


def _check_layers(model: keras.Model, text: str) -> None:
    """Raises ValueError with the layer's name if Keras cannot read the text."""
    with keras.saving.custom_object_scope(own_objects(model)), _same_random_state():
        failed = _failure(text)
        for path, layer in walk(model) if failed else ():
            reason = _failure(json.dumps(keras.saving.serialize_keras_object(layer)))
            if reason:
                failed = f"layer '{path}' ({type(layer).__name__}): {reason}"
    if failed:
        raise ValueError(
            "Expected a model that Keras can rebuild from its config. Received: "
            f"{failed} Replace it with a layer of your own, registered with "
            "`keras.saving.register_keras_serializable`."
        )


def _failure(text: str) -> str:
    """Why Keras cannot make a layer from its text; empty if it can."""
    try:
        architecture.from_text(text)
    except Exception as error:
        return str(error) or repr(error)
    return ""


@contextlib.contextmanager
def _same_random_state() -> Iterator[None]:
    """Restores the random state, since layers made inside the block draw seeds."""
    state = random.getstate()
    try:
        yield
    finally:
        random.setstate(state)


def _half(name: str, array: np.ndarray) -> np.ndarray:
    if array.dtype.kind != "f" or array.dtype.itemsize <= 2:
        return array
    with np.errstate(over="ignore"):
        half = array.astype(np.float16)
    if np.isinf(half).any() and not np.isinf(array).any():
        raise ValueError(
            f"`{name}` reaches {np.abs(array).max():.3g}, which is more than float16 "
            "can hold. Pass float16=False."
        )
    return half


def _check(data: bytes, state: dict[str, np.ndarray], masks: Masks) -> None:
    """Raises RuntimeError unless the bytes decode to what was encoded."""
    most = sum(array.nbytes for array in state.values())
    _, again, masks_again = decode(data, most)
    for name, array in state.items():
        if again[name].tobytes() != array.tobytes():
            raise RuntimeError(f"Reading the file would change `{name}`.")
    if masks_again != masks:
        raise RuntimeError("Reading the file would change the masks.")
