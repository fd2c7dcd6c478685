"""`keras-lottery find`."""

import argparse
import html
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

import keras_lottery as kl
from keras_lottery import cli
from keras_lottery.cli import find_command as find
from keras_lottery.search import Run
from keras_lottery.search.results import verdict
from keras_lottery.ship.export import other_runtimes
from keras_lottery.study.report import write_report
from keras_lottery.tickets.allocation import ErdosRenyi, Global

pytestmark = pytest.mark.once

QUICK = ["--levels", "1", "--steps", "4", "--replicates", "1", "--verbose", "0"]


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--model", "resnet"], ["--model", "'resnet'", "lenet_300_100", "conv_6"]),
        (["--levels", "0"], ["--levels", "at least 1", "'0'"]),
        (["--rate", "1"], ["--rate", "below 1", "'1'"]),
        (["--rate", "much"], ["--rate", "above 0", "'much'"]),
        (["--allocation", "net"], ["--allocation", "global", "layerwise"]),
        (["--rewind", "back"], ["--rewind", "learning_rate"]),
        (["--rewind-to", "soon"], ["rewind_to='soon'", "2ep"]),
        (["--replicates", "3:2"], ["--replicates", "at least 4", "'2'"]),
        (["--replicate", "1"], ["--replicate", "from 0 to 0"]),
        (["--replicates", "0:2", "--replicate", "1"], ["--replicate", "0:2"]),
        (["--replicate", "0", "--overwrite"], ["overwrite=True", "--replicate"]),
        (["--epochs", "2", "--steps", "3"], ["--steps", "--epochs"]),
        (["--controls", "reinit,magic"], ["--controls", "magic", "shuffle"]),
        (["--controls", "reinit:0"], ["--controls", "at least 1"]),
        (["--report-levels", "1,two"], ["--report-levels", "'two'"]),
        (["--report-levels", "2"], ["report_levels=[2]"]),
        (["--criterion", "magic"], ["--criterion", "magnitude"]),
        (["--granularity", "dense=filter"], ["--granularity", "'filter'", "dense"]),
        (["--export", "onyx"], ["--export", "onyx", "litert", "onnx"]),
        (["--quantize", "int4"], ["--quantize", "dynamic"]),
        (["--optimizer", "magic"], ["optimizer='magic'"]),
        (["--weights", "missing.keras"], ["--weights", "missing.keras"]),
        (["--pretrained", "dense_1"], ["--weights", "--pretrained LAYERS"]),
        (["--learning-rate", "-1"], ["--learning-rate", "above 0"]),
        (["--data", "missing.npz"], ["missing.npz"]),
        (["--magic"], ["--magic"]),
    ],
)
def test_a_bad_value_is_named_in_one_line(capsys, arguments, words):
    try:
        code = cli.find([*QUICK, *arguments])
    except SystemExit as exit:
        code = exit.code
    assert code == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert all(word in message for word in words), message


def test_options_reach_the_search(tmp_path):
    data = tmp_path / "data.npz"
    rng = np.random.default_rng(0)
    np.savez(
        data,
        x_train=rng.random((60, 8, 8, 1), dtype="float32"),
        y_train=rng.integers(0, 3, 60),
        x_test=rng.random((30, 8, 8, 1), dtype="float32"),
        y_test=rng.integers(0, 3, 30),
    )
    arguments = [
        *(
            "--data",
            str(data),
            "--levels",
            "2",
            "--rate",
            "0.4",
            "--allocation",
            "layerwise",
        ),
        *("--rewind", "learning_rate", "--rewind-to", "1", "--steps", "6"),
        *("--eval-freq", "2", "--batch-size", "10", "--optimizer", "sgd"),
        *("--learning-rate", "0.5", "--replicates", "1", "--controls", "shuffle:2"),
        *("--granularity", "block_1x4", "--report-levels", "1,2"),
        *(
            "--criterion",
            "random",
            "--seed",
            "7",
            "--directory",
            "run",
            "--export",
            "none",
        ),
    ]
    assert cli.find(arguments) == 0
    settings = json.loads((tmp_path / "run" / "settings.json").read_text())
    assert settings["allocation"]["rates"]["output"] == pytest.approx(0.2)
    assert settings["model"]["optimizer"]["class"] == "SGD"
    assert settings["model"]["optimizer"]["learning_rate"] == 0.5
    expected = {
        "granularity": "block_1x4",
        "report_levels": [1, 2],
        "rewind": "learning_rate",
        "rewind_to": "1",
        "steps": 6,
        "eval_freq": 2,
        "batch_size": 10,
        "criterion": "random",
        "seed": 7,
        "controls": {"shuffle": 2},
        "replicates": 1,
    }
    assert {key: settings[key] for key in expected} == expected
    table = pd.read_csv(tmp_path / "run" / "results.csv")
    assert list(table["variant"]) == ["ticket", *["shuffle", "shuffle", "ticket"] * 2]
    for name in ("figure.png", "table.txt"):
        assert (tmp_path / "run" / name).stat().st_size
    assert not (tmp_path / "saved_models").exists()


def test_pretrained_layers_start_from_the_weights_of_a_file(tmp_path, capsys):
    before = kl.models.lenet_300_100((8, 8, 1), 10, seed=5)
    layers = [name for name in kl.get_state(before) if name.endswith("kernel")]
    before.save("before.keras")
    how = [*QUICK[:2], "--steps", "2", "--controls", "none", "--verbose", "0"]
    how += ["--replicates", "2", "--export", "none", "--weights", "before.keras"]
    how += ["--engine", "fit", "--workers", "0", "--directory", "run"]
    assert cli.find([*how, "--pretrained", "hidden_9"]) == 2
    assert "--pretrained" in capsys.readouterr().err
    first, last = layers[0].partition("/")[0], layers[-1].partition("/")[0]
    assert cli.find([*how, "--pretrained", first]) == 0
    run = Run(tmp_path / "run")
    assert run.settings["pretrained"] == [first]
    own = kl.get_state(before)
    starts = [run.initial(replicate) for replicate in (0, 1)]
    for start in starts:
        np.testing.assert_array_equal(start[layers[0]], own[layers[0]])
        assert not np.array_equal(start[f"{last}/kernel"], own[f"{last}/kernel"])
    # A file of another network.
    kl.models.lenet_300_100((6, 6, 1), 10).save("before.keras")
    assert cli.find([*how, "--overwrite", "--pretrained", first]) == 2
    assert f"{first}/kernel" in capsys.readouterr().err


def test_parts_in_one_directory_and_in_two(tmp_path, capsys, pretended):
    how = [*QUICK[:4], "--engine", "fit", "--workers", "0", "--export", "none"]

    def find(directory, *options):
        arguments = [*how, "--directory", directory, *options]
        assert cli.find(arguments) == 0
        return capsys.readouterr().out

    said = find("a", "--replicates", "3", "--replicate", "1")
    assert "6 of 9 trainings are missing: all of replicates 0, 2" in said
    assert not (tmp_path / "a" / "table.txt").exists()
    assert Run.load("a").data == "digits"
    find("a", "--replicate", "0")
    assert "all trainings are there" in find("a", "--replicates", "2:3")
    find("b", "--replicates", "0:2")
    find("b", "--replicates", "2:3")
    assert Run.load("b").settings["replicates"] == 3
    assert cli.main(["merge", "a", "b", "--directory", "c"]) == 0
    assert "c: complete" in capsys.readouterr().out
    assert cli.main(["merge", "a", "b", "--directory", "c"]) == 2
    assert "--directory" in capsys.readouterr().err
    find("c", "--replicates", "3")
    tables = [Run.load(name).results().drop(columns="seconds") for name in "abc"]
    for table in tables[1:]:
        pd.testing.assert_frame_equal(table, tables[0], check_exact=True)
    assert (tmp_path / "c" / "table.txt").exists()


class Asked(Exception):
    """A search that was asked for, and not begun."""


@pytest.fixture
def asked(tmp_path, monkeypatch):
    """Finds a ticket of ResNet-20, and returns what was asked of the search."""

    def stop(build, **arguments):
        raise Asked(build(), arguments)

    def ask(*options, colours=3):
        x = np.zeros((20, 8, 8, colours), "float32")
        y = np.arange(20) % 2
        np.savez("data.npz", x_train=x, y_train=y, x_test=x, y_test=y)
        monkeypatch.setattr(find, "LotteryTicketSearch", stop)
        monkeypatch.setattr(find.models, "build", lambda _, recipe, *a, **b: recipe)
        with pytest.raises(Asked) as caught:
            cli.find(["--data", "data.npz", "--model", "resnet_20", *options])
        recipe, arguments = caught.value.args
        return recipe.augment, arguments["allocation"]

    return ask


LEFT = ("shortcut_*", "output")


def test_what_the_paper_leaves_alone_is_left_alone(asked, capsys):
    assert asked() == (True, Global(LEFT))
    said = capsys.readouterr().out
    assert "Not pruned, as in the model's paper: shortcut_*, output\n" in said
    assert "crops and flips" in said
    # Grey images are not those of the recipe.
    quietly = asked("--allocation", "erk", "--verbose", "0", colours=1)
    assert quietly == (False, ErdosRenyi(exclude=LEFT))
    assert capsys.readouterr().out == ""
    augments, allocation = asked("--no-augment", "--allocation", "layerwise")
    assert not augments
    assert allocation.exclude == LEFT
    # Filters are tied by the shortcuts.
    assert asked("--granularity", "filter")[1] is None
    assert asked("--granularity", "dense*=2:4,*=block_1x4")[1] == Global(LEFT)
    filters = asked("--granularity", "filter", "--allocation", "layerwise")[1]
    assert not filters.rates
    assert not filters.exclude


@pytest.mark.tensorflow
@pytest.mark.slow
def test_find_ends_with_the_exports_and_resumes(tmp_path, capsys):
    arguments = [*QUICK, "--quantize", "int8", "--controls", "none"]
    assert cli.find(arguments) == 0
    folder = tmp_path / "saved_models" / "digits_lenet_300_100"
    reports = json.loads((folder / "reports.json").read_text())
    assert [report["format"] for report in reports["exports"]] == [
        "keras",
        "saved_model",
        "litert",
    ]
    assert reports["density"] == pytest.approx(0.5, abs=1e-4)
    for name in ("ticket.keras", "saved_model", "ticket.tflite"):
        kl.export.check_file(folder / name)
    tflite = reports["exports"][2]
    assert tflite["bytes"] == (folder / "ticket.tflite").stat().st_size
    assert tflite["accuracy"] is not None

    run = tmp_path / "runs" / "digits_lenet_300_100"
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*.safetensors")}
    assert cli.main(["find", *arguments, "--export", "none"]) == 0
    assert len(before) == 3
    assert before == {path: path.stat().st_mtime_ns for path in before}
    capsys.readouterr()
    assert cli.find([*arguments, "--export", "none", "--seed", "1"]) == 2
    assert "seed: 0 there, 1 here" in capsys.readouterr().err
    again = [*arguments, "--export", "none", "--seed", "1", "--overwrite"]
    assert cli.find([*again, "--verbose", "1", "--margin", "2.5"]) == 0
    # The same sentence everywhere, and true to the table.
    *_, sentence = capsys.readouterr().out.splitlines()
    best = Run.load(run).best()
    assert sentence == str(best) == (run / "table.txt").read_text().splitlines()[-1]
    assert best.margin == 0.025 and "with a margin of 2.5 pp" in sentence
    assert sentence in html.unescape(write_report(run).read_text())
    assert json.loads((run / "run.json").read_text())["command"] == (
        "keras-lottery find " + " ".join([*again, "--verbose", "1", "--margin", "2.5"])
    )


def test_what_tensorflow_writes_is_refused_without_it(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    assert cli.find([*QUICK, "--export", "keras,litert"]) == 2
    assert "--export" in capsys.readouterr().err
    assert find._exports(None) == ["keras"]


def test_what_is_not_installed_is_refused_before_the_search(monkeypatch, capsys):
    monkeypatch.setattr(other_runtimes.importlib.util, "find_spec", lambda name: None)
    for form in ("onnx", "openvino"):
        assert cli.find([*QUICK, "--export", f"keras,{form}"]) == 2
        message = capsys.readouterr().err
        assert f"keras_lottery[{form}]" in message and message.count("\n") == 1
    assert not Path("runs").exists()


def test_formats_are_exported_to_places_that_were_checked(tmp_path, monkeypatch):
    seen = {}

    def write(ticket, path, **how):
        path.mkdir()  # The next search may not write there.
        seen[path.name] = how
        return SimpleNamespace(to_dict=dict)

    for form in find.EXPORTS:
        monkeypatch.setattr(find.export, f"to_{form}", write)
    ticket = SimpleNamespace(card={"level": 1}, masks=SimpleNamespace(density=0.5))
    store = SimpleNamespace(exports=tmp_path / "reports")
    splits = SimpleNamespace(x_train=np.ones((900, 2)), test=None)
    options = argparse.Namespace(export=[*find.EXPORTS], quantize="int8")
    find._export(ticket, store, splits, tmp_path, options)
    assert seen.keys() == set(find.EXPORTS.values())
    for form, name in find.EXPORTS.items():
        (tmp_path / name / "mine").touch()
        with pytest.raises(ValueError, match=name):
            find._check_places(tmp_path, [form])
    # The first rows of data that are sorted are of one class.
    assert seen["ticket.tflite"]["representative_data"] is splits.x_train


def test_the_table_shows_every_level_and_variant():
    rows = pd.DataFrame(
        {
            "level": [0, 0, 1, 1, 1, 1],
            "variant": ["ticket", "ticket", "ticket", "ticket", "reinit", "reinit"],
            "replicate": [0, 1] * 3,
            "sparsity": [0.0, 0.0, 0.5, 0.5, 0.5, 0.5],
            "density": [1.0, 1.0, 0.5, 0.5, 0.5, 0.5],
            "early_stop_val_accuracy": [0.8, 0.8, 0.81, 0.79, 0.7, 0.7],
            "early_stop_test_accuracy": [0.9, 0.92, 0.95, 0.97, 0.8, 0.8],
            "early_stop_step": [100, 200, 1000, 1500, 190, 190],
            "start_step": [0, 0, 0, 0, 100, 100],
        }
    )
    table, _, below = find.level_table(rows, verdict(rows)).partition("\n\n")
    _, dense, sparse = table.splitlines()[-3:]
    assert dense.split()[3] == "dense" and dense.endswith("91.00 ± 1.41 %         150")
    for words in ("undecided", "+0.00", "80.00 ± 1.41 %", "80.00 ± 0.00 %", "90"):
        assert words in sparse
    assert "96.00 ± 1.41 %       1,250" in sparse
    assert "reinit: the same masks, new weights drawn" in " ".join(below.split())
