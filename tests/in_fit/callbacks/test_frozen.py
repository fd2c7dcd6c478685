"""Callbacks that prune leave frozen layers as they are, and count the others."""

import numpy as np
import pytest

import keras_lottery as kl
from keras_lottery.keras_bridge.layers import (
    get_masks,
    get_state,
    mask_model,
    set_masks,
)
from tests.models_zoo import cnn, compiled, fit, inputs, mlp, scramble

FROZEN = "dense/kernel"
X, Y = inputs(mlp(), 8), np.ones((8, 2), "float32")
CALLBACKS = {
    "gradual": lambda: kl.GradualPruning(0.5, 0, 7, frequency=2),
    "gradual, blocks": lambda: kl.GradualPruning(0.5, 0, 7, granularity="1:2"),
    "admm": lambda: kl.ADMMPruning(0.5, rho=0.5),
    "early_bird": lambda: kl.EarlyBird(0.5, 0.9, queue=2),
    "nest": lambda: kl.NeST(0.5, 3, 7, (X, Y), 1, 0.75, 0.25),
    "rigl": lambda: kl.RigL(0.5, 7, (X, Y), frequency=2),
    "set": lambda: kl.SET(0.5, 7, frequency=2),
}


def half_frozen():
    """Three weights of the frozen layer were pruned before."""
    model = mask_model(scramble(mlp()))
    model.layers[0].trainable = False
    masks = get_masks(model)
    mask = (np.arange(24) % 8 != 1).reshape(4, 6)
    set_masks(model, {**masks, FROZEN: mask})
    return compiled(model)


@pytest.mark.parametrize("name", CALLBACKS)
def test_a_frozen_layer_keeps_its_weights_and_mask(name):
    model = half_frozen()
    weight, mask = get_state(model)[FROZEN], get_masks(model)[FROZEN]
    callback = CALLBACKS[name]()
    fit(model, epochs=2, callbacks=[callback])
    found = callback.masks if name == "early_bird" else get_masks(model)
    assert np.array_equal(found[FROZEN], mask)
    assert np.array_equal(get_state(model)[FROZEN], weight)
    assert found["dense_1/kernel"].sum() == 6  # half of the others


@pytest.mark.once
@pytest.mark.parametrize("name", CALLBACKS)
def test_where_all_is_frozen_nothing_can_be_pruned(name):
    model = mask_model(compiled(scramble(mlp())))
    model.trainable = False
    callback = CALLBACKS[name]()
    callback.set_model(model)
    with pytest.raises(ValueError, match=r"no masked layers to train.* frozen"):
        callback.start()
    assert get_masks(model).sparsity == 0


@pytest.mark.once
def test_frozen_layers_can_be_pruned_by_a_call():
    model = half_frozen()
    before = get_state(model)
    kl.prune(model, 0.5, frozen=False)
    assert get_masks(model)[FROZEN].sum() == 21
    kl.prune(model, 0.5)
    assert get_masks(model).kept == 18
    assert not np.array_equal(get_state(model)[FROZEN], before[FROZEN])


@pytest.mark.once
def test_filters_that_a_frozen_layer_reads_are_not_pruned():
    model = mask_model(scramble(cnn()))
    model.layers[-1].trainable = False
    callback = kl.GradualPruning(0.5, 0, 7, frequency=2, granularity="filter")
    with pytest.raises(ValueError, match=r"\['dense'\] read filters .* are frozen"):
        fit(compiled(model), epochs=2, callbacks=[callback])
    assert get_masks(model).sparsity == 0
    kl.prune(model, 0.5, granularity="filter")
    assert len(kl.compact(model).layers[0].get_weights()[0][0, 0, 0]) == 2
