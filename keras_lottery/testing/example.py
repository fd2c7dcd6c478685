"""A small trained network, on which criteria and controls are checked."""

import functools

import keras
import numpy as np

from keras_lottery.keras_bridge.internals.randomness import seeded
from keras_lottery.keras_bridge.layers import (
    get_masks,
    get_state,
    mask_model,
    named_masks,
    set_masks,
    set_state,
)
from keras_lottery.masks import Masks
from keras_lottery.tickets import Snapshot

SHAPES = {
    "conv/kernel": (3, 3, 1, 4),
    "dense/kernel": (64, 8),
    "middle_1/kernel": (8, 8),
    "middle_2/kernel": (8, 8),
    "output/kernel": (8, 3),
}
"""The prunable weights of the example."""


def snapshot(seed: int = 0) -> Snapshot:
    """A snapshot of the trained example, of which a third was pruned before.

    Its model is compiled, and it has data. The masks, the weights and the random
    numbers are the same every time.
    """
    rng = np.random.default_rng(seed)
    model, dense, state = _model()
    set_masks(model, dense)
    set_state(model, state)
    for variable in model.trainable_variables:
        variable.assign(rng.normal(scale=0.3, size=variable.shape).astype("float32"))
    initial = get_state(model)
    masks = Masks({n: rng.random(m.shape) < 0.7 for n, m in get_masks(model).items()})
    rewound, final = _moved(initial, rng), _moved(initial, rng)
    set_state(model, final, masks)
    x = rng.normal(size=(12, 6, 6, 1)).astype("float32")
    return Snapshot(
        masks=masks,
        final=get_state(model),
        initial=initial,
        rewind_point=rewound,
        rng=np.random.default_rng(seed),
        shared_model=model,
        data=(x, rng.integers(0, 3, 12)),
    )


def contents(of: Snapshot) -> dict[str, np.ndarray]:
    """Copies of all arrays that a snapshot and its model hold, by name."""
    states = {
        "initial": of.initial,
        "rewind_point": of.rewind_point,
        "final": of.final,
        "the model's": get_state(of.model),
        "the model's masks": get_masks(of.model),
        "scores": of.scores or {},
    }
    return {
        f"{kind} {name}": np.array(array)
        for kind, state in states.items()
        for name, array in state.items()
    }


@functools.cache
@seeded(0)
def _model() -> tuple[keras.Model, Masks, dict[str, np.ndarray]]:
    """A dense model, its masks and its state; it is built and compiled only once."""
    model = keras.Sequential(
        [
            keras.Input((6, 6, 1)),
            keras.layers.Conv2D(4, 3, activation="relu", name="conv"),
            keras.layers.BatchNormalization(name="norm"),
            keras.layers.Flatten(),
            keras.layers.Dense(8, activation="relu", name="dense"),
            keras.layers.Dense(8, name="middle_1"),
            keras.layers.Dense(8, name="middle_2"),
            keras.layers.Dense(3, name="output"),
        ]
    )
    model = mask_model(model)
    assert {n: tuple(m.shape) for n, (m, _) in named_masks(model).items()} == SHAPES
    model.compile(
        keras.optimizers.SGD(0.01),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model, get_masks(model), get_state(model)


def _moved(
    state: dict[str, np.ndarray], rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """Weights as they might be after training; some have changed their sign."""
    return {
        name: (array + rng.normal(scale=0.2, size=array.shape)).astype(array.dtype)
        if np.issubdtype(array.dtype, np.floating) and not name.startswith("norm")
        else array.copy()
        for name, array in state.items()
    }
