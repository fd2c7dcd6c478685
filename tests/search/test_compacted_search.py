"""A search of filters whose tickets are trained as smaller networks."""

import keras
import numpy as np
import pytest

from tests.search.small_search import FIT, make, numbers


def network():
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(12, "relu"),
            keras.layers.BatchNormalization(),
            keras.layers.Dense(2, name="output"),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.01), loss, metrics=["accuracy"])
    return model


def searched(compact):
    search = make(
        model=network(),
        schedule=[0.5],
        granularity="filter",
        criterion="l1",
        rewind="learning_rate",
        controls={"reinit": 1},
        workers=0,
        engine="fit",
        compact=compact,
    )
    search.search(**FIT)
    return search


# On all backends, the engine is compared: tests/engines/test_compacted.py.
@pytest.mark.once
def test_results_are_those_of_trainings_with_masks():
    small, whole = searched(True), searched(False)
    assert small.settings["compact"] is True
    assert whole.settings["compact"] is False
    np.testing.assert_allclose(
        numbers(small).select_dtypes("number"),
        numbers(whole).select_dtypes("number"),
        atol=1e-4,
    )
    one, other = small.ticket(1), whole.ticket(1)
    assert one.masks == other.masks
    assert one.weights.keys() == other.weights.keys()
    for name in one.masks:
        np.testing.assert_allclose(one.weights[name], other.weights[name], atol=1e-4)


@pytest.mark.once
def test_what_a_machine_makes_of_it_is_no_setting(monkeypatch, tmp_path):
    """A search goes on where smaller networks pay, and where they do not."""

    def begin(levels):
        search = make(
            tmp_path,
            network(),
            schedule=[0.3, 0.5][:levels],
            granularity="filter",
            criterion="l1",
            controls=None,
        )
        search.search(**FIT | {"epochs": None, "steps": 1, "eval_freq": 1})
        return search

    assert begin(1).settings["compact"] == "auto"
    monkeypatch.setattr("keras_lottery.engines.compacted.WORTH", 0)
    assert len(begin(2).results()) == 3


def test_what_is_no_choice_is_refused():
    with pytest.raises(ValueError, match="compact='always'"):
        make(compact="always")
