"""The experiments on filters: smaller networks, and what they are pruned by."""

import dataclasses
import json
import math
from functools import partial

import numpy as np
import pandas as pd
import pytest

from keras_lottery.keras_bridge.layers import get_state, mask_model, set_state
from keras_lottery.papers import models
from keras_lottery.papers.experiments import (
    EXPERIMENTS,
    Lab,
    dropnet,
    fpgm,
    hrank,
    reproduce,
    rethinking,
)
from keras_lottery.papers.experiments.smaller import accuracy, pruned, tune
from keras_lottery.pruning import prune
from keras_lottery.structured import Filters, compact
from keras_lottery.tickets.allocation import Uniform

pytestmark = pytest.mark.once

SMOKE = dataclasses.replace(
    EXPERIMENTS["hrank"].scales["smoke"], model=partial(models.vgg, (1, 1), 8)
)


@pytest.fixture
def lab(tmp_path):
    return Lab(SMOKE, tmp_path, verbose=0)


@pytest.fixture
def state(lab):
    """Weights in which no channel is like another."""
    rng = np.random.default_rng(0)
    return {
        name: rng.uniform(0.5, 1.5, array.shape).astype(array.dtype)
        if "norm" in name
        else array
        for name, array in lab.model()[1].items()
    }


def test_a_smaller_network_does_what_is_left_of_the_whole_one(lab, state):
    found = pruned(lab, state, 0.5, "l1")
    x = lab.splits.x_test[:20]
    expected = found.whole.predict(x, verbose=0)
    np.testing.assert_allclose(found.network.predict(x, verbose=0), expected, atol=1e-4)
    widths = [found.network.get_layer(name).filters for name in ("conv_1", "conv_2")]
    assert widths == [4, 8]
    again = mask_model(found.model(lab.splits.input_shape, 10))
    set_state(again, found.weights)
    np.testing.assert_allclose(again.predict(x, verbose=0), expected, atol=1e-4)


def test_a_smaller_network_is_drawn_as_one_of_its_width(lab, state):
    model = pruned(lab, state, 0.75, "l1").model
    one, other = (get_state(model(lab.splits.input_shape, 10)) for _ in range(2))
    kernel = one["conv_2/kernel"]
    assert kernel.shape == (3, 3, 2, 4)
    assert not np.array_equal(kernel, other["conv_2/kernel"])
    # Glorot's, of 18 inputs and 36 outputs; of the wide layer they are 72 and 144.
    own = np.concatenate([kernel.ravel(), other["conv_2/kernel"].ravel()]).std()
    assert own == pytest.approx((2 / (18 + 36)) ** 0.5, rel=0.25)


def test_networks_of_one_shape_are_tuned_from_weights_of_their_own(lab, state):
    found = {(way, 0): pruned(lab, state, 0.5, way) for way in ("l1", "random")}
    table = tune(lab, found, drops=())
    assert list(table["way"]) == ["l1", "l1", "random", "random"]
    assert list(table["tuning"]) == ["before", "after"] * 2
    before = table.loc[table["tuning"] == "before", "accuracy"]
    assert list(before) == [accuracy(lab, one.network) for one in found.values()]


def test_equal_norms_leave_the_network_as_it_is(lab, state):
    equal = fpgm.with_equal_norms(state)
    assert fpgm.spread(state) > 0.05
    assert fpgm.spread(equal) == pytest.approx(0, abs=1e-5)
    outputs = []
    for weights in (state, equal):
        model, _ = lab.model()
        set_state(model, weights)
        outputs.append(model.predict(lab.splits.x_test[:20], verbose=0))
    np.testing.assert_allclose(outputs[1], outputs[0], atol=0.02)


def test_shares_of_outputs_and_the_reverse_order_of_ranks():
    maps = np.zeros((2, 4, 4, 3))
    maps[..., 1] = np.eye(4)
    maps[..., 2] = np.triu(np.ones((4, 4)))
    none = np.ones(3)
    filters = Filters(
        "layer",
        alive=none > 0,
        kernels=[],
        scales=[],
        activations=lambda: none,
        rng=np.random.default_rng(0),
        products=lambda: none,
        loss=lambda factors: 0.0,
        of_maps=lambda function: function(maps),
        groups=np.arange(3),
    )
    np.testing.assert_allclose(hrank.share_of_non_zero(filters), [0, 0.25, 0.625])
    # The mean over all places, of which a pooling would keep the largest.
    np.testing.assert_allclose(dropnet.least_active(filters), [0, 0.25, 0.625])
    np.testing.assert_allclose(dropnet.most_active(filters), [0, -0.25, -0.625])
    units = dataclasses.replace(filters, of_maps=lambda f: f(maps[:, 0, 0]))
    np.testing.assert_allclose(dropnet.least_active(units), [0, 1, 1])
    with pytest.warns(UserWarning, match="full rank"):
        np.testing.assert_array_equal(hrank.reverse(filters), [0, -4, -4])


@pytest.mark.parametrize("rounds", dropnet.REPORT)
def test_rounds_leave_the_filters_that_the_paper_has(rounds):
    model = mask_model(dropnet.model_c((16, 16, 3)))
    sparsity = dropnet.sparsity(rounds)
    prune(model, sparsity, "l1", Uniform(exclude=["hidden_1"]), "filter")
    kept = dropnet.WIDTHS
    for _ in range(rounds):
        kept = [math.ceil(0.8 * width) for width in kept]
    made = {layer.name: layer for layer in compact(model).layers}
    left = [made[f"conv_{n}"].filters for n in (1, 2, 3, 4)]
    # Each layer at the same share, as far as its filters can be counted.
    assert sum(left) == sum(kept) and np.abs(np.subtract(left, kept)).max() <= 1
    assert made["hidden_1"].units == dropnet.HIDDEN


def test_the_penalty_of_slimming_is_on_scales_alone():
    plain = partial(models.vgg, (1, 1), 4)
    model = rethinking.Slimming(plain, 0.5)((8, 8, 1), 10)
    scales = [v for v in model.trainable_variables if v.path.endswith("gamma")]
    assert len(scales) == len(model.losses) == 2
    expected = 0.5 * sum(np.abs(np.asarray(scale)).sum() for scale in scales)
    assert float(sum(model.losses)) == pytest.approx(float(expected), rel=1e-5)


def test_trainings_that_are_stuck_are_counted():
    table = pd.DataFrame(
        {
            "order": ["least", "least", "random"],
            "rounds": [3, 3, 3],
            "left": [0.5, 0.5, 0.5],
            "replicate": [1, 0, 0],
            "accuracy": [60.0, 10.0, 55.0],
        }
    )
    np.testing.assert_array_equal(dropnet.accuracies(table, 3, "least"), [10, 60])
    assert dropnet.counts(table).to_dict("list") == {
        "order": ["least", "random"],
        "rounds": [3, 3],
        "left": [0.5, 0.5],
        "trainings": [2, 1],
        "median": [35.0, 55.0],
        "stuck": [1, 0],
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ssl", "hrank", "fpgm", "rethinking", "dropnet"])
def test_experiments_on_filters_run_through(tmp_path, name):
    reproduce(EXPERIMENTS[name], "smoke", tmp_path, verbose=0)
    measured = json.loads((tmp_path / "reproduction.json").read_text())["measured"]
    assert all(np.isfinite(values).all() for values in measured.values())
    if name == "dropnet":
        # The smoke scale has three rounds, of which the third is reported.
        reported = [key for key in measured if key.endswith(" 3")]
        assert len(reported) == 5
        assert all(np.size(measured[key]) == 1 for key in reported)
    if name == "ssl":
        # Something became zero, and not all.
        assert 0 < measured["filters: FLOPs of conv_2"][0] < 100
        assert 0 < measured["shapes: FLOPs of conv_2"][0] < 100
        assert measured["file"] == pytest.approx(measured["filters"], abs=0.1)
    if name == "hrank":
        assert 45 < measured["FLOPs"] < 75
    if name == "fpgm":
        assert measured["spread of norms"][0] > 0
