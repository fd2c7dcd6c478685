"""Names that every build of a model has in common."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_lottery.keras_bridge.layers import (
    MaskedDense,
    get_masks,
    get_state,
    mask_model,
    named_masks,
    named_variables,
    strip_masks,
    walk,
)
from keras_lottery.keras_bridge.layers.names import stable_names
from tests.models_zoo import ZOO, branches, pruned, scramble

pytestmark = pytest.mark.once


@pytest.mark.parametrize("build", ZOO.values(), ids=list(ZOO))
class TestEveryModel:
    def test_names_are_the_same_in_every_build(self, build):
        first = list(named_variables(build()))
        # Keras's counters go on.
        layers.Dense(1), layers.Conv2D(1, 1), layers.BatchNormalization()
        assert list(named_variables(build())) == first
        assert len(set(first)) == len(first)

    def test_names_are_the_same_masked_or_not(self, build):
        model = build()
        masked = mask_model(model)
        assert list(named_variables(masked)) == list(named_variables(model))
        stripped = strip_masks(masked)
        assert list(named_variables(stripped)) == list(named_variables(model))
        assert get_masks(masked).keys() <= named_variables(model).keys()

    def test_every_variable_has_a_name_and_is_there_once(self, build):
        masked = mask_model(build())
        named = [id(variable) for variable in named_variables(masked).values()]
        named += [id(mask) for mask, _ in named_masks(masked).values()]
        assert sorted(named) == sorted({id(v) for v in masked.variables})

    def test_masks_go_with_their_weights(self, build):
        masked = pruned(scramble(build()))
        state = get_state(masked)
        assert list(get_masks(masked)) == list(named_masks(masked))
        for name, mask in get_masks(masked).items():
            np.testing.assert_array_equal(state[name] != 0, mask)


def test_names_are_paths():
    assert list(get_masks(mask_model(ZOO["twins"]()))) == [
        "functional/hidden/kernel",
        "functional_1/hidden/kernel",
        "dense/kernel",
    ]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ([None, None], ["dense", "dense_1"]),
        ([None, "dense_out"], ["dense", "dense_out"]),
        (["a", None, "b"], ["a", "dense", "b"]),
        (["dense_7", "dense_9"], ["dense", "dense_1"]),
    ],
)
def test_only_automatic_names_are_numbered_anew(names, expected):
    assert stable_names([layers.Dense(1, name=name) for name in names]) == expected


def test_a_number_that_is_taken_is_left_out():
    class Other(keras.layers.Layer):
        pass

    siblings = [Other(name="dense"), layers.Dense(1), layers.Dense(1)]
    assert stable_names(siblings) == ["dense", "dense_1", "dense_2"]


def test_masked_layers_used_directly_have_stable_names_stripped_or_not():
    def build():
        return keras.Sequential([keras.Input((4,)), MaskedDense(3), MaskedDense(2)])

    first = list(named_variables(build()))
    assert first[0] == "masked_dense/kernel"
    assert list(named_variables(strip_masks(build()))) == first


def test_walk_goes_through_layers_inside_of_others():
    model = keras.Sequential(
        [keras.Input((3, 4)), layers.TimeDistributed(layers.Dense(2))]
    )
    paths = [path for path, _ in walk(model)]
    assert paths[-2:] == ["time_distributed", "time_distributed/dense"]


def test_layers_of_one_name_in_one_model_have_names_of_their_own():
    model = branches()
    assert [name for name in named_variables(model) if name.startswith("dense")] == [
        f"dense{number}/{weight}"
        for number in ("", "_1", "_2")
        for weight in ("kernel", "bias")
    ]
