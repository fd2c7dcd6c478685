"""Experiments with networks of their own: frozen weights, one constant, layers back."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from keras_lottery.keras_bridge.layers import set_state
from keras_lottery.masks import Masks
from keras_lottery.papers.experiments import EXPERIMENTS, Lab, sequential_reinit
from keras_lottery.papers.experiments.mask_actions import NETWORK, pruned
from keras_lottery.papers.experiments.networks import biases_apart
from keras_lottery.papers.experiments.one_constant import one_constant
from keras_lottery.papers.experiments.overfitting_gap import as_accurate, moved
from keras_lottery.papers.experiments.sequential_reinit import put_back_in
from keras_lottery.papers.experiments.training import Trained
from keras_lottery.tickets import Ticket

pytestmark = pytest.mark.once

SMOKE = EXPERIMENTS["layers"].scales["smoke"]
SCALE = dataclasses.replace(
    SMOKE,
    recipe=dataclasses.replace(SMOKE.recipe, steps=6, eval_freq=3),
    replicates=1,
    levels=1,
)


class Recording(Lab):
    """Keeps what is trained outside of searches."""

    def train_all(self, name, starts, *args, **others):
        trained = super().train_all(name, starts, *args, **others)
        recorded = {n: (s.weights, s.masks, trained[n]) for n, s in starts.items()}
        self.recorded = {**getattr(self, "recorded", {}), **recorded}
        return trained


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    runs = {}
    directory = tmp_path_factory.mktemp("runs")
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setattr(sequential_reinit, "SPARSITIES", (0.9,))
    for name in ("mask_actions", "one_constant", "sequential_reinit"):
        # In one directory: the search of the first is that of the second.
        lab = Recording(SCALE, directory, verbose=0)
        runs[name] = lab, EXPERIMENTS[name].run(lab)
    monkeypatch.undo()
    return runs


def test_what_is_claimed_is_measured(runs):
    for name, (lab, measured) in runs.items():
        assert {c.value for c in EXPERIMENTS[name].claims} <= measured.keys()
        assert lab.tables and len(lab.figures) == len(lab.tables)


def test_frozen_weights_stay_where_they_began(runs):
    recorded = runs["mask_actions"][0].recorded
    assert set(recorded) == {"frozen_1_0", "frozen_unless_towards_zero_1_0"}
    counts = {}
    for name, (start, masks, trained) in recorded.items():
        for layer in ("hidden_1", "hidden_2", "output"):
            kept, frozen = f"{layer}/kernel", f"{layer}_frozen/kernel"
            assert not (masks[kept] & masks[frozen]).any()
            assert np.array_equal(trained.final[frozen], start[kept] * masks[frozen])
            assert not trained.final[kept][~masks[kept]].any()
        assert not np.array_equal(trained.final[kept], start[kept] * masks[kept])
        counts[name] = masks["hidden_1_frozen/kernel"].sum()
    assert 0 < counts["frozen_unless_towards_zero_1_0"] < counts["frozen_1_0"]
    kept = recorded["frozen_1_0"][1]["hidden_1/kernel"]
    assert counts["frozen_1_0"] == kept.size - kept.sum()


def same_outputs(lab, network, state, kernels):
    """Whether a network is LeNet-300-100 with these kernels and the state's biases."""
    model, initial = lab.model()
    apart = dict(zip(biases_apart(initial), initial, strict=True))
    biases = {apart[n]: value for n, value in state.items() if n.endswith("bias")}
    set_state(model, {**biases, **kernels})
    other, _ = lab.model(model=network)
    set_state(other, state)
    x = lab.splits.x_test[:50]
    outputs = [np.asarray(net(x)) for net in (model, other)]
    assert np.abs(outputs[0]).max() > 0.01
    return np.allclose(*outputs, atol=1e-4)


def test_a_kernel_and_a_frozen_one_are_their_sum(runs):
    lab = runs["mask_actions"][0]
    state = lab.recorded["frozen_1_0"][2].final
    kernels = {
        name: value + state[name.replace("/", "_frozen/")]
        for name, value in state.items()
        if name.endswith("/kernel") and "_frozen" not in name
    }
    assert same_outputs(lab, NETWORK, state, kernels)


def test_one_constant_is_every_magnitude(runs):
    lab = runs["one_constant"][0]
    assert len(lab.recorded) == 4
    for name, (start, masks, trained) in lab.recorded.items():
        kernels = {n: start[n] * masks[n] for n in masks}
        for n in masks:
            assert np.array_equal(trained.final[n], kernels[n])
            assert set(np.unique(kernels[n])) <= {-1, 0, 1}
        constant = trained.final["constant/constant"]
        assert constant.shape == () and constant != start["constant/constant"]
        ticket = start["constant/constant"]
        assert ticket == pytest.approx(0.1, abs=0.08), name
        assert trained.final["hidden_1_bias/bias"].any()
        scaled = {n: constant * kernel for n, kernel in kernels.items()}
        assert same_outputs(lab, one_constant, trained.final, scaled)
    signs, other = (lab.recorded[f"{v}_1_0"][0] for v in ("signs", "random_signs"))
    kept = lab.recorded["signs_1_0"][1]["hidden_1/kernel"]
    alike = np.mean((signs["hidden_1/kernel"] == other["hidden_1/kernel"])[kept])
    assert 0.4 < alike < 0.6


def test_pruned_weights_are_judged_by_their_last_training():
    first = np.array([1.0, 1.0, 1.0, -1.0])
    masks = ([1, 1, 1, 1], [0, 0, 1, 1], [0, 0, 0, 1])
    trained = ([0.5, 2.0, 2.0, -3.0], [0.0, 0.0, 0.1, -3.0], [0.0, 0.0, 0.0, -1.0])

    class Search:
        def ticket(self, level, replicate):
            mask = Masks({"k": np.array(masks[level], bool)})
            final = {"k": np.array(trained[level])}
            return Ticket(mask, {"k": first}, 0, 1, trained=final)

    towards = [t["k"].tolist() for _, _, t in pruned(Search(), 2, 0)]
    assert towards == [[True, False, False, False], [True, False, True, False]]


def test_layers_go_back_one_after_another(runs):
    start, end = (
        {"a": np.array(v), "b": np.array(v), "c": np.array(v)} for v in (0, 1)
    )
    groups = {"one": ["a"], "two": ["b", "c"]}
    states = put_back_in(["two", "one"], Trained({0: start, 5: end}, {}), groups)
    assert [[int(s[n]) for n in "abc"] for s in states] == [
        [1, 1, 1],
        [1, 0, 0],
        [0, 0, 0],
    ]
    lab, _ = runs["sequential_reinit"]
    table = lab.tables["put_back"]
    ends = table[table["layers"].isin([0, 4])].groupby("layers")["accuracy"]
    assert (ends.nunique() == 1).all()  # in any order, all is trained or all put back
    orders = [rows["last"].to_list() for _, rows in table.groupby("first")]
    assert sorted(orders[0]) == sorted(orders[1])
    assert orders[0][1:] == orders[1][:0:-1]


def test_criticality_prunes_as_much_as_the_others(runs):
    recorded = runs["sequential_reinit"][0].recorded
    masks = recorded["criticality_90"][1]
    for other in ("uniform", "global"):
        assert recorded[f"{other}_90"][1].kept == masks.kept
    densities = [mask.mean() for mask in masks.values()]
    assert max(densities) == pytest.approx(4 * min(densities), rel=0.02)


def test_images_are_moved_and_what_comes_in_is_empty():
    x = np.arange(1, 17).reshape(1, 4, 4, 1)
    assert np.array_equal(moved(x, 0, 0), x)
    for axis, way in ((1, (1, 0)), (2, (0, 1))):
        for sign in (1, -1):
            down, right = sign * way[0], sign * way[1]
            expected = np.roll(x, sign, axis)
            edge = [slice(None)] * 4
            edge[axis] = 0 if sign > 0 else -1
            expected[tuple(edge)] = 0
            assert np.array_equal(moved(x, down, right), expected)


@pytest.mark.parametrize(
    ("accuracies", "density"),
    [
        ([0.9, 0.95, 0.9, 0.8], 0.25),
        ([0.9, 0.8, 0.91, 0.8], 0.25),
        ([0.9] + [0.1] * 3, np.nan),
    ],
)
def test_as_accurate_are_the_sparsest_of_the_dense_accuracy(accuracies, density):
    table = pd.DataFrame(
        {
            "variant": ["ticket"] * 4 + ["reinit"],
            "density": [1.0, 0.5, 0.25, 0.125, 0.125],
            "final_val_accuracy": [*accuracies, 1.0],
        }
    )
    assert as_accurate(table) == pytest.approx(density, nan_ok=True)
