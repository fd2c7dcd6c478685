"""Every experiment, and the whole of the cheapest."""

import dataclasses
import json
import math
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from keras_lottery import data
from keras_lottery.engines.engine import Engine
from keras_lottery.in_fit.callbacks.levels import bits_by_name
from keras_lottery.keras_bridge.layers import get_masks, mask_model
from keras_lottery.masks import Masks
from keras_lottery.papers import models
from keras_lottery.papers.experiments import (
    EXPERIMENTS,
    Claim,
    Experiment,
    Lab,
    admm,
    get,
    lenet_recipes,
    reproduce,
)
from keras_lottery.papers.experiments.measures import ACCURACY, FINAL
from keras_lottery.papers.experiments.small_dense import widths
from keras_lottery.tickets import schedules

SMOKE = dataclasses.replace(EXPERIMENTS["layers"].scales["smoke"], replicates=1)
CHEAPEST = dataclasses.replace(EXPERIMENTS["layers"], scales={"smoke": SMOKE})


@pytest.mark.once
@pytest.mark.parametrize("experiment", EXPERIMENTS.values(), ids=EXPERIMENTS)
def test_every_experiment_says_what_it_is_held_against(experiment):
    assert experiment.claims
    assert "https://" in experiment.paper
    for claim in experiment.claims:
        assert claim.what and claim.published and claim.source and claim.value
        low, high = claim.reproduced
        assert low < high
        if claim.sign:
            assert claim.sign[0] <= low and high <= claim.sign[1]
    assert len({claim.what for claim in experiment.claims}) == len(experiment.claims)


@pytest.mark.once
@pytest.mark.parametrize("experiment", EXPERIMENTS.values(), ids=EXPERIMENTS)
def test_every_experiment_runs_through_in_seconds_and_as_the_paper(experiment):
    assert {"smoke", "paper"} <= experiment.scales.keys() <= {"smoke", "cpu", "paper"}
    assert all(scale.cost for scale in experiment.scales.values())
    smoke, paper = experiment.scales["smoke"], experiment.scales["paper"]
    assert smoke.data == "digits" and not smoke.is_faithful
    assert smoke.recipe.steps <= 100 < paper.recipe.steps
    for scale in experiment.scales.values():
        recipe = scale.recipe
        assert recipe.eval_freq % recipe.steps_per_execution == 0
        assert all(0 < drop < recipe.steps for drop in recipe.drops)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    directory = tmp_path_factory.mktemp("layers")
    return directory, reproduce(CHEAPEST, "smoke", directory, verbose=0)


def test_a_run_ends_with_its_verdicts(run):
    directory, verdicts = run
    assert list(verdicts["claim"]) == [claim.what for claim in CHEAPEST.claims]
    assert set(verdicts["verdict"]) == {"not run"}  # the paper's data are others
    summary = json.loads((directory / "reproduction.json").read_text())
    assert {claim.value for claim in CHEAPEST.claims} <= summary["measured"].keys()
    assert summary["scale"] == "smoke" and summary["seconds"] > 0
    text = (directory / "README.md").read_text()
    assert "keras-lottery reproduce layers --scale smoke" in text
    # Not the scale's lenet_300_100.
    assert "dense_256_256_256, trained on digits" in text
    assert summary["networks"] == ["dense_256_256_256"]
    assert all(claim.published in text for claim in CHEAPEST.claims)
    for name in ("layers.csv", "layers.png", "layers.svg"):
        assert (directory / name).stat().st_size
        assert name.endswith("svg") or name in text


@pytest.mark.once
def test_a_run_trains_nothing_twice(run, monkeypatch):
    def no_training(*args, **kwargs):
        raise AssertionError("trained again")

    monkeypatch.setattr(Engine, "train", no_training)
    directory, verdicts = run
    again = reproduce(CHEAPEST, "smoke", directory, verbose=0)
    assert again.equals(verdicts)


@pytest.mark.once
def test_a_directory_holds_one_run(run):
    with pytest.raises(ValueError, match="holds layers at scale smoke"):
        reproduce(EXPERIMENTS["renda"], "smoke", run[0])


@pytest.mark.once
def test_unknown_names_and_scales_list_the_choices(tmp_path):
    with pytest.raises(ValueError, match=r"layers.*Received: name='layer'"):
        get("layer")
    with pytest.raises(ValueError, match=r"\['smoke', 'paper'\].*scale='cpu'"):
        reproduce(EXPERIMENTS["renda_resnet_56"], "cpu", tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.once
def test_measured_values_meet_their_claims(tmp_path):
    claims = (
        Claim("a", "1", "here", "a", (1, 2)),
        Claim("b", "1", "here", "b", (1, 2), sign=(0, 2)),
        Claim("c", "1", "here", "c", (1, 2)),
    )
    scale = dataclasses.replace(CHEAPEST.scales["smoke"], is_faithful=True)
    measured = {"a": 1.5, "b": [0.5, 0.5], "c": math.nan, "d": 3}
    toy = Experiment(
        "toy", "A toy", "none", {"cpu": scale}, lambda lab: measured, claims
    )
    verdicts = reproduce(toy, "cpu", tmp_path, verbose=0)
    assert list(verdicts["verdict"]) == ["reproduced", "sign reproduced", "not run"]


@pytest.mark.once
def test_what_claims_are_on_has_to_be_measured(tmp_path):
    claims = (Claim("a", "1", "here", "gain", (1, 2)),)
    scales = {"smoke": SMOKE}
    toy = Experiment("toy", "", "none", scales, lambda lab: {"gian": 1.0}, claims)
    with pytest.raises(KeyError, match=r"claims on \['gain'\].*\['gian'\]"):
        reproduce(toy, "smoke", tmp_path, verbose=0)


@pytest.mark.once
def test_every_recipe_of_lenet_has_its_claims():
    arms = {*lenet_recipes.RECIPES, "dropout", "global"}
    values = [claim.value for claim in EXPERIMENTS["lenet_recipes"].claims]
    assert sorted(values) == sorted([*arms, *(f"{arm} over reinit" for arm in arms)])


@pytest.mark.once
@pytest.mark.parametrize(
    ("name", "k", "steps"),
    [("renda", 458, 7328), ("renda_resnet_56", 32 * 351, 182 * 351)],
)
def test_whatever_comes_after_pruning_is_as_long(name, k, steps):
    asked = {}

    class Stopped:
        scale = EXPERIMENTS[name].scales["cpu" if name == "renda" else "paper"]
        recipe = scale.recipe

        def search(self, way, **arguments):
            asked[way] = arguments

        def compare(self, *arguments):
            raise StopIteration

    with pytest.raises(StopIteration):
        EXPERIMENTS[name].run(Stopped())
    assert {arguments["rewind_to"] for arguments in asked.values()} == {k}
    tuned = asked.pop("fine_tune")["rewind"].ticket
    assert tuned.steps == steps - k
    assert {way: arguments["rewind"] for way, arguments in asked.items()} == {
        "weights": "weights",
        "learning_rate": "learning_rate",
    }


@pytest.mark.once
@pytest.mark.parametrize("scale", ["cpu", "paper"])
@pytest.mark.parametrize(
    ("name", "density"),
    [
        ("early_phase", 0.262),
        ("stabilizing_resnet_20", 0.134),
    ],
)
def test_fewer_rounds_prune_as_much(name, density, scale):
    chosen = EXPERIMENTS[name].scales[scale]

    class Stopped:
        scale = chosen
        recipe = chosen.recipe

        def search(self, name, rate, **arguments):
            assert (1 - rate) ** chosen.levels == pytest.approx(density, rel=0.01)
            raise StopIteration

    with pytest.raises(StopIteration):
        EXPERIMENTS[name].run(Stopped())


class Planned(Lab):
    """Makes up results at the levels that searches are asked for; draws nothing."""

    def search(
        self, name, *, rate=0.2, schedule=None, controls=(), rewind="", **arguments
    ):
        schedule = schedule or schedules.geometric(rate, self.scale.levels)
        last = len(schedule)
        reported = [*(self.scale.report or range(1, last)), last]
        rng = np.random.default_rng(0)
        rows = [
            {"level": level, "variant": variant, "replicate": r, FINAL: rng.random()}
            for level in range(last + 1)
            for variant in ("ticket", *(controls if level in reported else ()))
            for r in self.replicates
        ]
        table = pd.DataFrame(rows)
        table["density"] = 1 - np.array([0, *schedule])[table["level"]]
        same = {"trial": 0, "early_stop_step": 100, "early_stop_val_accuracy": 0.5}
        table = table.assign(**same, **{ACCURACY: table[FINAL]})
        return SimpleNamespace(results=lambda: table)

    def figure(self, name, figure):
        pass

    def _draw(self, *arguments):
        pass


@pytest.mark.once
@pytest.mark.parametrize(
    ("name", "of_the_full_network"),
    [
        ("conv_2", set()),
        ("conv_4", set()),
        ("conv_6", set()),
        ("resnet_18", {"dense", "small", "warm"}),
        ("vgg_19", set()),
        ("renda_resnet_20", {"dense"}),
        ("missing_the_mark", set()),
    ],
)
def test_the_levels_of_scale_cpu_are_those_of_the_claims(
    name, of_the_full_network, tmp_path
):
    experiment = EXPERIMENTS[name]
    scale = experiment.scales["cpu"]
    measured = experiment.run(Planned(scale, tmp_path, splits=data.load("digits")))
    unknown = {
        claim.value
        for claim in experiment.claims
        if not np.isfinite(measured[claim.value]).all()
    }
    assert unknown == of_the_full_network
    table = pd.read_csv(tmp_path / "accuracy_trainings.csv")
    assert table["level"].max() == scale.levels


@pytest.mark.once
def test_admm_nn_gives_convolutions_three_bits_and_dense_layers_two():
    names = get_masks(mask_model(models.lenet_5(seed=0)))
    assert bits_by_name(admm.BITS["lenet_5"], names) == {
        "conv_1/kernel": 3,
        "conv_2/kernel": 3,
        "hidden_1/kernel": 2,
        "output/kernel": 2,
    }


@pytest.mark.once
def test_a_smaller_network_has_as_many_weights_as_the_ticket():
    rng = np.random.default_rng(0)
    shapes = {"hidden_1/kernel": (64, 300), "hidden_2/kernel": (300, 100)}
    masks = Masks({n: rng.random(shape) < 0.1 for n, shape in shapes.items()})
    masks = Masks({**masks, "output/kernel": np.ones((100, 10), bool)})
    first, second = widths(masks)
    assert first * 64 == pytest.approx(masks["hidden_1/kernel"].sum(), rel=0.05)
    assert first * second == pytest.approx(masks["hidden_2/kernel"].sum(), rel=0.05)


@pytest.mark.slow
def test_losses_of_a_resnet_and_its_tickets_are_measured(tmp_path):
    experiment = EXPERIMENTS["overfitting_gap_resnet_20"]
    reproduce(experiment, "smoke", tmp_path, verbose=0)
    measured = json.loads((tmp_path / "reproduction.json").read_text())["measured"]
    assert measured.keys() == {claim.value for claim in experiment.claims}
    for name in ("gap", "calibration", "noise", "shift", "attack"):
        # The smoke scale has no tickets of 10 %.
        assert np.isfinite(measured[f"{name} 20"]).all()
        assert measured[f"{name} 10"] == [None]
    table = pd.read_csv(tmp_path / "robustness.csv")
    assert (table["density"].round(2) == [1, 0.5, 0.2]).all()
    assert table["calibration"].between(0, 100).all()
