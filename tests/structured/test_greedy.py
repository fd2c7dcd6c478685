"""Greedy forward selection of filters, and the averages that it makes of them."""

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from keras import layers

import keras_lottery as kl
from keras_lottery.structured.filters import filters_of
from keras_lottery.structured.greedy import GreedyForward, imitation, select
from keras_lottery.tickets import Snapshot, grouping
from tests.models_zoo import as_array, scramble


def neurons(points, count=1000, seed=0):
    """What random ReLU neurons make of a few points: products, and the size."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(points, 10))
    made = np.maximum(x @ rng.normal(size=(10, count)), 0) * rng.normal(size=count)
    return made.T @ made / points / count**2


def losses_of(products, steps, repeats):
    order = select(
        imitation(products, len(products)),
        np.ones(len(products), bool),
        np.random.default_rng(0),
        repeats,
    )
    return np.array([loss for _, (_, loss) in zip(range(steps), order, strict=False)])


@pytest.mark.once
@pytest.mark.parametrize(
    ("repeats", "low", "high"), [(True, -9, -1.5), (False, -1.4, -0.7)]
)
def test_the_loss_falls_as_the_theorem_says(repeats, low, high):
    """Theorem 2 of Ye et al.: as 1 / n², where filters may repeat."""
    losses = losses_of(neurons(10), 300, repeats)
    n = np.arange(20, 300)
    slope = np.polyfit(np.log(n), np.log(losses[n - 1]), 1)[0]
    assert low < slope < high


@pytest.mark.once
def test_greedy_is_far_better_than_random():
    products = neurons(50)
    rng = np.random.default_rng(1)
    drawn = []
    for _ in range(20):
        only = np.zeros(1000)
        only[rng.choice(1000, 50, replace=False)] = 1000 / 50
        drawn.append((only - 1) @ products @ (only - 1))
    assert losses_of(products, 50, True)[-1] < np.median(drawn) / 10


@given(st.integers(1, 8), st.booleans(), st.integers(0, 9))
def test_the_losses_are_those_of_the_averages(size, repeats, seed):
    rng = np.random.default_rng(seed)
    parts = rng.normal(size=(5, size))
    chosen = select(imitation(parts.T @ parts, size), np.ones(size, bool), rng, repeats)
    counts = np.zeros(size)
    for _, (best, loss) in zip(range(size), chosen, strict=False):
        others = [
            np.sum((parts @ (size * (counts + e) / (counts.sum() + 1) - 1)) ** 2)
            for e, count in zip(np.eye(size), counts, strict=True)
            if repeats or not count
        ]
        counts[best] += 1
        average = parts @ (size * counts / counts.sum() - 1)
        assert loss == pytest.approx(np.sum(average**2), abs=1e-9)
        assert loss == pytest.approx(min(others), abs=1e-9)


def small_network():
    """Two layers with filters, a residual connection among them."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6, 6, 2))
    one = layers.Conv2D(6, 3, padding="same", activation="relu", name="first")(inputs)
    two = layers.Conv2D(6, 3, padding="same", name="second")(one)
    both = layers.BatchNormalization()(layers.Add()([one, two]))
    pooled = layers.GlobalAveragePooling2D()(both)
    model = keras.Model(
        inputs, layers.Dense(3, name="last")(layers.Dense(8, name="hidden")(pooled))
    )
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return kl.mask_model(model)


rng = np.random.default_rng(0)
x = rng.normal(size=(40, 6, 6, 2)).astype("float32")
y = rng.integers(0, 3, 40)


def snapshot_of(model, data):
    masks = kl.get_masks(model)
    return Snapshot.untrained(
        masks,
        kl.get_state(model),
        rng=np.random.default_rng(0),
        shared_model=model,
        data=data,
        grouping=grouping.get("filter").of(model, masks),
    )


def test_the_loss_with_factors_is_that_of_the_scaled_network():
    model = small_network()
    snapshot = snapshot_of(model, (x, y))
    others = np.linspace(0.5, 1.5, snapshot.grouping.count)
    for filters in filters_of(snapshot, others):
        factors = rng.random(len(filters.groups))
        found = filters.loss(factors)
        every = others.copy()
        every[filters.groups] = factors
        state = kl.get_state(model)
        scaled = snapshot.grouping.scaled(state, every)
        assert scaled
        twin = small_network()
        twin.set_weights(model.get_weights())
        for variable in twin.variables:
            for name, array in scaled.items():
                if variable.path.endswith(name):
                    variable.assign(array)
        expected = twin.evaluate(x, y, verbose=0, batch_size=40)
        assert found == pytest.approx(expected, rel=1e-4), filters.name


@pytest.mark.parametrize("name", ["greedy_forward", "greedy_imitation"])
def test_averages_of_filters_stand_for_all(name):
    """Of a layer of 24 redundant units, against as many of the largest."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((3,))
    hidden = layers.Dense(24, "relu")(inputs)
    model = keras.Model(inputs, layers.Dense(2)(hidden))
    model.compile("sgd", "mse")
    points = rng.normal(size=(20, 3)).astype("float32")
    # The dense network's own outputs for targets: its loss is zero.
    how = {"granularity": "filter", "data": (points, as_array(model(points)))}
    away = {}
    for criterion in (name, "l1"):
        masked = kl.mask_model(model)
        kl.prune(masked, 0.5, criterion, **how)
        small = kl.compact(masked)
        assert small.layers[1].units <= 12
        assert np.allclose(as_array(small(points)), as_array(masked(points)), atol=1e-5)
        away[criterion] = masked.evaluate(*how["data"], verbose=0)
    assert away[name] < away["l1"] / 4


def test_without_repeats_all_factors_of_a_layer_are_equal():
    snapshot = snapshot_of(scramble(small_network()), x)
    for filters in filters_of(snapshot):
        kept = np.arange(len(filters.alive)) < 3
        factors = GreedyForward("imitation", repeats=False).factors(filters, kept)
        assert np.allclose(factors[kept], len(kept) / 3)
        assert not factors[~kept].any()
        others = GreedyForward("imitation").factors(filters, kept)
        assert others.sum() == pytest.approx(len(kept))
        assert len(set(others[kept].tolist())) > 1


@pytest.mark.once
def test_what_is_wrong_is_said_before():
    model = small_network()
    with pytest.raises(ValueError, match="needs whole filters"):
        kl.prune(model, 0.5, data=x, repair="greedy_imitation")
    with pytest.raises(ValueError, match=r"training data \(x, y\)"):
        kl.prune(model, 0.5, "greedy_forward", granularity="filter", data=x)
    with pytest.raises(ValueError, match="`objective`"):
        GreedyForward("accuracy")
    heads = keras.Input((5, 12))
    made = layers.Dense(12)(layers.MultiHeadAttention(3, 4)(heads, heads))
    attention = kl.mask_model(keras.Model(heads, layers.Dense(2)(made)))
    with pytest.raises(ValueError, match="needs whole filters"):
        data = rng.normal(size=(4, 5, 12))
        how = {"granularity": "head", "repair": "greedy_imitation"}
        kl.prune(attention, 0.5, data=data, **how)
    wrong = np.where(np.arange(40) == 3, np.nan, x.T).T.astype("float32")
    with pytest.raises(ValueError, match="NaN"):
        kl.prune(model, 0.5, "greedy_forward", granularity="filter", data=(wrong, y))
    assert kl.get_masks(model).sparsity == 0


def test_weights_keep_their_types():
    model = small_network()
    snapshot = snapshot_of(model, x)
    kl.prune(model, 0.5, granularity="filter")
    changed = GreedyForward("imitation")(snapshot, kl.get_masks(model))
    assert changed
    for name, array in changed.items():
        assert array.dtype == snapshot.final[name].dtype


@pytest.mark.once
def test_a_fixed_batch_is_a_mean_over_several():
    inputs = keras.Input(batch_shape=(4, 3))
    made = layers.Dense(6, "relu", name="makes")(inputs)
    model = keras.Model(inputs, layers.Dense(2, name="reads")(made))
    model.compile("sgd", "mse")
    points = rng.normal(size=(20, 3)).astype("float32")
    targets = rng.normal(size=(20, 2)).astype("float32")
    masked = kl.mask_model(model)
    (filters,) = filters_of(snapshot_of(masked, (points, targets)))
    expected = masked.evaluate(points, targets, batch_size=4, verbose=0)
    assert filters.loss(np.ones(6)) == pytest.approx(expected, rel=1e-4)


@pytest.mark.once
@pytest.mark.parametrize("criterion", ["greedy_imitation", "lasso"])
def test_separable_convolutions_read_by_their_pointwise_part(criterion):
    inputs = keras.Input((6, 6, 2))
    made = layers.Conv2D(6, 3, activation="relu", name="makes")(inputs)
    read = layers.SeparableConv2D(4, 3, depth_multiplier=2, name="reads")(made)
    model = kl.mask_model(keras.Model(inputs, layers.Flatten()(read)))
    kernel = np.array(as_array(model.get_layer("reads").pointwise_kernel))
    kernel[:, :, 4:6] = 0  # Nothing of the third filter is left behind.
    model.get_layer("reads").weight_variable("pointwise_kernel").assign(kernel)
    kl.prune(model, 1 / 6, criterion, granularity="filter", data=x)
    mask = kl.get_masks(model)["makes/kernel"].any(axis=(0, 1, 2))
    # An average may well take it, which makes the others smaller.
    assert (~mask).sum() == 1 and (criterion == "greedy_imitation" or not mask[2])
