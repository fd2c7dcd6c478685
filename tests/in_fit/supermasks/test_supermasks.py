"""Learned masks: scores are trained, weights are not, and a ticket comes of them."""

import functools

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers, ops

import keras_lottery as kl
from keras_lottery.in_fit.supermasks.kinds import Bernoulli, EdgePopup
from keras_lottery.keras_bridge.layers import copy_model, get_state, is_masked
from keras_lottery.keras_bridge.layers.copying import duplicate
from keras_lottery.keras_bridge.layers.state import read
from tests.models_zoo import (
    ARCHITECTURES,
    EAGER,
    ZOO,
    as_array,
    assert_equal,
    cases,
    inputs,
    outputs,
    scramble,
)

SETTINGS = {
    "bernoulli": {"kind": "bernoulli"},
    "edge_popup": {"kind": "edge_popup", "sparsity": 0.3},
    "plain": {"kind": "edge_popup", "rescale": False, "signed_constant": True},
}


def small():
    """Convolutions, statistics, biases that are not zero."""
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(4, 3, strides=2, name="conv"),
            layers.BatchNormalization(name="norm"),
            layers.ReLU(name="relu"),
            layers.Flatten(name="flatten"),
            layers.Dense(24, "relu", name="hidden"),
            layers.Dense(10, name="output"),
        ]
    )
    return scramble(model)


def fitted(model, steps=2):
    """Trained a little on random data."""
    model.compile(keras.optimizers.Adam(0.1), "mse")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(8 * steps, 8, 8, 1)).astype("float32")
    y = rng.normal(size=(8 * steps, 10)).astype("float32")
    model.fit(x, y, batch_size=8, verbose=0, shuffle=False)
    return model


@functools.cache
def training(name):
    """(model as it was before, the state of its network then, model after training)."""
    model = kl.learn_masks(small(), seed=0, **SETTINGS[name])
    before = duplicate(model), get_state(model.network)
    return *before, fitted(model)


@pytest.fixture(params=cases(SETTINGS, ["bernoulli", "edge_popup"]))
def trained(request):
    """The same for each of the settings."""
    return training(request.param)


def test_scores_alone_are_trained(trained):
    before, state, model = trained
    for name, value in get_state(model.network).items():
        if name.startswith("norm/moving"):
            assert not np.array_equal(value, state[name])
        else:
            np.testing.assert_array_equal(value, state[name])
    assert len(model.trainable_variables) == 3
    for name, scores in model.scores.items():
        assert not np.array_equal(scores, before.scores[name])


@pytest.mark.once
def test_the_given_model_is_untouched_and_compiled_alike():
    model = small()
    model.compile("adam", "mse")
    before = model.get_weights()
    learned = kl.learn_masks(model, signed_constant=True)
    assert learned.compiled and learned.optimizer is not model.optimizer
    assert not learned.network.compiled
    assert_equal(before, model.get_weights())
    assert not is_masked(model) and len(model.trainable_variables) == 8


def test_evaluation_is_of_one_mask_and_training_draws():
    model, x = kl.learn_masks(small(), seed=0), inputs(small())
    evaluated = as_array(model(x))
    np.testing.assert_array_equal(as_array(model(x)), evaluated)
    np.testing.assert_array_equal(as_array(model(x, training=False)), evaluated)
    model.network.get_layer("norm").trainable = False
    draws = [as_array(model(x, training=True)) for _ in range(2)]
    assert not np.array_equal(*draws)


def test_the_ticket_gives_the_same_outputs(trained):
    _, _, model = trained
    x = inputs(small())
    ticket = kl.learned_ticket(model)
    assert ticket.masks == model.masks() and 0 < ticket.masks.sparsity < 1
    masked = ticket.initial_model()
    assert kl.get_masks(masked) == ticket.masks
    expected = outputs(model, x)
    np.testing.assert_array_equal(outputs(masked, x), expected)
    np.testing.assert_array_equal(outputs(ticket.trained_model(), x), expected)
    stripped = kl.strip_masks(masked)
    np.testing.assert_allclose(outputs(stripped, x), expected, rtol=1e-6)
    assert len(masked.trainable_variables) == 8


@pytest.mark.once
def test_the_ticket_is_saved_and_trained_like_any_other(tmp_path):
    _, _, model = training("bernoulli")
    ticket = kl.learned_ticket(model)
    ticket.save(tmp_path / "learned.ticket")
    masked = kl.load_ticket(tmp_path / "learned.ticket").initial_model()
    np.testing.assert_array_equal(masked(inputs(small())), model(inputs(small())))
    before = masked.get_weights()
    fitted(masked)
    assert kl.get_masks(masked) == ticket.masks
    assert not np.array_equal(before[0], masked.get_weights()[0])


@pytest.mark.tensorflow
def test_the_ticket_is_exported(tmp_path):
    # Which compares the file's outputs with those of the ticket.
    ticket = kl.learned_ticket(training("bernoulli")[2])
    kl.export.to_litert(ticket, tmp_path / "model.tflite")
    assert (tmp_path / "model.tflite").exists()


@pytest.mark.parametrize("settings", ["bernoulli", "edge_popup"])
def test_files_and_copies_keep_scores(settings, tmp_path):
    _, _, model = training(settings)
    x = inputs(small())
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    model.save_weights(tmp_path / "model.weights.h5")
    again = type(model).from_config(model.get_config())
    again.load_weights(tmp_path / "model.weights.h5")
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    for other in (loaded, again, clone, duplicate(model)):
        assert other.masks() == model.masks()
        np.testing.assert_array_equal(as_array(other(x)), as_array(model(x)))
        # Frozen as before.
        assert len(other.trainable_variables) == 3


def recurrent():
    return keras.Sequential([keras.Input((3, 4)), layers.SimpleRNN(3)])


@pytest.mark.parametrize(
    ("build", "kind"),
    [
        (recurrent, "bernoulli"),
        (ZOO["shared_layer"], "edge_popup"),
        # Compile slowly on JAX.
        *(
            pytest.param(
                (ZOO | ARCHITECTURES)[name], kind, marks=pytest.mark.tensorflow
            )
            for name, kind in (
                ("attention", "edge_popup"),
                ("branches", "bernoulli"),
                ("own_layers", "bernoulli"),
                ("separable", "edge_popup"),
            )
        ),
    ],
)
def test_every_kind_of_layer(build, kind, tmp_path):
    model = scramble(build())
    learned = kl.learn_masks(model, kind, seed=0)
    x = inputs(model, 4)
    y = keras.tree.map_structure(lambda part: np.ones(part.shape), model(x))
    learned.compile(keras.optimizers.SGD(1.0), "mse", **EAGER)
    scores = {name: read(value) for name, value in learned.scores.items()}
    learned.fit(x, y, verbose=0)
    moved = [not np.array_equal(learned.scores[name], scores[name]) for name in scores]
    assert sum(moved) > len(moved) / 2
    learned.save_weights(tmp_path / "a.weights.h5")
    again = type(learned).from_config(learned.get_config())
    again.load_weights(tmp_path / "a.weights.h5")
    expected = outputs(learned, x)
    np.testing.assert_array_equal(outputs(again, x), expected)
    masked = kl.learned_ticket(learned).initial_model()
    # On torch, recurrent layers add up otherwise where nothing is trained.
    np.testing.assert_allclose(outputs(masked, x), expected, rtol=3e-7)


def one_layer(weights, **kwargs):
    """A layer of these weights without a bias, (inputs, units)."""
    weights = np.asarray(weights, "float32")
    model = keras.Sequential(
        [
            keras.Input(weights.shape[:1]),
            layers.Dense(weights.shape[1], use_bias=False, name="layer"),
        ]
    )
    model.layers[0].kernel.assign(weights)
    return kl.learn_masks(model, **kwargs)


WEIGHTS = [[1.0, -2.0], [3.0, 0.5], [-1.5, 4.0]]


@pytest.mark.parametrize(
    ("kind", "rescale"),
    [
        ("bernoulli", False),
        ("bernoulli", True),
        *(("edge_popup", rescale) for rescale in (False, True)),
    ],
)
def test_the_gradient_goes_straight_through(kind, rescale):
    model = one_layer(WEIGHTS, kind=kind, rescale=rescale)
    scores = np.array([[1.0, -2.0], [0.5, 3.0], [-0.5, 0.1]], "float32")
    model.scores["layer/kernel"].assign(scores)
    x = np.array([[1.0, 2.0, -1.0]], "float32")
    y = np.array([[0.5, -1.0]], "float32")
    # One weight of each row is in the upper half, and in the three that are kept
    # p > 0.5 keeps one more.
    kept = scores > 0 if kind == "bernoulli" else scores > 0.4
    factor = 6 / kept.sum() if kind == "bernoulli" else np.sqrt(6 / kept.sum())
    weights = np.asarray(WEIGHTS) * (factor if rescale else 1)
    error = x @ (weights * kept) - y
    expected = x.T @ error * weights  # of half the squared error
    if kind == "bernoulli" and rescale:
        # Of the factor too: each mask makes all of the others' weights smaller.
        through = np.sum(x.T @ error * np.asarray(WEIGHTS) * kept)
        expected = expected - through * 6 / kept.sum() ** 2
    if kind == "bernoulli":
        p = 1 / (1 + np.exp(-scores))
        expected = expected * p * (1 - p)
    # A step of 1 of plain gradient descent; no draws, as evaluation has none.
    model.call = lambda x, training=None: type(model).call(model, x, training=False)
    model.compile(
        keras.optimizers.SGD(1.0),
        lambda y, out: ops.sum(ops.square(out - y), -1) / 2,
    )
    model.train_on_batch(x, y)
    moved = scores - as_array(model.scores["layer/kernel"])
    np.testing.assert_allclose(moved, expected, rtol=1e-4, atol=1e-5)


def test_bernoulli_masks_keep_each_weight_as_often_as_it_says():
    scores = np.array([-30.0, -1.0, 0.0, 2.0, 30.0], "float32")
    seed, alive = keras.random.SeedGenerator(0), np.ones(5, bool)
    draws = Bernoulli().mask(
        ops.tile(scores[:, None], (1, 4000)), np.ones((5, 4000), bool), seed
    )
    means = np.mean(np.asarray(draws), axis=1)
    np.testing.assert_allclose(means, 1 / (1 + np.exp(-scores)), atol=0.03)
    assert set(np.unique(draws)) == {0.0, 1.0}
    kept = Bernoulli().mask(ops.convert_to_tensor(scores), alive)
    np.testing.assert_array_equal(kept, [0, 0, 0, 1, 1])


@given(
    st.lists(st.integers(-3, 3), min_size=13, max_size=13),
    st.sampled_from([0, 0.3, 0.9]),
    st.randoms(use_true_random=False),
)
@settings(max_examples=10)
def test_edge_popup_keeps_an_exact_count(scores, sparsity, random):
    alive = np.array([random.random() < 0.9 for _ in scores])
    kept = np.asarray(
        EdgePopup(sparsity).mask(
            ops.convert_to_tensor(np.array(scores, "float32")[:, None]),
            ops.convert_to_tensor(alive[:, None]),
        )
    )[:, 0]
    count = round(len(scores) * (1 - sparsity))
    # Python's sort keeps the order of equals: ties go to the earlier position.
    order = sorted(np.flatnonzero(alive), key=lambda i: -scores[i])
    assert set(np.flatnonzero(kept)) == set(order[:count])


def test_what_is_left_makes_up_for_the_rest():
    for kind, factor in (("bernoulli", 6 / 3), ("edge_popup", np.sqrt(6 / 3))):
        model = one_layer(WEIGHTS, kind=kind)
        scores = np.where(np.arange(6).reshape(3, 2) % 2, 1.0, -1.0)
        model.scores["layer/kernel"].assign(scores)
        out = as_array(model(np.ones((1, 3), "float32")))
        np.testing.assert_allclose(out, [[0, factor * (-2 + 0.5 + 4)]], rtol=1e-6)


@pytest.mark.once
def test_a_layer_without_a_weight_is_zero():
    model = one_layer(WEIGHTS)
    model.scores["layer/kernel"].assign(np.full((3, 2), -1.0))
    np.testing.assert_array_equal(model(np.ones((1, 3), "float32")), [[0, 0]])


@pytest.mark.once
def test_signed_constants():
    model = one_layer(WEIGHTS, signed_constant=True)
    expected = np.copysign(np.std(np.float32(WEIGHTS)), WEIGHTS)
    np.testing.assert_allclose(model.network.get_weights()[0], expected, rtol=1e-6)


@pytest.mark.once
def test_pruned_weights_stay_pruned():
    masked = kl.mask_model(small())
    kl.prune(masked, 0.4, allocation="uniform")
    masks = kl.get_masks(masked)
    for name, kwargs in SETTINGS.items():
        if name == "edge_popup":
            kwargs = {**kwargs, "sparsity": 0.7}
        model = kl.learn_masks(masked, seed=1, **kwargs)
        if name == "plain":
            deviation = np.std(
                get_state(masked)["hidden/kernel"][masks["hidden/kernel"]]
            )
            weights = np.abs(get_state(model.network)["hidden/kernel"])
            np.testing.assert_allclose(np.unique(weights), [0, deviation], rtol=1e-5)
        for drawn in (None, 3):
            if drawn and name != "bernoulli":
                continue
            kept = kl.learned_ticket(model, drawn).masks
            assert all(not np.any(kept[n] & ~masks[n]) for n in masks)
            assert kept.kept < masks.kept


def test_a_drawn_ticket():
    model = kl.learn_masks(small(), seed=0)
    one, same, other = (kl.learned_ticket(model, seed).masks for seed in (1, 1, 2))
    assert one == same != other
    assert 0.4 < one.density < 0.6


def test_the_seed_gives_the_same_scores_and_draws():
    x, models = inputs(small()), [kl.learn_masks(small(), seed=n) for n in (5, 5, 6)]
    one, same, other = ([*model.scores.values()] for model in models)
    assert_equal([*map(read, one)], [*map(read, same)])
    assert not np.array_equal(read(one[0]), read(other[0]))
    draws = [as_array(model(x, training=True)) for model in models]
    np.testing.assert_array_equal(*draws[:2])


@pytest.mark.once
@pytest.mark.parametrize("kind", ["edge_popup", "bernoulli"])
def test_digits_are_learned_by_masks_alone(kind):
    data = kl.data.load("digits")
    hidden = layers.Dense(
        100, "relu", kernel_initializer=keras.initializers.HeNormal(0)
    )
    output = layers.Dense(10, kernel_initializer=keras.initializers.HeNormal(1))
    model = keras.Sequential([keras.Input((8, 8, 1)), layers.Flatten(), hidden, output])
    model = kl.learn_masks(model, kind, seed=0)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    rate = 0.1 if kind == "bernoulli" else 0.01
    model.compile(keras.optimizers.Adam(rate), loss, metrics=["accuracy"])
    model.fit(*data.train, batch_size=64, epochs=6, verbose=0)
    assert model.evaluate(*data.test, verbose=0)[1] > 0.6


@pytest.mark.once
@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"kind": "gumbel"}, "one of.*Received: kind='gumbel'"),
        ({"sparsity": 0.5}, "learn how many"),
        ({"kind": "edge_popup", "sparsity": 1.0}, "below 1.*Received: sparsity=1.0"),
        ({"kind": "edge_popup", "sparsity": 0.99}, "leaves weights of every layer"),
        ({"prunable": "nothing"}, "matches no layer"),
    ],
)
def test_errors_of_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        kl.learn_masks(small(), **kwargs)


@pytest.mark.once
def test_errors_of_models():
    model = kl.learn_masks(small())
    with pytest.raises(ValueError, match="not learned yet"):
        kl.learn_masks(model)
    with pytest.raises(ValueError, match="a model returned by `learn_masks`"):
        kl.learned_ticket(small())
    with pytest.raises(ValueError, match="to be a masked model"):
        kl.Supermask(small())
    with pytest.raises(ValueError, match="are not random"):
        kl.learned_ticket(kl.learn_masks(small(), "edge_popup"), seed=1)
    with pytest.raises(ValueError, match="weights that differ"):
        one_layer(np.ones((3, 2)), signed_constant=True)
    # The dense network would answer.
    with pytest.raises(ValueError, match="learned_ticket"):
        kl.strip_masks(model)(inputs(small()))
    assert copy_model(model).name == model.name
