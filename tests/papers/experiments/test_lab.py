"""The laboratory: searches and trainings, each done once."""

import dataclasses
import itertools

import numpy as np
import pytest

from keras_lottery.engines.engine import Engine
from keras_lottery.files import read_record
from keras_lottery.in_fit.callbacks import ADMMPruning
from keras_lottery.keras_bridge.layers import get_masks
from keras_lottery.masks import Masks
from keras_lottery.papers.experiments import EXPERIMENTS, Lab
from keras_lottery.papers.experiments.frankle_carbin import ONE_SHOT
from keras_lottery.papers.experiments.measures import ACCURACY, FINAL
from keras_lottery.papers.experiments.networks import dense
from keras_lottery.papers.experiments.training import Start
from keras_lottery.tickets.allocation import Uniform

pytestmark = pytest.mark.once

SMOKE = EXPERIMENTS["layers"].scales["smoke"]
SCALE = dataclasses.replace(
    SMOKE, recipe=dataclasses.replace(SMOKE.recipe, steps=12, eval_freq=4)
)


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    return Lab(SCALE, tmp_path_factory.mktemp("lab"), verbose=0)


@pytest.fixture(scope="module")
def trained(lab):
    return lab.train("one", checkpoints=[4, 8], replicate=1)


def no_training(*args, **kwargs):
    raise AssertionError("trained again")


def same(one, other):
    return all(np.array_equal(one[name], other[name]) for name in one)


def test_a_training_keeps_the_states_that_it_passes(lab, trained):
    assert sorted(trained.states) == [0, 4, 8, 12]
    moved = [trained.states[step]["output/kernel"] for step in (0, 4, 8, 12)]
    assert all(not np.array_equal(a, b) for a, b in itertools.pairwise(moved))
    # Steps 0 to 4 are the same in a training that ends there.
    short = dataclasses.replace(lab.recipe, steps=4)
    again = lab.train("short", replicate=1, recipe=short)
    assert same(again.final, trained.states[4])


def test_a_training_is_done_once(lab, trained, monkeypatch):
    monkeypatch.setattr(Engine, "train", no_training)
    again = lab.train("one", checkpoints=[4, 8], replicate=1)
    assert sorted(again.states) == [0, 4, 8, 12]
    assert same(again.final, trained.final)
    with pytest.raises(ValueError, match="checkpoints"):
        lab.train("one", checkpoints=[8], replicate=1)


def test_other_data_are_another_training(lab, trained):
    other = Lab(SCALE, lab.directory, verbose=0)
    x = other.splits.x_test + np.float32(1e-3)
    other.splits = dataclasses.replace(other.splits, x_test=x)
    with pytest.raises(ValueError, match=r"other settings:\n  test\[0\]: "):
        other.train("one", checkpoints=[4, 8], replicate=1)


def test_a_damaged_training_is_done_again(lab, trained):
    path = lab.directory / "one/replicate_1/level_00/training_0.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.warns(UserWarning, match="done again"):
        again = lab.train("one", checkpoints=[4, 8], replicate=1)
    assert same(again.final, trained.final)


def test_trainings_side_by_side_are_those_done_one_by_one(lab, trained):
    starts = {
        "first": Start(checkpoints=[4, 8], replicate=1),
        "other order": Start(replicate=1, order=1),
        "from 8": Start(weights=trained.states[8], step=8, replicate=1),
    }
    first, other, rest = lab.train_all("batch", starts).values()
    assert all(same(first.states[step], trained.states[step]) for step in (0, 4, 8, 12))
    assert first.metrics.keys() == trained.metrics.keys()
    assert not same(other.final, trained.final)
    assert sorted(rest.states) == [8, 12] and same(rest.states[8], first.states[8])
    # A state that several start from or pass is stored once.
    folder = lab.directory / "batch/replicate_1/level_00"
    held = {
        path.stem: set(read_record(path, "training")[1]) for path in folder.iterdir()
    }
    assert held["first_0"] == {"start", "final", "step_4", "step_8"}
    assert held["other order_1"] == held["from 8_0"] == {"final"}


def test_another_order_starts_alike_and_ends_elsewhere(lab, trained):
    other = lab.train("order", replicate=1, order=1)
    assert same(other.states[0], trained.states[0])
    assert not same(other.final, trained.final)


def test_a_training_from_the_middle_goes_on_with_its_masks(lab, trained):
    model, _ = lab.model()
    masks = {name: mask.copy() for name, mask in get_masks(model).items()}
    masks["hidden_1/kernel"][:10] = False
    rest = lab.train("rest", trained.states[8], Masks(masks), step=8)
    assert sorted(rest.states) == [8, 12]
    assert not rest.final["hidden_1/kernel"][:10].any()
    assert rest.final["hidden_1/kernel"][10:].any()


def test_searches_and_trainings_start_alike(lab, trained):
    search = lab.search("search", schedule=[0.5, 0.8], rewind=ONE_SHOT)
    assert same(search.ticket(0, 1).weights, trained.states[0])
    assert list(search.results()["level"].unique()) == [0, 1, 2]
    # Shown is the accuracy that is asked for.
    for column, name in ((ACCURACY, "accuracy"), (FINAL, "final_accuracy")):
        results = lab.compare(name, {"search": search}, column)
        dense = 100 * results.query("level == 0")[column].mean()
        assert lab.tables[name][name].iloc[0] == pytest.approx(dense, abs=0.01)
        assert (lab.directory / f"{name}.png").stat().st_size
    # One-shot masks of all levels come from the dense network's last weights.
    final = search.ticket(0).trained
    for level, sparsity in ((1, 0.5), (2, 0.8)):
        masks = search.ticket(level).masks
        assert masks.sparsity == pytest.approx(sparsity, abs=1e-4)
        for name, mask in masks.items():
            least_kept = np.abs(final[name][mask]).min()
            assert least_kept >= np.abs(final[name][~mask]).max()


def test_rates_and_reports_are_the_scales(lab):
    scale = dataclasses.replace(SCALE, levels=3, report=(1, 5), replicates=1)
    other = Lab(scale, lab.directory / "other", verbose=0)
    search = other.search("halves", rate=0.5, controls=["reinit"])
    table = search.results()
    assert list(table[table["variant"] == "reinit"]["level"]) == [1, 3]
    density = table.query("level == 1")["density"].iloc[0]
    weights = {"hidden": 64 * 300 + 300 * 100, "output": 1000}
    kept = 0.5 * weights["hidden"] + 0.75 * weights["output"]
    assert density == pytest.approx(kept / sum(weights.values()), abs=1e-4)
    # The same with sparsities that an experiment chooses.
    two = other.search("two", schedule=[0.5, 0.75], controls=["reinit"]).results()
    assert list(two[two["variant"] == "reinit"]["level"]) == [1, 2]


def test_other_networks_are_trained_beside(lab):
    small = lab.train("small", model=dense([5]))
    assert small.final["hidden_1/kernel"].shape == (64, 5)
    assert 0 <= small.metrics["early_stop_test_accuracy"] <= 1


def test_callbacks_of_the_library_prune_inside_a_training(lab, monkeypatch):
    pruned = lab.train("pruned", callbacks=[ADMMPruning(0.5, allocation=Uniform())])
    kernels = [pruned.final[name] for name in get_masks(lab.model()[0])]
    assert [np.mean(kernel == 0) for kernel in kernels] == [0.5] * 3
    monkeypatch.setattr(Engine, "train", no_training)
    again = lab.train("pruned", callbacks=[ADMMPruning(0.5, allocation=Uniform())])
    assert same(again.final, pruned.final)
    for other in ([ADMMPruning(0.6, allocation=Uniform())], [ADMMPruning(0.5)], []):
        with pytest.raises(ValueError, match="callbacks"):
            lab.train("pruned", callbacks=other)
