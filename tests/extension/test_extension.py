"""A package of its own adds to every slot, and keras_lottery knows nothing of it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

import keras_lottery as kl
from keras_lottery import testing
from keras_lottery.keras_bridge.layers.kinds import MASKED_LAYERS, ORDINARY_LAYERS

FOLDER = Path(__file__).parent
ROOT = FOLDER.parents[1]


NAMES = (
    (kl.allocation.ALLOCATIONS, "square_root"),
    (kl.controls.CONTROLS, "flip_signs"),
    (kl.criteria.CRITERIA, "mean_magnitude"),
    (kl.schedules.SCHEDULES, "straight"),
)


@pytest.fixture(scope="module", autouse=True)
def extension():
    for registry, name in NAMES:
        assert name not in registry
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(FOLDER)
        import lottery_extension

        yield lottery_extension
    for registry, name in NAMES:
        del registry[name]
    del ORDINARY_LAYERS[MASKED_LAYERS.pop(lottery_extension.Gated)]


def test_it_passes_the_contract_tests(extension):
    testing.check_criterion("mean_magnitude")
    testing.check_control("flip_signs")
    testing.check_schedule("straight")
    testing.check_allocation("square_root")
    x = np.random.default_rng(0).normal(size=(4, 6)).astype("float32")
    testing.check_masked_layer(lambda: extension.Gated(5), x)


def test_a_search_and_prune_take_its_names(extension, tmp_path):
    def build():
        model = keras.Sequential(
            [keras.Input((4,)), extension.Gated(6), keras.layers.Dense(2)]
        )
        model.compile(
            "adam",
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
        )
        return model

    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(32, 4)).astype("float32"), rng.integers(0, 2, 32)
    search = kl.LotteryTicketSearch(
        build,
        schedule="straight",
        criterion="mean_magnitude",
        allocation="square_root",
        controls=["flip_signs"],
        directory=tmp_path,
    )
    table = search.search(x, y, validation_data=(x, y), epochs=1, verbose=0)
    assert list(table["level"].unique()) == [0, 1, 2, 3, 4]
    assert set(table["variant"]) == {"ticket", "flip_signs"}
    masks = search.ticket(level=2).masks
    assert masks.kept == round(60 * 0.6)
    assert {name.rpartition("/")[2] for name in masks} == {"values", "gates", "kernel"}
    again = kl.LotteryTicketSearch.load(tmp_path)
    assert again.search(x, y, validation_data=(x, y), epochs=1, verbose=0).equals(table)

    model = kl.mask_model(build())
    kl.prune(model, 0.5, criterion="mean_magnitude", allocation="square_root")
    assert kl.get_sparsity(model) == 0.5


@pytest.mark.once
@pytest.mark.slow
def test_the_command_line_takes_the_names_of_an_installed_package(tmp_path):
    info = tmp_path / "lottery_extension-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: lottery-extension\nVersion: 1.0\n"
    )
    (info / "entry_points.txt").write_text(
        "[keras_lottery]\nlottery_extension = lottery_extension\n"
    )
    rng = np.random.default_rng(0)
    np.savez(
        tmp_path / "data.npz",
        x_train=rng.random((30, 6, 6, 1), "float32"),
        y_train=np.arange(30) % 3,
        x_test=rng.random((9, 6, 6, 1), "float32"),
        y_test=np.arange(9) % 3,
    )
    paths = os.pathsep.join(str(path) for path in (ROOT, FOLDER, tmp_path))
    options = (
        "--data data.npz --criterion mean_magnitude --controls flip_signs "
        "--schedule straight --allocation square_root --levels 2 --rate 0.3 --steps 2 "
        "--replicates 1 --batch-size 8 --export none --directory run --verbose 0"
    )
    run = subprocess.run(
        [sys.executable, ROOT / "scripts" / "find_ticket.py", *options.split()],
        env=os.environ | {"PYTHONPATH": paths},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    settings = json.loads((tmp_path / "run" / "settings.json").read_text())
    assert settings["criterion"] == "mean_magnitude"
    assert settings["allocation"] == "square_root"
    assert settings["controls"] == {"flip_signs": 1}
    assert settings["schedule"]["sparsities"] == [0.3, 0.6]


@pytest.mark.once
def test_keras_lottery_does_not_name_it():
    package = ROOT / "keras_lottery"
    assert not [
        path
        for path in package.rglob("*.py")
        if "lottery_extension" in path.read_text(encoding="utf-8")
    ]
