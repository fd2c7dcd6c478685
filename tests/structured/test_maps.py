"""Feature maps of filters, and criteria that look at them."""

import keras
import numpy as np
import pytest
from keras import layers
from scipy.stats import entropy

import keras_lottery as kl
from keras_lottery.structured.filters import filters_of
from keras_lottery.tickets import Snapshot, grouping
from tests.models_zoo import as_array

RNG = np.random.default_rng(0)
X = RNG.normal(size=(12, 8, 8, 2)).astype("float32")


def network(activation="relu"):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 2))
    y = layers.Conv2D(5, 3, padding="same", name="first")(inputs)
    y = layers.BatchNormalization()(y)
    y = layers.MaxPooling2D()(layers.Activation(activation, name="behind")(y))
    z = layers.Conv2D(6, 3, padding="same", activation=activation, name="second")(y)
    y = layers.Dense(3)(layers.Flatten()(layers.AveragePooling2D(2)(z)))
    return kl.mask_model(keras.Model(inputs, y))


def filters_by_name(model, data=X):
    masks = kl.get_masks(model)
    snapshot = Snapshot.untrained(
        masks,
        kl.get_state(model),
        rng=np.random.default_rng(0),
        shared_model=model,
        data=data,
        grouping=grouping.get("filter").of(model, masks),
    )
    return {filters.name: filters for filters in filters_of(snapshot)}


def test_maps_are_those_behind_the_activation():
    model = network()
    found = filters_by_name(model)
    for name, layer in (("first", "behind"), ("second", "second")):
        expected = keras.Model(model.inputs, model.get_layer(layer).output)(X)
        assert np.allclose(
            found[name].of_maps(lambda maps: maps), as_array(expected), atol=1e-6
        )


def test_ranks_and_entropies_are_those_of_each_map():
    model = network()
    filters = filters_by_name(model)["first"]
    maps = filters.of_maps(lambda maps: maps)
    ranks = [[np.linalg.matrix_rank(one[..., i]) for one in maps] for i in range(5)]
    assert np.allclose(kl.filter_criteria.hrank(filters), np.mean(ranks, axis=1))
    means = maps.mean(axis=(1, 2), dtype="float64")
    expected = [entropy(np.histogram(means[:, i], 10)[0]) for i in range(5)]
    assert np.allclose(kl.filter_criteria.entropy(filters), expected)


@pytest.mark.once
@pytest.mark.parametrize("criterion", ["hrank", "entropy"])
def test_a_filter_that_is_silent_goes_first(criterion):
    model = network()
    layer = model.layers[2]
    layer.beta.assign(np.array([0, 0, -99, 0, 0]))
    exclude = kl.allocation.Uniform(exclude=["second"])
    kl.prune(model, 0.1, criterion, exclude, granularity="filter", data=X)
    mask = kl.get_masks(model)["first/kernel"]
    assert np.flatnonzero(~mask.any(axis=(0, 1, 2))).tolist() == [2]


@pytest.mark.once
def test_ranks_that_tell_nothing_apart_warn_or_are_refused():
    with pytest.warns(UserWarning, match="does not tell"):
        kl.filter_criteria.hrank(filters_by_name(network("linear"))["first"])
    dense = kl.mask_model(kl.models.lenet_300_100(seed=0))
    x = RNG.random((9, 28, 28, 1)).astype("float32")
    with pytest.raises(ValueError, match=r"at least 3 x 3.*'hidden_1'"):
        kl.prune(dense, 0.5, "hrank", granularity="filter", data=x)
    kl.prune(dense, 0.5, "entropy", granularity="filter", data=x)
