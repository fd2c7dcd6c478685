"""Heads of attention: pruned whole, and removed."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_lottery as kl
from tests.models_zoo import as_array, cases

X = np.random.default_rng(0).normal(size=(3, 5, 12)).astype("float32")


def attention(kind, **kwargs):
    if kind == "grouped":
        return layers.GroupQueryAttention(4, 6, 3, name="attention", **kwargs)
    return layers.MultiHeadAttention(3, 4, name="attention", **kwargs)


def transformer(kind="plain", **kwargs):
    """One block; queries are others than keys and values."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((5, 12))
    y = layers.LayerNormalization()(inputs)
    y = layers.Add()([inputs, attention(kind, **kwargs)(y, inputs)])
    z = layers.Dense(20, "gelu", name="wide")(layers.LayerNormalization()(y))
    y = layers.Add()([y, layers.Dense(12, name="narrow")(z)])
    model = keras.Model(inputs, layers.Dense(3, name="head")(y[:, 0]))
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    for variable in model.weights:  # Biases are zero otherwise.
        variable.assign(variable + 0.1)
    return kl.mask_model(model)


def heads_left(model):
    """Which heads have weights, of queries and of keys."""
    masks = kl.get_masks(model)
    return [
        masks[f"attention/{part}/kernel"].any(axis=(0, 2)) for part in ("query", "key")
    ]


KINDS = {
    "plain": ("plain", {}),
    "no bias": ("plain", {"use_bias": False}),
    "wider": ("plain", {"value_dim": 5, "dropout": 0.1}),
    "grouped": ("grouped", {}),
    "grouped, no bias": ("grouped", {"use_bias": False}),
}


@pytest.mark.parametrize("name", cases(KINDS, ["plain", "grouped"]))
def test_pruned_heads_are_removed(name):
    kind, how = KINDS[name]
    model = transformer(kind, **how)
    kl.prune(model, 1 / 3, granularity="head")
    queries, keys = heads_left(model)
    assert keys.sum() == 2
    assert np.array_equal(queries, np.repeat(keys, len(queries) // len(keys)))
    small, report = kl.compact(model, return_report=True)
    assert report.heads == {"attention": (3, 2)}
    assert "attention: 3 -> 2 heads" in str(report)
    assert small.count_params() < kl.strip_masks(model).count_params()
    assert np.allclose(as_array(small(X)), as_array(model(X)), atol=1e-5)
    config = small.get_layer("attention").get_config()
    if kind == "grouped":
        assert (config["num_query_heads"], config["num_key_value_heads"]) == (4, 2)
    else:
        assert config["num_heads"] == 2
    again = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(small)
    )
    assert [w.shape for w in again.weights] == [w.shape for w in small.weights]


@pytest.mark.once
def test_the_smallest_heads_go_and_one_stays():
    model = transformer()
    kernel = model.get_layer("attention").value_dense.weight_variable("kernel")
    kernel.assign(kernel * np.array([1, 0.01, 1])[:, np.newaxis])
    kl.prune(model, 1 / 3, granularity="head")
    assert heads_left(model)[0].tolist() == [True, False, True]
    kl.prune(model, 2 / 3, granularity="head")
    assert heads_left(model)[0].sum() == 1


@pytest.mark.once
def test_pruned_heads_stay_pruned_in_training():
    model = transformer()
    kl.prune(model, 1 / 3, granularity="head")
    model.fit(X, np.zeros(3, int), epochs=2, verbose=0)
    small = kl.compact(model)
    assert small.get_layer("attention").num_heads == 2
    assert np.allclose(as_array(small(X)), as_array(model(X)), atol=1e-5)


@pytest.mark.once
def test_heads_by_taylor_in_a_gradual_pruning():
    model = transformer()
    data = X, np.zeros(3, int)
    pruning = kl.GradualPruning(
        2 / 3, 0, 2, 1, criterion="taylor", granularity="head", data=data
    )
    model.fit(*data, epochs=3, verbose=0, callbacks=[pruning])
    assert heads_left(model)[1].sum() == 1


def test_a_head_without_outputs_or_values_is_dead():
    """Zeros are enough, without masks."""
    model = kl.strip_masks(transformer())
    layer = model.get_layer("attention")
    output = np.array(as_array(layer.output_dense.kernel))
    output[1] = 0
    layer.output_dense.kernel.assign(output)
    for variable in layer.value_dense.weights:
        array = np.array(as_array(variable))
        array[..., 2, :] = 0
        variable.assign(array)
    small, report = kl.compact(model, return_report=True)
    assert report.heads == {"attention": (3, 1)}
    assert np.allclose(as_array(small(X)), as_array(model(X)), atol=1e-5)


@pytest.mark.once
def test_units_between_are_removed_beside_heads():
    model = transformer()
    kl.prune(model, 0.5, granularity="filter")
    kl.prune(model, 1 / 3, granularity="head")
    small = kl.compact(model)
    assert small.get_layer("wide").units == 10
    assert small.get_layer("attention").num_heads == 2
    assert np.allclose(as_array(small(X)), as_array(model(X)), atol=1e-5)


@pytest.mark.once
def test_a_model_without_heads_says_so():
    model = kl.mask_model(kl.models.lenet_300_100(seed=0))
    with pytest.raises(ValueError, match="no heads that can be pruned"):
        kl.prune(model, 0.5, granularity="head")


@pytest.mark.once
def test_scores_that_the_model_takes_keep_all_heads():
    inputs = keras.Input((5, 12))
    y, scores = attention("plain")(inputs, inputs, return_attention_scores=True)
    pooled = layers.GlobalAveragePooling2D()(scores)
    model = kl.mask_model(keras.Model(inputs, [y, pooled]))
    kl.prune(model, 1 / 3, granularity="head")
    small, report = kl.compact(model, return_report=True)
    assert report.heads == {"attention": (3, 3)}
    for one, other in zip(small(X), model(X), strict=True):
        assert np.allclose(as_array(one), as_array(other), atol=1e-5)


@pytest.mark.once
def test_attention_with_lora_stays_as_it_is():
    model = kl.strip_masks(transformer())
    model.get_layer("attention").query_dense.enable_lora(2)
    small, report = kl.compact(model, return_report=True)
    assert not report.heads and "LoRA" in str(report)
    assert np.allclose(as_array(small(X)), as_array(model(X)), atol=1e-5)
