"""SET and RigL: training that is sparse from the start, inside one `fit`."""

import functools
import math
import warnings
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import keras_lottery as kl
from keras_lottery import SET, RigL
from keras_lottery.in_fit.callbacks.dense_gradients import DenseGradients
from keras_lottery.in_fit.callbacks.regrowth import regrown
from keras_lottery.keras_bridge.layers import (
    get_masks,
    get_state,
    mask_model,
    named_masks,
    set_masks,
    set_state,
)
from keras_lottery.keras_bridge.layers.state import read
from tests.models_zoo import (
    arrays,
    assert_equal,
    compiled,
    fit,
    mlp,
    pruned_weights,
    scramble,
)

RNG = np.random.default_rng(0)
DATA = RNG.normal(size=(20, 4)).astype("float32"), np.ones((20, 2), "float32")
OPTIMIZERS = {
    "momentum": lambda: keras.optimizers.SGD(0.1, momentum=0.9),
    "adam": lambda: keras.optimizers.Adam(0.1),
}


class Watch(keras.callbacks.Callback):
    """Notes masks, weights and slots as each batch begins, and at the end."""

    def __init__(self):
        super().__init__()
        self.masks, self.weights, self.slots = [], [], []
        self.on_train_batch_begin = self.on_train_end = self.note

    def note(self, *args, **kwargs):
        self.masks.append(get_masks(self.model))
        pairs = named_masks(self.model)
        self.weights.append({n: read(w) for n, (_, w) in pairs.items()})
        self.slots.append(slots(self.model, self.weights[-1]))


def slots(model, weights):
    """The optimizer's slots of each weight: (slots, *shape)."""
    paths = {n: w.path.replace("/", "_") for n, (_, w) in named_masks(model).items()}
    found = {name: [np.empty((0, *w.shape))] for name, w in weights.items()}
    for slot in model.optimizer.variables:
        for name, path in paths.items():
            if slot.path.split("/")[-1].startswith(path):
                found[name].append(read(slot)[np.newaxis])
    return {name: np.concatenate(arrays) for name, arrays in found.items()}


@functools.cache
def only(optimizer):
    model = mask_model(compiled(scramble(mlp()), OPTIMIZERS[optimizer]()))
    model.optimizer.build(model.trainable_variables)
    state = [read(v) for v in model.optimizer.variables]
    return model, get_masks(model), get_state(model), state


def fresh(optimizer="momentum"):
    """A dense model and its optimizer at step 0; always the same, compiled once."""
    model, masks, state, optimizer_state = only(optimizer)
    set_masks(model, masks)
    set_state(model, state)
    for variable, value in zip(model.optimizer.variables, optimizer_state, strict=True):
        variable.assign(np.array(value))
    return model


def train(callback, model=None, epochs=2, batches=4):
    model, watch = model or fresh(), Watch()
    fit(model, batches, epochs=epochs, callbacks=[callback, watch])
    return watch


def make(kind, sparsity=0.5, end_step=100, **kwargs):
    if kind is RigL:
        kwargs = {"data": DATA, **kwargs}
    return kind(sparsity, end_step, **{"frequency": 1, **kwargs})


def changes(watch):
    """The steps before which masks changed."""
    pairs = zip(watch.masks, watch.masks[1:], strict=False)
    return [step for step, (a, b) in enumerate(pairs, start=1) if a != b]


def counts(masks):
    return {name: int(mask.sum()) for name, mask in masks.items()}


kinds = pytest.mark.parametrize("kind", [SET, RigL])


@st.composite
def layers(draw):
    size = draw(st.integers(1, 30))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    mask = rng.random(size) < draw(st.floats(0, 1))
    # Some scores are equal, and some weights as well.
    weight, score = rng.integers(-5, 6, (2, size)) / 2
    return weight * mask, mask, score, draw(st.floats(0, 1))


@pytest.mark.once
@given(layers())
def test_the_smallest_make_room_for_the_largest_scores(layer):
    weight, mask, score, fraction = layer
    new = regrown("kernel", weight, mask, score, fraction)
    count = round(fraction * mask.sum())
    # In words of sorting: stable, so that of equals the first are taken.
    live = [i for i in np.argsort(-abs(weight), kind="stable") if mask[i]]
    kept = set(live[: len(live) - count])
    others = [i for i in np.argsort(-score, kind="stable") if i not in kept]
    assert set(np.flatnonzero(new)) == kept | set(others[:count])
    assert new.sum() == mask.sum()


@pytest.mark.parametrize(("kind", "optimizer"), [(SET, "momentum"), (RigL, "adam")])
@settings(max_examples=5)
@given(data=st.data())
def test_what_an_update_does(kind, optimizer, data):
    sparsity = data.draw(st.floats(0.2, 0.8))
    frequency = data.draw(st.integers(1, 3))
    end = data.draw(st.integers(frequency + 1, 8))
    share = {SET: "zeta", RigL: "alpha"}[kind]
    callback = make(
        kind,
        sparsity,
        end,
        frequency=frequency,
        seed=data.draw(st.integers(0, 99)),
        **{share: data.draw(st.floats(0.3, 1))},
    )
    model = fresh(optimizer)
    watch = train(callback, model)
    start = watch.masks[0]
    assert start.kept == round(36 * (1 - sparsity))
    assert set(changes(watch)) <= set(range(frequency, end, frequency))
    for before, after, weights, slot in zip(
        [start, *watch.masks], watch.masks, watch.weights, watch.slots, strict=False
    ):
        assert counts(after) == counts(start)
        for name, mask in after.items():
            grown, changed = mask & ~before[name], mask ^ before[name]
            assert not weights[name][grown].any()
            assert not weights[name][~mask].any()
            assert len(slot[name]) == {"momentum": 1, "adam": 2}[optimizer]
            assert not slot[name][:, changed].any()
            assert not slot[name][:, ~mask].any()
    assert not pruned_weights(model).any()


@kinds
def test_masks_do_change_and_what_grew_trains(kind):
    watch = train(make(kind, 0.5, frequency=2))
    assert changes(watch) == [2, 4, 6]
    first, last = watch.masks[0], watch.masks[-1]
    grown = {name: last[name] & ~first[name] for name in last}
    # In a layer of few weights, those may grow that were dropped.
    assert any(mask.any() for mask in grown.values())
    for name, mask in grown.items():
        assert watch.weights[-1][name][mask].all()
        assert watch.slots[-1][name][:, mask].all()


@pytest.mark.once
@kinds
def test_the_seed_decides(kind):
    runs = [train(make(kind, 0.6, 8, frequency=2, seed=s)) for s in (1, 1, 2)]
    assert runs[0].masks == runs[1].masks
    for one, other in zip(runs[0].weights, runs[1].weights, strict=True):
        assert_equal([*one.values()], [*other.values()])
    assert runs[0].masks[0] != runs[2].masks[0]


@kinds
def test_two_fits_are_one(kind):
    callback = make(kind, 0.5, 7, frequency=2)
    whole = train(callback, epochs=2)
    model = fresh()
    parts = [train(make(kind, 0.5, 7, frequency=2), model, epochs=1) for _ in range(2)]
    assert parts[0].masks[:-1] + parts[1].masks == whole.masks


@pytest.mark.once
def test_several_steps_in_one_execution():
    model = mask_model(compiled(scramble(mlp()), steps_per_execution=3))
    seen = []
    callback = make(SET, 0.5, 9, frequency=2)
    update, callback.update = callback.update, lambda s: (seen.append(s), update(s))
    watch = train(callback, model, batches=5)
    # Executions start at steps 0, 3, 5 and 8; an epoch's second one is shorter.
    assert seen == [2, 4, 8]
    assert all(counts(masks) == counts(watch.masks[0]) for masks in watch.masks)


@pytest.mark.once
def test_drop_fraction_of_rigl_falls_as_half_a_cosine():
    callback = RigL(0.9, 1000, alpha=0.4)
    for step in (0, 100, 500, 900, 1000):
        expected = 0.2 * (1 + math.cos(step * math.pi / 1000))
        assert callback.drop_fraction(step) == pytest.approx(expected)
    assert [SET(0.9, 1000).drop_fraction(step) for step in (0, 999)] == [0.3, 0.3]


def linear(kernel):
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(5, use_bias=False)])
    model.layers[0].kernel.assign(kernel)
    # Weights stay as they are.
    return mask_model(compiled(model, keras.optimizers.SGD(0.0)))


@pytest.mark.representative
@settings(max_examples=5)
@given(st.integers(0, 999))
def test_rigl_grows_the_largest_gradients(seed):
    """Against the mean squared error's gradient, in closed form."""
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(2, 8, 6)).astype("float32")
    y = y[:, :5]
    kernel = rng.normal(size=(6, 5)).astype("float32")
    model = linear(kernel)
    watch = Watch()
    callback = RigL(0.6, 2, (x, y), frequency=1, alpha=1.0)
    model.fit(x, y, 4, verbose=0, callbacks=[callback, watch])
    before, after = (m["dense/kernel"] for m in watch.masks[:2])
    gradient = abs(x.T @ (x @ (kernel * before) - y))
    count = round(callback.drop_fraction(1) * 12)
    assert count == 6
    live = np.flatnonzero(before)
    order = np.argsort(abs(kernel).ravel()[live])
    kept = set(live[order[count:]])
    dormant = [i for i in np.argsort(-gradient.ravel()) if i not in kept]
    assert set(np.flatnonzero(after)) == kept | set(dormant[:count])


def normalised():
    """Inputs are dropped, and outputs normalised."""
    stack = [
        keras.layers.Dropout(0.5, seed=1),
        keras.layers.Dense(3, use_bias=False),
        keras.layers.BatchNormalization(center=False, scale=False),
    ]
    return mask_model(compiled(keras.Sequential([keras.Input((6,)), *stack])))


def test_gradients_are_those_of_a_training_step():
    """Against finite differences of the loss under the batch's own statistics."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 8, 6)).astype("float32")
    y = y[:, :3]
    model = normalised()
    kernel = rng.normal(size=(6, 3))
    # With the states of random generators, which `get_weights` leaves out.
    before = get_state(model) | {"dense/kernel": kernel.astype("float32")}
    dropped = np.asarray(model.layers[0](x, training=True), float)
    assert (dropped == 0).any() and (dropped != 0).any()
    set_state(model, before)

    def loss(kernel):
        z = dropped @ kernel
        return np.mean(((z - z.mean(0)) / np.sqrt(z.var(0) + 1e-3) - y) ** 2)

    expected = np.zeros_like(kernel)
    for place in np.ndindex(kernel.shape):
        step = np.zeros_like(kernel)
        step[place] = 1e-5
        expected[place] = (loss(kernel + step) - loss(kernel - step)) / 2e-5
    measure = DenseGradients(model, (x, y), 8)
    # All of the data, in order.
    measured = measure(SimpleNamespace(choice=lambda *_, **__: np.arange(8)))
    np.testing.assert_allclose(
        measured["dense/kernel"], abs(expected), rtol=1e-2, atol=1e-4
    )
    assert_equal(get_state(model).values(), before.values())


@pytest.mark.once
@kinds
@pytest.mark.parametrize("last", [False, True])
def test_weights_put_back_have_their_masks(kind, last):
    model = fresh()
    stop = keras.callbacks.EarlyStopping("none", restore_best_weights=True)
    stop.on_epoch_end = lambda epoch, logs: (
        epoch or setattr(stop, "best_weights", model.get_weights())
    )
    callbacks = [make(kind, 0.5, frequency=2), stop, watch := Watch()]
    if not last:
        callbacks = [stop, *callbacks[::2]]
    fit(model, epochs=2, callbacks=callbacks)
    assert get_masks(model) == watch.masks[3] != watch.masks[-2]
    assert not pruned_weights(model).any()


@pytest.mark.once
def test_what_is_dropped_and_grows_at_once_stays():
    """In a layer that the allocation leaves dense, there is nothing else to grow."""
    model = fresh()
    watch = train(make(RigL, 0.1, 8, frequency=1, alpha=1.0), model)
    assert counts(watch.masks[0])["dense_1/kernel"] == 12
    assert all(weights["dense_1/kernel"].all() for weights in watch.weights)


def test_a_model_with_metrics():
    """Keras makes their variables after training has begun."""
    model = mask_model(compiled(scramble(mlp()), metrics=["mae"]))
    assert changes(train(make(RigL, 0.5, 8, alpha=1.0), model))


@pytest.mark.once
def test_a_batch_is_drawn_from_structures_of_data():
    model = fresh()
    seen = []
    callback = RigL(0.5, 4, data=(DATA[0], [DATA[1]]), frequency=2, batch_size=3)

    def gradients(rng):
        seen.append(rng.random())
        return {name: np.zeros(m.shape) for name, m in get_masks(model).items()}

    callback.set_model(model)
    callback.start()
    assert callback._gradients.batch_size == 3
    callback._gradients = gradients
    callback.update(2)
    callback.update(2)
    callback.update(4)
    assert seen[0] == seen[1] != seen[2]


@pytest.mark.once
def test_a_model_that_is_sparse_keeps_its_masks():
    model = fresh()
    kl.prune(model, 0.5)
    for sparsity in (None, 0.5):
        masks = get_masks(model)
        assert train(make(SET, sparsity, 20, frequency=3), model).masks[0] == masks


@pytest.mark.once
def test_allocations():
    start = train(make(SET, 0.5, 3, allocation="uniform")).masks[0]
    assert counts(start) == {"dense/kernel": 12, "dense_1/kernel": 6}


@kinds
def test_frozen_layers_keep_their_masks(kind):
    model = mask_model(compiled(scramble(mlp())))
    model.layers[0].trainable = False
    compiled(model)
    frozen = get_masks(model)["dense/kernel"] & (np.arange(24) != 7).reshape(4, 6)
    set_masks(model, {**get_masks(model), "dense/kernel": frozen})
    watch = train(make(kind, 0.5, 8), model)
    for masks in watch.masks:
        assert np.array_equal(masks["dense/kernel"], frozen)
        assert masks["dense_1/kernel"].sum() == 6
    assert len({masks["dense_1/kernel"].tobytes() for masks in watch.masks}) > 1
    # What is sparse fits as well, by the same count.
    last = watch.masks[-1]
    assert train(make(kind, 0.5, 20, frequency=3), model).masks[0] == last


@pytest.mark.once
@kinds
def test_a_fit_too_short_for_an_update_warns(kind):
    model = fresh()
    callback = make(kind, frequency=4)
    with pytest.warns(UserWarning, match=r"after 4 steps.*no masks: frequency=4"):
        train(callback, model, epochs=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        train(callback, model, epochs=1)
        train(make(kind, None, frequency=7), model, epochs=1)


@pytest.mark.once
def test_weights_that_are_not_numbers_are_named():
    model = fresh()
    callback = make(SET, 0.5)
    callback.set_model(model)
    callback.start()
    _, weight = named_masks(model)["dense_1/kernel"]
    weight.assign(np.full(weight.shape, np.nan))
    with pytest.raises(ValueError, match="scores of `dense_1/kernel` hold NaN"):
        callback.update(1)


def test_pruned_weights_that_moved_start_at_zero():
    """Some optimizers mix weights, and leave traces where nothing is alive."""
    model = fresh("adam")
    callback = make(SET, 0.5, 8, frequency=1, zeta=1.0)
    callback.set_model(model)
    callback.start()
    before = get_masks(model)
    for _, weight in named_masks(model).values():
        weight.assign(np.ones(weight.shape))
    for variable in model.optimizer.variables[2:]:
        variable.assign(np.ones(variable.shape))
    callback.update(1)
    weights = {n: read(w) for n, (_, w) in named_masks(model).items()}
    for name, mask in get_masks(model).items():
        new = mask & ~before[name]
        assert new.any()
        assert not weights[name][new].any()
        assert not slots(model, weights)[name][:, new].any()


@pytest.mark.once
def test_the_found_masks_train_from_the_initial_weights():
    dense = compiled(scramble(mlp()))
    model = mask_model(dense)
    train(make(SET, 0.5, 7, frequency=2), model)
    ticket = mask_model(dense)
    set_masks(ticket, get_masks(model))
    for name, weight in get_state(ticket).items():
        mask = get_masks(model).get(name, True)
        np.testing.assert_array_equal(weight, get_state(mask_model(dense))[name] * mask)


@pytest.mark.once
@kinds
@pytest.mark.parametrize(
    ("sparsity", "message"),
    [
        (None, "The model is dense. Received: sparsity=None"),
        (0.25, "sparsity=0.25, and a model of sparsity 0.5"),
    ],
)
def test_a_start_that_does_not_fit_is_refused(kind, sparsity, message):
    model = fresh()
    if sparsity:
        kl.prune(model, 0.5)
    before = arrays(model)
    with pytest.raises(ValueError, match=message):
        train(make(kind, sparsity), model)
    assert_equal(arrays(model), before)


@pytest.mark.once
def test_a_dense_model_past_the_end_is_refused():
    model = fresh()
    fit(model)
    before = arrays(model)
    with pytest.raises(ValueError, match=r"has done 4 steps. Received: end_step=4"):
        train(make(SET, 0.5, 4), model)
    assert_equal(arrays(model), before)


@pytest.mark.once
@kinds
def test_an_unmasked_model_is_refused(kind):
    with pytest.raises(ValueError, match=f"{kind.__name__} needs a masked model"):
        train(make(kind), compiled(mlp()))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"data": None}, r"\(x, y\), in arrays. Received: data of type NoneType"),
        ({"data": DATA[0]}, "data of type ndarray"),
        ({"data": (DATA[0], DATA[1][:3])}, r"shapes \[\(20, 4\), \(3, 2\)\]"),
        ({"data": (DATA[0][:0], DATA[1][:0])}, "examples in `data` .* Received: none"),
        ({"data": ([], [])}, "examples in `data` .* Received: none"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"data": (DATA[0][:, :3], DATA[1])}, r"`data` of shapes \(\(20, 3\), \(20, 2"),
    ],
)
def test_data_for_gradients(arguments, message):
    model = fresh()
    before = arrays(model)
    with pytest.raises(ValueError, match=message):
        train(make(RigL, **arguments), model)
    assert_equal(arrays(model), before)


@pytest.mark.once
@pytest.mark.parametrize(
    ("kind", "arguments", "message"),
    [
        (SET, {"sparsity": 0.0}, "sparsity=0.0"),
        (SET, {"sparsity": 1.0}, "sparsity=1.0"),
        (SET, {"sparsity": -0.1}, "sparsity=-0.1"),
        (SET, {"end_step": 0}, "end_step=0"),
        (SET, {"end_step": 50.5}, "end_step=50.5"),
        (SET, {"frequency": 0}, "frequency=0"),
        (SET, {"frequency": 2.0}, "frequency=2.0"),
        (SET, {"frequency": 10}, "frequency=10, end_step=10"),
        (RigL, {"batch_size": 2.5}, "batch_size=2.5"),
        (SET, {"zeta": 0}, "zeta=0"),
        (SET, {"zeta": 1.1}, "zeta=1.1"),
        (SET, {"allocation": "typo"}, "allocation='typo'"),
        (RigL, {"alpha": 0}, "alpha=0"),
        (RigL, {"alpha": 1.1}, "alpha=1.1"),
    ],
)
def test_wrong_arguments_are_named(kind, arguments, message):
    with pytest.raises(ValueError, match=message):
        kind(**({"sparsity": 0.5, "end_step": 10, "frequency": 5} | arguments))


@pytest.mark.once
@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        (SET, {"zeta": 0.2}),
        (RigL, {"alpha": 0.2, "batch_size": 7}),
    ],
)
def test_config_round_trip(kind, arguments):
    arguments = {
        "sparsity": 0.9,
        "end_step": 90,
        "frequency": 7,
        "allocation": "uniform",
        "seed": 5,
        **arguments,
    }
    callback = make(kind, **arguments)
    assert callback.get_config() == arguments
    again = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(callback)
    )
    assert isinstance(again, kind)
    assert again.get_config() == arguments
