"""NeST: a sparse seed grows by gradients, then it is pruned."""

import warnings

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import keras_lottery as kl
from keras_lottery import NeST
from keras_lottery.keras_bridge.layers import get_masks
from tests.in_fit.callbacks.test_regrowth import (
    DATA,
    Watch,
    counts,
    fresh,
    linear,
    train,
)
from tests.models_zoo import arrays, assert_equal, compiled, fit, mlp, pruned_weights


def left(*sparsities):
    return [round(36 * (1 - sparsity)) for sparsity in sparsities]


def nest(final=0.8, peak_step=3, end_step=7, **kwargs):
    kwargs = {"data": DATA, "frequency": 1, **kwargs}
    return NeST(final, peak_step, end_step, **kwargs)


def line_and_cubic(step, final, peak_step, end_step, initial, peak):
    if step <= peak_step:
        return initial + (peak - initial) * step / peak_step
    part = min((step - peak_step) / (end_step - peak_step), 1)
    return final + (peak - final) * (1 - part) ** 3


@settings(max_examples=5)
@given(
    st.floats(0.6, 0.9),
    st.floats(0.6, 0.9),
    st.floats(0.1, 0.5),
    st.integers(1, 4),
    st.integers(1, 4),
)
def test_density_rises_and_falls(initial, final, peak, rise, fall):
    end = rise + fall
    callback = nest(final, rise, end, initial_sparsity=initial, peak_sparsity=peak)
    model = fresh()
    watch = train(callback, model)
    asked = [line_and_cubic(s, final, rise, end, initial, peak) for s in range(9)]
    kept = [masks.kept for masks in watch.masks]
    assert kept[:8] == left(*asked[:8])
    assert kept[0] < kept[rise] > kept[-1] == left(final)[0]
    assert [callback.sparsity_at(step) for step in range(9)] == pytest.approx(asked)
    for i, (before, after) in enumerate(
        zip(watch.masks, watch.masks[1:], strict=False), start=1
    ):
        for name, mask in after.items():
            grown = mask & ~before[name]
            assert not (before[name] & ~mask).any() if i <= rise else not grown.any()
            assert not watch.weights[i][name][grown | ~mask].any()
            assert not watch.slots[i][name][:, grown | ~mask].any()
    assert not pruned_weights(model).any()


@pytest.mark.once
def test_frequency():
    watch = train(nest(0.75, 3, 7, frequency=2, initial_sparsity=0.9))
    at = [line_and_cubic(s, 0.75, 3, 7, 0.9, 0.5) for s in (0, 0, 2, 3, 3, 5, 5, 7)]
    assert [masks.kept for masks in watch.masks] == left(*at, 0.75)


@pytest.mark.once
def test_layers_grow_by_the_same_share_of_what_they_lack():
    callback = nest(peak_step=1, initial_sparsity=0.75, peak_sparsity=0.375)
    watch = train(callback)
    before, after = (counts(masks) for masks in watch.masks[:2])
    for name, size in (("dense/kernel", 24), ("dense_1/kernel", 12)):
        expected = before[name] + (size - before[name]) / 2
        assert abs(after[name] - expected) < 1


def test_the_largest_gradients_grow():
    """Against the mean squared error's gradient, in closed form."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 8, 6)).astype("float32")
    y = y[:, :5]
    kernel = rng.normal(size=(6, 5)).astype("float32")
    watch = Watch()
    callback = nest(0.8, 1, 2, data=(x, y), peak_sparsity=0.7)
    linear(kernel).fit(x, y, 4, verbose=0, callbacks=[callback, watch])
    before, after = (masks["dense/kernel"] for masks in watch.masks[:2])
    gradient = abs(x.T @ (x @ (kernel * before) - y))
    order = [i for i in np.argsort(-gradient.ravel()) if not before.ravel()[i]]
    assert set(np.flatnonzero(after & ~before)) == set(order[:6])


@pytest.mark.once
def test_a_second_fit_goes_on():
    whole = train(nest())
    model = fresh()
    with pytest.warns(UserWarning, match="after 4 steps, end_step=7"):
        first = train(nest(), model, epochs=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        second = train(nest(), model, epochs=1)
    assert first.masks[:-1] + second.masks == whole.masks
    fit(model, callbacks=[nest()])
    assert get_masks(model) == whole.masks[-1]


@pytest.mark.once
def test_the_seed_decides():
    runs = [train(nest(seed=seed)).masks for seed in (1, 1, 2)]
    assert runs[0] == runs[1]
    assert runs[0][0] != runs[2][0]


@pytest.mark.once
def test_a_sparse_model_is_the_seed():
    model = fresh()
    kl.prune(model, 0.7)
    masks = get_masks(model)
    watch = train(nest(initial_sparsity=0.9), model)
    assert watch.masks[0] == masks
    at = [line_and_cubic(s, 0.8, 3, 7, 0.9, 0.5) for s in (2, 3)]
    assert [m.kept for m in watch.masks[:4]] == [masks.kept, masks.kept, *left(*at)]


def test_frozen_layers_do_not_grow():
    """Nor are they pruned before the peak; the others' sparsities are as asked."""
    model = kl.mask_model(compiled(mlp()))
    model.layers[0].trainable = False
    compiled(model)
    watch = train(nest(initial_sparsity=0.75, peak_sparsity=0.25), model)
    for masks, left in zip(watch.masks[:4], (3, 5, 7, 9), strict=True):
        assert counts(masks) == {"dense/kernel": 24, "dense_1/kernel": left}
    assert counts(watch.masks[-1]) == {"dense/kernel": 24, "dense_1/kernel": 2}


@pytest.mark.once
@pytest.mark.parametrize(
    ("prepare", "arguments", "message"),
    [
        (fresh, {"data": None}, "data of type NoneType"),
        (lambda: compiled(mlp()), {}, "NeST needs a masked model"),
    ],
)
def test_refused_before_it_trains(prepare, arguments, message):
    model = prepare()
    before = arrays(model)
    with pytest.raises(ValueError, match=message):
        train(nest(**arguments), model)
    assert_equal(arrays(model), before)


@pytest.mark.once
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"final_sparsity": 1.0}, "final_sparsity=1.0"),
        ({"initial_sparsity": 1.0}, "initial_sparsity=1.0"),
        ({"peak_sparsity": 0.0}, "peak_sparsity=0.0"),
        ({"peak_sparsity": 0.95}, "peak_sparsity=0.95"),
        ({"peak_step": 0}, "peak_step=0"),
        ({"peak_step": 4.5}, "peak_step=4.5"),
        ({"end_step": 10.5}, "end_step=10.5"),
        ({"batch_size": 2.5}, "batch_size=2.5"),
        ({"peak_step": 10}, "peak_step=10"),
        ({"frequency": 0}, "frequency=0"),
        ({"allocation": "typo"}, "allocation='typo'"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    defaults = {"final_sparsity": 0.9, "peak_step": 4, "end_step": 10}
    with pytest.raises(ValueError, match=message):
        NeST(**(defaults | arguments))


@pytest.mark.once
def test_config_round_trip():
    arguments = {
        "final_sparsity": 0.9,
        "peak_step": 10,
        "end_step": 90,
        "frequency": 7,
        "initial_sparsity": 0.8,
        "peak_sparsity": 0.3,
        "allocation": "uniform",
        "batch_size": 9,
        "seed": 5,
    }
    callback = NeST(data=DATA, **arguments)
    assert callback.get_config() == arguments
    again = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(callback)
    )
    assert isinstance(again, NeST)
    assert again.get_config() == arguments
