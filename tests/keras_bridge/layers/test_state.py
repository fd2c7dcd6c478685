"""Masks and state of a model."""

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_lottery.keras_bridge.layers import (
    get_masks,
    get_sparsity,
    get_state,
    mask_model,
    set_masks,
    set_state,
    sparsity_summary,
)
from keras_lottery.keras_bridge.layers.state import read
from keras_lottery.masks import Masks
from tests.models_zoo import (
    KERAS,
    arrays,
    assert_equal,
    cnn,
    compiled,
    fit,
    mlp,
    outputs,
    pruned,
    pruned_weights,
    scramble,
    shared_layer,
    twins,
)

MODEL = mask_model(mlp())


@given(st.lists(st.booleans(), min_size=36, max_size=36), st.integers(0, 99))
def test_masks_and_state_are_written_and_read_to_the_bit(bits, seed):
    scramble(MODEL, seed)
    state = get_state(MODEL)
    masks = Masks(
        {
            "dense/kernel": np.reshape(bits[:24], (4, 6)),
            "dense_1/kernel": np.reshape(bits[24:], (6, 2)),
        }
    )
    set_masks(MODEL, masks)
    assert get_masks(MODEL) == masks
    assert get_sparsity(MODEL) == pytest.approx(1 - sum(bits) / 36)
    pruned_state = get_state(MODEL)
    for name, array in state.items():
        np.testing.assert_array_equal(pruned_state[name], array * masks.get(name, 1))
    set_masks(MODEL, Masks.dense({name: m.shape for name, m in masks.items()}))
    set_state(MODEL, state)
    assert_equal(get_state(MODEL).values(), state.values())


@pytest.mark.representative
def test_setting_a_state_keeps_pruned_weights_at_zero():
    model = scramble(mlp())
    half = pruned(model)
    set_state(half, get_state(model))
    assert not pruned_weights(half).any()


def test_state_holds_statistics_and_random_generators():
    statistics = {f"batch_normalization/moving_{name}" for name in ("mean", "variance")}
    assert statistics < get_state(cnn()).keys()
    assert any("seed" in name for name in get_state(mlp()))


def test_what_is_read_is_a_copy():
    model = pruned(scramble(cnn()))
    state, masks = get_state(model), get_masks(model)
    kept = {name: array.copy() for name, array in state.items()}
    set_masks(model, {name: np.zeros(mask.shape) for name, mask in masks.items()})
    scramble(model, seed=1)
    assert_equal(state.values(), kept.values())
    assert masks.kept
    state["dense/bias"][:] = 7
    assert 7 not in get_state(model)["dense/bias"]


def wrong(**changes):
    masks = {"dense/kernel": np.zeros((4, 6)), "dense_1/kernel": np.zeros((6, 2))}
    return {name: m for name, m in (masks | changes).items() if m is not None}


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        (wrong(**{"dense/kernel": None}), r"Missing: \['dense/kernel'\]"),
        (wrong(typo=np.ones(1)), r"Unknown: \['typo'\]"),
        (wrong(**{"dense_1/kernel": np.ones((2, 6))}), r"`dense_1/kernel`.*\(2, 6\)"),
        (wrong(**{"dense/kernel": np.full((4, 6), 0.5)}), "booleans.*`dense/kernel`"),
    ],
)
def test_masks_that_do_not_fit_change_nothing(masks, message):
    model = pruned(scramble(mlp()))
    before = arrays(model)
    with pytest.raises(ValueError, match=message):
        set_masks(model, masks)
    assert_equal(arrays(model), before)


def test_a_state_of_another_model_is_refused():
    state = get_state(mlp())
    bias = state.pop("dense/bias")
    with pytest.raises(ValueError, match=r"Missing: \['dense/bias'\].*\['other'\]"):
        set_state(mlp(), state | {"other": bias})


@pytest.mark.parametrize("function", [get_masks, get_sparsity, sparsity_summary])
def test_an_unmasked_model_is_refused(function):
    with pytest.raises(ValueError, match="Call `mask_model"):
        function(mlp())


def test_summary():
    model = pruned(shared_layer(), 0.25)
    kept = [int(mask.sum()) for mask in get_masks(model).values()]
    *rows, total = [line.split() for line in sparsity_summary(model).splitlines()[1:]]
    assert [row[:3] for row in rows] == [
        ["dense/kernel", str(kept[0]), "16"],
        ["dense_1/kernel", str(kept[1]), "8"],
    ]
    assert total == ["total", "18", "24", "75.00%"]


def filled(optimizer, model):
    """Slots of an optimizer that has worked: none is zero."""
    optimizer.build(model.trainable_variables)
    for slot in optimizer.variables:
        if slot.shape:
            slot.assign(np.ones(slot.shape))
    return optimizer


def slots(optimizer, shape):
    found = [read(slot) for slot in optimizer.variables if tuple(slot.shape) == shape]
    assert found
    return found


MASKS = {"dense/kernel": np.ones((4, 6)), "dense_1/kernel": np.zeros((6, 2))}
MASKS["dense/kernel"][:2] = 0


@pytest.mark.parametrize("wrap", [lambda o: o, keras.optimizers.LossScaleOptimizer])
@pytest.mark.parametrize("name", ["Adam", "SGD", "RMSprop", "Muon", "Lion"])
def test_slots_are_zero_where_weights_are_pruned_and_kept_elsewhere(name, wrap):
    settings = {"momentum": 0.9} if name in ("SGD", "RMSprop") else {}
    model = mask_model(scramble(mlp()))
    model.compile(wrap(getattr(keras.optimizers, name)(0.1, **settings)))
    filled(model.optimizer, model)
    set_masks(model, MASKS)
    for slot in slots(model.optimizer, (4, 6)):
        np.testing.assert_array_equal(slot, MASKS["dense/kernel"])
    assert not any(slot.any() for slot in slots(model.optimizer, (6, 2)))
    assert all(slot.all() for slot in slots(model.optimizer, (6,)))


def test_slots_of_layers_with_equal_names_are_told_apart():
    model = mask_model(scramble(twins()))
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9))
    filled(model.optimizer, model)
    masks = {name: np.ones(mask.shape) for name, mask in get_masks(model).items()}
    masks["functional/hidden/kernel"][:] = 0
    set_masks(model, masks)
    assert [slot.any() for slot in slots(model.optimizer, (4, 4))] == [False, True]


def test_frozen_layers_have_no_slots():
    model = mask_model(scramble(mlp()))
    model.layers[0].trainable = False
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9))
    filled(model.optimizer, model)
    set_masks(model, MASKS)
    assert get_sparsity(model) == pytest.approx(24 / 36)
    assert not slots(model.optimizer, (6, 2))[0].any()


def test_the_optimizer_of_a_loop_of_ones_own():
    model = mask_model(scramble(mlp()))
    optimizer = filled(keras.optimizers.SGD(0.1, momentum=0.9), model)
    set_masks(model, MASKS, optimizer)
    np.testing.assert_array_equal(slots(optimizer, (4, 6))[0], MASKS["dense/kernel"])


def test_masks_can_be_set_inside_of_fit():
    seen = []

    class Callback(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            first = np.full((4, 6), batch == 0)
            masks = {"dense/kernel": first, "dense_1/kernel": np.ones((6, 2))}
            set_masks(self.model, masks)
            seen.append((get_sparsity(self.model), outputs(self.model)))

    model = mask_model(compiled(scramble(mlp())))
    fit(model, batches=2, callbacks=[Callback()])
    assert [sparsity for sparsity, _ in seen] == [0, pytest.approx(24 / 36)]
    # Without the first layer the inputs are lost.
    assert np.ptp(seen[0][1], axis=0).all()
    assert not np.ptp(seen[1][1], axis=0).any()


@pytest.mark.skipif(KERAS < (3, 15), reason="Keras has it from 3.15 on")
def test_slots_of_optimizers_inside_of_another():
    model = mask_model(scramble(mlp()))
    first, last = (keras.optimizers.SGD(0.1, momentum=0.9) for _ in range(2))
    both = keras.optimizers.MultiOptimizer(
        lambda variable: first if 6 in variable.shape[-1:] else last
    )
    model.compile(filled(both, model))
    set_masks(model, MASKS)
    np.testing.assert_array_equal(slots(first, (4, 6))[0], MASKS["dense/kernel"])
    assert not slots(last, (6, 2))[0].any()


@pytest.mark.tensorflow
@pytest.mark.skipif(
    KERAS < (3, 14), reason="Discretization of Keras 3.12 and 3.13 tells a wrong shape"
)
def test_bins_that_the_config_gives_stay():
    bins = keras.layers.Discretization(bin_boundaries=[1.0, 2.0], output_mode="one_hot")
    adapted = keras.layers.Discretization(num_bins=3, output_mode="one_hot")
    adapted.adapt(np.arange(9.0))
    x = np.array([[0.5], [4.0], [7.5]], "float32")
    for layer in (bins, adapted):
        model = keras.Sequential([keras.Input((1,)), layer, keras.layers.Dense(2)])
        # A file brings the bins in a config.
        model = type(model).from_config(model.get_config())
        boundaries = model.layers[0].bin_boundaries
        masked = mask_model(model)
        set_state(masked, get_state(masked))
        assert masked.layers[0].bin_boundaries == boundaries
        np.testing.assert_array_equal(outputs(masked, x), outputs(masked, x))
