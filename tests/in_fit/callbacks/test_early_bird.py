"""Early-bird tickets: when the masks have settled, and what is handed over."""

import functools
import itertools
import warnings

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import keras_lottery as kl
from keras_lottery import EarlyBird, Masks
from keras_lottery.in_fit.callbacks import mask_distance
from keras_lottery.keras_bridge.layers import (
    get_masks,
    get_state,
    mask_model,
    set_masks,
    set_state,
)
from tests.models_zoo import (
    EAGER,
    arrays,
    assert_equal,
    cnn,
    compiled,
    fit,
    mlp,
    scramble,
)

# Such is LOOSE.
pytestmark = pytest.mark.filterwarnings("ignore:Any two masks of sparsity")

SIZE = 36  # prunable weights of the MLP
LOOSE = 1.0  # a threshold that any masks but opposite ones keep to


@functools.cache
def only():
    model = mask_model(compiled(scramble(mlp()), keras.optimizers.SGD(1e-3)))
    return model, get_masks(model), get_state(model)


def fresh():
    """A dense model, always the same, compiled once."""
    model, masks, state = only()
    set_masks(model, masks)
    set_state(model, state)
    model.optimizer.iterations.assign(0)
    return model


def flat(masks):
    return np.concatenate([mask.ravel() for mask in masks.values()])


@st.composite
def masks(draw):
    seed, density = draw(st.integers(0, 1000)), draw(st.floats(0, 1))
    rng = np.random.default_rng(seed)
    shapes = {"a": (3, 4), "b": (5,)}
    return Masks({name: rng.random(shape) < density for name, shape in shapes.items()})


@pytest.mark.once
@given(masks(), masks(), masks())
def test_distance_is_one_between_masks(a, b, c):
    assert mask_distance(a, b) == np.mean(flat(a) != flat(b))
    assert mask_distance(a, b) == mask_distance(b, a)
    assert 0 <= mask_distance(a, b) <= 1
    assert (mask_distance(a, b) == 0) == (a == b)
    assert mask_distance(a, c) <= mask_distance(a, b) + mask_distance(b, c) + 1e-12


@pytest.mark.once
def test_distance_of_other_weights_is_refused():
    with pytest.raises(ValueError, match="same weights"):
        mask_distance(Masks({"a": [True]}), Masks({"a": [True, False]}))


def watch(callback, model, weights, steps=2):
    """The callback in a training by hand: these weights at the ends of epochs."""
    callback.set_model(model)
    callback.set_params({"epochs": len(weights), "steps": steps})
    callback.start()
    model.stop_training = False
    for epoch, state in enumerate(weights):
        set_state(model, state)
        model.optimizer.iterations.assign_add(steps)
        callback.on_epoch_end(epoch)
        if model.stop_training:
            return


@pytest.mark.once
@settings(max_examples=15)
@given(st.integers(0, 1000), st.floats(0, 0.6), st.floats(0.02, 0.5), st.integers(2, 5))
def test_it_stops_when_no_two_of_the_queue_are_far_apart(seed, drift, threshold, queue):
    model, rng = fresh(), np.random.default_rng(seed)
    state, weights = get_state(model), []
    for epoch in range(8):
        step = drift * 0.7**epoch
        state = {
            name: array + step * rng.normal(size=array.shape).astype("float32")
            if name in get_masks(model)
            else array
            for name, array in state.items()
        }
        weights.append(state)
    callback = EarlyBird(0.5, threshold=threshold, queue=queue)
    watch(callback, model, weights)
    # Directly: the larger half of all weights, and all pairs.
    kernels = [np.concatenate([w[n].ravel() for n in callback.masks]) for w in weights]
    kept = [np.argsort(np.argsort(-np.abs(k))) < SIZE // 2 for k in kernels]
    largest, stop = [], None
    for epoch in range(8):
        last = kept[max(0, epoch - queue + 1) : epoch + 1]
        pairs = [np.mean(a != b) for a, b in itertools.combinations(last, 2)]
        largest += [max(pairs)] if pairs else []
        if len(last) == queue and max(pairs) < threshold:
            stop = epoch
            break
    end = 7 if stop is None else stop
    assert callback.settled == model.stop_training == (stop is not None)
    assert callback.distances == pytest.approx(largest)
    assert callback.epoch == end
    assert callback.steps == 2 * (end + 1)
    assert callback.steps_saved == 2 * (7 - end)
    np.testing.assert_array_equal(flat(callback.masks), kept[end])


def test_watching_changes_nothing():
    trained = []
    for callbacks in ([], [EarlyBird(0.5, threshold=LOOSE, queue=3)]):
        model = fresh()
        fit(model, epochs=3, callbacks=callbacks)
        trained.append(arrays(model))
    assert_equal(*trained)
    assert callbacks[0].settled
    assert kl.get_sparsity(model) == 0


def test_it_stops_fit_and_hands_over_the_ticket(tmp_path):
    model, callback = fresh(), EarlyBird(0.75, threshold=LOOSE, queue=3)
    start = get_state(model)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        history = fit(model, batches=5, epochs=10, callbacks=[callback])
    end = get_state(model)
    assert len(history.epoch) == 3
    found = callback.epoch, callback.steps, callback.steps_saved
    assert found == (2, 15, 35)
    # On from here, and from the beginning.
    for rewind, state, step in [(False, end, 15), (True, start, 0)]:
        ticket = callback.ticket(rewind)
        assert ticket.step == step
        ticket.save(tmp_path / "early.ticket")
        model = kl.load_ticket(tmp_path / "early.ticket").initial_model()
        assert get_masks(model) == callback.masks
        for name, array in get_state(model).items():
            mask = callback.masks.get(name, True)
            np.testing.assert_array_equal(array, np.where(mask, state[name], 0))
    fit(model)
    assert kl.get_sparsity(model) == 0.75


@pytest.mark.once
def test_training_goes_on_with_the_masks():
    model, callback = fresh(), EarlyBird(0.75, threshold=LOOSE, queue=2)
    fit(model, epochs=9, callbacks=[callback])
    kl.set_masks(model, callback.masks)
    fit(model)
    assert kl.get_sparsity(model) == 0.75


@pytest.mark.once
def test_masks_that_do_not_settle_are_offered_with_a_warning():
    model, callback = fresh(), EarlyBird(0.5)
    with pytest.warns(UserWarning, match="After 2 epochs .* threshold=0.1"):
        fit(model, epochs=2, callbacks=[callback])
    assert not callback.settled
    assert callback.steps_saved == 0
    assert callback.masks.sparsity == 0.5
    assert callback.ticket().masks == callback.masks
    with pytest.warns(UserWarning, match="After 1 epochs .* not known yet"):
        fit(model, epochs=1, callbacks=[callback])


@pytest.mark.once
@pytest.mark.parametrize(
    "arguments",
    [
        {"criterion": "random", "seed": 3},
        {"allocation": "uniform", "granularity": (2, 1)},
        {"criterion": "snip", "data": "data"},
        {"criterion": "bn_scale", "granularity": "filter", "allocation": "global"},
        {"granularity": "filter"},
    ],
)
def test_masks_are_those_that_prune_would_set(arguments):
    build = cnn if arguments.get("granularity") == "filter" else mlp
    model = compiled(scramble(build()), keras.optimizers.SGD(1e-3), **EAGER)
    model = mask_model(model)
    if "data" in arguments:
        arguments = {**arguments, "data": (np.ones((4, 4)), np.ones((4, 2)))}
    callback = EarlyBird(0.5, threshold=LOOSE, queue=2, **arguments)
    fit(model, epochs=4, callbacks=[callback])
    assert kl.get_sparsity(model) == 0
    kl.prune(model, 0.5, **arguments)
    assert get_masks(model) == callback.masks
    assert callback.ticket().granularity == callback.granularity


@pytest.mark.once
def test_filters_are_counted_as_such():
    """One filter for another one: the masks differ in two of four."""
    model = compiled(mask_model(scramble(cnn())), keras.optimizers.SGD(1e-3))
    state = get_state(model)
    other = {name: array.copy() for name, array in state.items()}
    gamma = next(name for name in state if name.endswith("gamma"))
    state[gamma], other[gamma] = np.array([[4, 3, 2, 1], [4, 2, 3, 1]], "float32")
    callback = EarlyBird(0.5, queue=2, criterion="bn_scale", granularity="filter")
    watch(callback, model, [state, other])
    assert callback.distances == [0.5]
    masks = callback.masks
    (alive,) = kl.grouping.get("filter").of(model, masks).left(masks).values()
    assert alive.tolist() == [True, False, True, False]


@pytest.mark.once
def test_what_cannot_be_pruned_is_refused_before_it_trains():
    model = fresh()
    before = arrays(model)
    with pytest.raises(ValueError, match="bn_scale"):
        scales = EarlyBird(0.5, criterion="bn_scale", granularity="filter")
        fit(model, callbacks=[scales])
    assert_equal(arrays(model), before)
    with pytest.raises(ValueError, match="EarlyBird needs a masked model"):
        fit(compiled(mlp()), callbacks=[EarlyBird(0.5)])
    with pytest.raises(ValueError, match="no ticket before"):
        EarlyBird(0.5).ticket()


@pytest.mark.once
def test_a_threshold_that_any_masks_keep_to_warns():
    """Two masks of 1 in 20 weights have no more than 2 in 20 apart."""
    for sparsity, threshold in [(0.96, 0.1), (0.02, 0.1), (0.75, 0.6), (0.0, 0.1)]:
        named = f"sparsity={sparsity} .* threshold={threshold} .* smaller"
        with pytest.warns(UserWarning, match=named):
            EarlyBird(sparsity, threshold=threshold)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        EarlyBird(0.9)
        EarlyBird(0.96, threshold=0.05)


@pytest.mark.once
def test_config_round_trip():
    arguments = {
        "sparsity": 0.7,
        "threshold": 0.2,
        "queue": 4,
        "criterion": "bn_scale",
        "allocation": "global",
        "granularity": "filter",
        "seed": 5,
    }
    callback = EarlyBird(**arguments)
    assert callback.get_config() == arguments
    again = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(callback)
    )
    assert isinstance(again, EarlyBird)
    assert again.get_config() == arguments


@pytest.mark.once
@pytest.mark.parametrize("argument", ["criterion", "allocation"])
def test_functions_have_no_config(argument):
    with pytest.raises(ValueError, match=f"{argument}=<function"):
        EarlyBird(0.5, **{argument: lambda *_: None}).get_config()


@pytest.mark.once
@pytest.mark.parametrize(
    "arguments",
    [
        {"sparsity": 1.0},
        {"threshold": 0},
        {"threshold": 1.5},
        {"queue": 1},
        {"queue": 2.5},
        {"criterion": "bn_scale"},
        {"allocation": "typo"},
        {"granularity": "typo"},
    ],
)
def test_wrong_arguments_are_named(arguments):
    ((name, value),) = arguments.items()
    with pytest.raises(ValueError, match=f"{name}={value!r}"):
        EarlyBird(**({"sparsity": 0.5} | arguments))
