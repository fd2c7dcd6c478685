"""The rules that every masked layer follows."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_lottery.keras_bridge.internals.randomness import seeded
from keras_lottery.keras_bridge.layers import (
    get_masks,
    get_state,
    mask_model,
    named_masks,
    set_masks,
    strip_masks,
)
from keras_lottery.keras_bridge.layers.state import read
from keras_lottery.masks import Masks
from keras_lottery.testing.rules import rule, same


@seeded(0)
def check_masked_layer(build: Callable[[], keras.layers.Layer], x: Any) -> None:
    """Checks the masked form of a layer in a model of its own.

    - `mask_model` masks it, and the outputs stay the same.
    - With half of the weights pruned, the outputs equal those of the ordinary layer
      with zeros in their place, which `strip_masks` returns.
    - The value that the variable holds in place of a pruned weight affects no output.
    - After training with momentum, pruned weights are still exactly zero, the masks are
      the same, and the remaining weights have moved.
    - A file of the masked model loads with equal masks, weights and outputs.

    Args:
        build: makes the ordinary layer, whose masked form is registered.
        x: a batch of inputs for the layer, as an array.

    Raises:
        AssertionError: if a rule is broken; it says which.

    Example:

    >>> check_masked_layer(lambda: keras.layers.Dense(3), np.ones((2, 4), "float32"))
    >>> check_masked_layer(lambda: keras.layers.ReLU(), np.ones((2, 4), "float32"))
    Traceback (most recent call last):
    AssertionError: Broken rule: `mask_model` masks the layer, once it is registered...
    """
    x = np.asarray(x)
    layer = build()
    plain = keras.Sequential([keras.Input(x.shape[1:], dtype=x.dtype), layer])
    try:
        masked = mask_model(plain, prunable=layer.name)
    except ValueError as error:
        raise AssertionError(
            "Broken rule: `mask_model` masks the layer, once it is registered with "
            f"`kl.layers.register_masked`. Received: {error}"
        ) from error
    rule(
        _close(plain, masked, x),
        "masks that keep everything leave the outputs as they are",
        "other outputs",
    )
    masks = Masks({n: _every_other(m.shape) for n, m in get_masks(masked).items()})
    set_masks(masked, masks)
    before = keras.ops.convert_to_numpy(masked(x))
    rng = np.random.default_rng(0)
    for name, (_, weight) in named_masks(masked).items():
        noise = rng.normal(size=weight.shape)
        weight.assign(np.where(masks[name], weight, noise).astype("float32"))
    rule(
        np.allclose(before, keras.ops.convert_to_numpy(masked(x)), 1e-4, 1e-5),
        "outputs do not depend on what is behind the mask",
        "other outputs: `call` does not read the masked weight, as `self.<name>`",
    )
    stripped = strip_masks(masked)
    rule(
        type(stripped.layers[-1]) is type(layer),
        f"`strip_masks` returns the ordinary layer, {type(layer).__name__}",
        type(stripped.layers[-1]).__name__,
    )
    rule(
        _close(masked, stripped, x),
        "a pruned layer's outputs are the ordinary layer's with zeros in place of the "
        "pruned weights",
        "other outputs",
    )
    set_masks(masked, masks)  # This removes the noise; on JAX, nothing else does.
    _check_training(masked, masks, x)
    _check_file(masked, masks, x)


def _check_training(masked: keras.Model, masks: Masks, x: np.ndarray) -> None:
    before = get_state(masked)
    rng = np.random.default_rng(1)
    y = rng.normal(size=np.shape(masked(x))).astype("float32")
    masked.compile(keras.optimizers.SGD(0.05, momentum=0.9), "mse")
    masked.fit(x, y, batch_size=len(x), epochs=4, verbose=0)
    rule(get_masks(masked) == masks, "training leaves the masks as they are", "others")
    after = {name: read(weight) for name, (_, weight) in named_masks(masked).items()}
    for name, mask in masks.items():
        rule(
            not after[name][~mask].any(),
            "a pruned weight stays exactly zero in training",
            f"others in `{name}`",
        )
    rule(
        any(not np.array_equal(before[n][m], after[n][m]) for n, m in masks.items()),
        "weights that are left are trained",
        "weights that did not move",
    )


def _check_file(masked: keras.Model, masks: Masks, x: np.ndarray) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        masked.save(path)
        loaded = keras.models.load_model(path)
    rule(get_masks(loaded) == masks, "a file keeps the masks", "others after loading")
    states = get_state(masked), get_state(loaded)
    one, other = ({name: state[name] for name in masks} for state in states)
    rule(
        same(one, other) and _close(masked, loaded, x),
        "a file keeps weights and outputs",
        "others after loading",
    )


def _every_other(shape: tuple[int, ...]) -> np.ndarray:
    return (np.arange(np.prod(shape)) % 2 == 0).reshape(shape)


def _close(one: keras.Model, other: keras.Model, x: np.ndarray) -> bool:
    a, b = (keras.ops.convert_to_numpy(model(x)) for model in (one, other))
    return bool(np.allclose(a, b, rtol=1e-4, atol=1e-5))
