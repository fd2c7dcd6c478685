"""Searches by the fused and the vectorized engine."""

import json

import keras
import numpy as np
import pandas as pd
import pytest

from keras_lottery.engines.fused import FusedEngine
from keras_lottery.keras_bridge.layers import strip_masks
from keras_lottery.search import LotteryTicketSearch
from tests.engines.small_training import data, model

pytestmark = pytest.mark.fused

DATA = data()
FIT = {
    **dict(zip("xy", DATA.train, strict=True)),
    "validation_data": DATA.validation,
    "test_data": DATA.test,
    "batch_size": 16,
    "steps": 12,
    "eval_freq": 4,
    "verbose": 0,
}


def search(engine, directory=None):
    plain = strip_masks(model("adam"))
    plain.compile(
        keras.optimizers.Adam(1e-3),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return LotteryTicketSearch(
        plain,
        [0.5],
        controls={},
        replicates=2,
        seed=1,
        engine=engine,
        directory=directory,
    )


def numbers(of):
    return of.results().drop(columns="seconds")


@pytest.fixture(scope="module")
def finished():
    fused = search("fused")
    fused.search(**FIT)
    return fused


class Killed(BaseException):
    """Ends the process, as far as the search can tell."""


def test_a_killed_search_goes_on_by_its_engine_to_the_same_bits(
    tmp_path, finished, monkeypatch
):
    evaluate, parts = FusedEngine._evaluate, []

    def until(self, part):
        parts.append(part)
        # In the middle of the third of four trainings.
        if parts.count("validation") == 8:
            raise Killed
        return evaluate(self, part)

    with monkeypatch.context() as patch:
        patch.setattr(FusedEngine, "_evaluate", until)
        with pytest.raises(Killed):
            search("fused", tmp_path).search(**FIT)
    killed = search("auto", tmp_path)
    done = len(killed.training_ids())
    assert 0 < done < len(finished.training_ids())
    # By itself it would choose `fit` for so few steps.
    killed.search(**FIT)
    assert json.loads(killed.store.settings.read_text())["engine"] == "fused"
    pd.testing.assert_frame_equal(numbers(killed), numbers(finished))
    for name, weights in finished.ticket(1, 1).trained.items():
        np.testing.assert_array_equal(killed.ticket(1, 1).trained[name], weights)


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="stacks are for JAX")
def test_a_vectorized_search_finds_the_tickets_of_a_fused_one(finished):
    stacked = search("vectorized")
    stacked.search(**FIT)
    assert json.loads(stacked.store.settings.read_text())["engine"] == "vectorized"
    pd.testing.assert_frame_equal(numbers(stacked), numbers(finished), atol=1e-4)
    for replicate in (0, 1):
        one, other = (each.ticket(1, replicate) for each in (stacked, finished))
        assert one.masks == other.masks
        for name, weights in other.trained.items():
            np.testing.assert_allclose(one.trained[name], weights, atol=1e-5)
