"""`keras-lottery deploy`: from a run to the file that ships."""

import dataclasses
import hashlib
import json
import shutil
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import keras_lottery as kl
from keras_lottery import cli
from keras_lottery.engines.objective import ACCURACY
from keras_lottery.files import read_sealed, write_sealed
from keras_lottery.search.best import best_of
from keras_lottery.ship.deploy import candidates, deployment, tickets
from keras_lottery.ship.deploy.candidates import WAYS
from keras_lottery.ship.deploy.choose import PREFER, choose, pareto, tickets_to_try
from keras_lottery.ship.deploy.quality import accuracy_of
from keras_lottery.ship.deploy.tickets import deploy
from keras_lottery.ship.export import ExportError, ExportReport

# Files are measured in processes of their own.
pytestmark = [pytest.mark.once, pytest.mark.slow]

FIND = [
    *("find", "--data", "data.npz", "--levels", "1", "--rate", "0.7"),
    *("--steps", "40", "--batch-size", "20", "--replicates", "1"),
    *("--controls", "none", "--granularity", "filter", "--verbose", "0"),
    *("--export", "none", "--directory", "runs/tiny", "--workers", "0"),
]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A folder with a data set that can be learned, and a run of `find` on it."""
    folder = tmp_path_factory.mktemp("deploy")
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 160).astype("int32")
    x = rng.random((160, 8, 8, 1), dtype="float32") + y[:, None, None, None] / 2
    parts = {"x_train": x[:100], "y_train": y[:100]}
    parts |= {"x_validation": x[100:130], "y_validation": y[100:130]}
    np.savez(folder / "data.npz", **parts, x_test=x[130:], y_test=y[130:])
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert cli.main(FIND) == 0
    return folder


@pytest.mark.tensorflow
def test_the_best_file_is_written_with_its_card(run, monkeypatch, capsys):
    monkeypatch.chdir(run)
    arguments = ["deploy", "runs/tiny", "--target", "mobile", "--margin", "5"]
    arguments += ["--seconds", "0.02"]
    ways = {way: WAYS["mobile"][way] for way in ("float32", "sparse", "int8")}
    monkeypatch.setitem(WAYS, "mobile", ways)
    assert cli.main(arguments) == 0
    shown, said = capsys.readouterr()
    card = json.loads((run / "saved_models/tiny/mobile.json").read_text())
    tried = {row["file"]: row for row in card["tried"]}
    # Removed filters are gone in the compact form alone.
    assert tried["level_01_compact_float32.tflite"]["bytes"] < (
        0.5 * tried["level_01_float32.tflite"]["bytes"]
    )
    assert {"dense_int8.tflite", "level_01_compact_int8.tflite"} <= tried.keys()
    assert not any(name.startswith("dense_sparse") for name in tried)
    assert "no zeros" in card["failed"]["dense_sparse"]

    # The rule, on the numbers that were measured.
    best = max(row["validation_accuracy"] for row in card["tried"])
    good = [r for r in card["tried"] if r["validation_accuracy"] >= best - 0.05]
    chosen = card["measured"]
    assert chosen["p50_us"] == min(row["p50_us"] for row in good)
    assert chosen["chosen"] and chosen["pareto"]

    # What is measured is on the file that lies there.
    file = run / "saved_models/tiny" / card["file"]
    assert file.stat().st_size == chosen["bytes"] == card["report"]["bytes"]
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert card["report"]["sha256"] == {"mobile.tflite": digest}
    kl.export.check_file(file)
    data = kl.data.load(run / "data.npz")
    measured = chosen["accuracy"], chosen["validation_accuracy"]
    parts = data.test, data.validation
    assert [accuracy_of(file, *p) for p in parts] == pytest.approx(measured)
    assert card["versions"].keys() >= {"keras", "tensorflow", "ai-edge-litert"}
    assert card["made"]["level"] == chosen["level"]
    assert chosen["file"] in shown and "dense_float32" in said
    assert sorted(p.name for p in file.parent.iterdir()) == [
        "mobile.json",
        "mobile.tflite",
    ]

    # The command in the card asks for the same.
    asked = []
    monkeypatch.setattr(
        cli.deploy_command, "deploy", lambda *args, say, **kw: asked.append((args, kw))
    )
    assert cli.main(card["command"].split()[1:]) == 0
    (((path, target, source), options),) = asked
    assert (str(path), target) == ("runs/tiny", "mobile")
    assert source == str(run / "data.npz")
    assert options["margin"] == 0.05 and options["prefer"] == "latency"


def of_a_microsecond(files, quality, **options):
    """Stands for `measured`, which starts TensorFlow for each SavedModel."""
    sizes = [sum(p.stat().st_size for p in f.rglob("*") if p.is_file()) for f in files]
    columns = {"bytes": sizes, "gzip_bytes": sizes, "p50_us": 1.0}
    columns |= {"operators": "", quality.objective.metric: 1.0}
    return pd.DataFrame({"file": files, **columns})


@pytest.mark.tensorflow
def test_a_server_gets_a_saved_model(run, tmp_path, monkeypatch):
    monkeypatch.setattr(tickets, "tickets_to_try", lambda *_: [(1, 0)])
    monkeypatch.setattr(deployment, "measured", of_a_microsecond)
    result = deploy(run / "runs/tiny", "server", directory=tmp_path, prefer="size")
    names = set(result.table["file"])
    assert names == {
        *("level_01_float32", "level_01_int8"),
        *("level_01_compact_float32", "level_01_compact_int8"),
    }
    assert result.file == tmp_path / "tiny" / "server"
    assert (result.file / "saved_model.pb").exists()
    sizes = result.table.set_index("file")["bytes"]
    assert sizes["level_01_int8"] < 0.5 * sizes["level_01_float32"]
    assert str(result).splitlines()[0].split()[0] == "file"
    digests = json.loads(result.card.read_text())["report"]["sha256"]
    graph = (result.file / "saved_model.pb").read_bytes()
    assert digests["server/saved_model.pb"] == hashlib.sha256(graph).hexdigest()


@pytest.fixture
def one_file(monkeypatch):
    """Tries one file of one ticket, whose latency is not measured."""
    monkeypatch.setattr(tickets, "tickets_to_try", lambda *_: [(1, 0)])
    monkeypatch.setattr(deployment, "measured", of_a_microsecond)
    monkeypatch.setitem(WAYS, "mobile", {"dynamic": WAYS["mobile"]["dynamic"]})


@pytest.mark.tensorflow
def test_runs_of_functions_of_ones_own_are_deployed(run, tmp_path, one_file):
    """The functions are not stored, and their names are not known here."""
    shutil.copytree(run / "runs/tiny", tmp_path / "own")
    path = tmp_path / "own" / "settings.json"
    own = {"criterion": "thesis.worth", "controls": {"thesis": 1}}
    own["rewind"] = {"class": "Rewind", "ticket": "thesis.start", "finder": None}
    write_sealed(path, read_sealed(path) | own)
    assert len(kl.LotteryTicketSearch.load(tmp_path / "own").results())
    # That of the control, which has another name now.
    with pytest.warns(UserWarning, match="1 of 3 trainings is missing"):
        result = deploy(tmp_path / "own", directory=tmp_path)
    measured = result.table.loc[result.table["chosen"], "validation_accuracy"].item()
    validation = kl.data.load(run / "data.npz").validation
    assert accuracy_of(result.file, *validation) == pytest.approx(measured)


@pytest.mark.tensorflow
def test_a_classifier_of_two_classes_with_one_logit(tmp_path, one_file):
    def build():
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
        loss = keras.losses.BinaryCrossentropy(from_logits=True)
        metric = keras.metrics.BinaryAccuracy("accuracy", threshold=0.0)
        model.compile("adam", loss, metrics=[metric])
        return model

    x = np.random.default_rng(0).normal(size=(60, 4)).astype("float32")
    y = (x[:, 0] > 0.5).astype("int32")
    parts = x[:40], y[:40], x[40:], y[40:], x[40:], y[40:]
    splits = kl.data.Splits("two", *parts, input_shape=(4,), classes=2)
    search = kl.LotteryTicketSearch(
        build, schedule=[0.5], controls={}, replicates=1, directory=tmp_path / "run"
    )
    search.search(
        *splits.train,
        validation_data=splits.validation,
        test_data=splits.test,
        epochs=2,
        verbose=0,
    )
    wrong = dataclasses.replace(splits, y_validation=splits.y_validation[:9])
    with pytest.raises(ValueError, match=r"`data` \(x, y\).* shapes \[\(9,\)\]"):
        deploy(tmp_path / "run", data=wrong, directory=tmp_path)
    wide = dataclasses.replace(splits, y_validation=splits.y_validation[:, None])
    result = deploy(tmp_path / "run", data=wide, directory=tmp_path)
    model = search.ticket(1).trained_model()
    expected = np.mean((np.asarray(model(x[40:]))[:, 0] > 0) == y[40:])
    (accuracy,) = result.table["validation_accuracy"]
    # The weights of the file are of eight bits.
    assert abs(accuracy - expected) <= 1 / 20


def lines(kind):
    """A regression, or a binary classifier compared by its AUC; and its data."""
    loss, metric, last = {
        "mae": ("mse", "mae", None),
        "auc": ("bce", "auc", "sigmoid"),
    }[kind]
    steps = keras.layers.Dense(8, "relu"), keras.layers.Dense(1, last)
    model = keras.Sequential([keras.Input((6,)), *steps])
    model.compile(keras.optimizers.Adam(0.01), loss, metrics=[metric])
    x = np.random.default_rng(0).normal(size=(160, 6)).astype("float32")
    y = x @ np.arange(6, dtype="float32")
    y = y if kind == "mae" else (y > 0).astype("int64")
    parts = x[:100], y[:100], x[100:130], y[100:130], x[130:], y[130:]
    return model, kl.data.Splits("lines", *parts)


@pytest.mark.tensorflow
@pytest.mark.parametrize("kind", ["mae", "auc"])
def test_files_are_compared_by_the_objective_of_the_search(
    kind, tmp_path, monkeypatch, capsys
):
    """The command line takes an .npz file of whatever the search was given."""
    monkeypatch.chdir(tmp_path)
    model, splits = lines(kind)
    search = kl.LotteryTicketSearch(
        model,
        [0.5],
        objective=f"val_{kind}",
        controls={},
        replicates=1,
        directory="run",
        workers=0,
    )
    search.search(
        *splits.train,
        validation_data=splits.validation,
        test_data=splits.test,
        epochs=2,
        verbose=0,
    )
    parts = {"train": splits.train, "validation": splits.validation}
    parts["test"] = splits.test
    arrays = {
        f"{v}_{n}": a for n, p in parts.items() for v, a in zip("xy", p, strict=True)
    }
    np.savez("lines.npz", **arrays)
    monkeypatch.setattr(deployment, "measured", of_a_microsecond)
    monkeypatch.setitem(WAYS, "mobile", {"float32": WAYS["mobile"]["float32"]})
    capsys.readouterr()
    arguments = ["deploy", "run", "--target", "mobile", "--data", "lines.npz"]
    assert cli.main([*arguments, "--prefer", "size", "--margin", "0.25"]) == 0
    shown, said = capsys.readouterr()
    assert "not those" not in said  # The data are the search's own, as they are.
    assert f"beaten in latency, size, download and {kind} alike" in shown
    card = json.loads(Path("saved_models/run/mobile.json").read_text())
    column = f"validation_{kind}"
    tried = pd.DataFrame(card["tried"])
    worth = tried[column] * (-1 if kind == "mae" else 1)
    good = tried[worth >= worth.max() - 0.25]
    assert card["measured"]["bytes"] == good["bytes"].min()
    assert card["rule"] == f"least size within 0.25 of the best validation {kind}"
    assert "accuracy" not in card["measured"]
    # Each file's value is what Keras says of the model that it was made of.
    for level, name in ((0, "dense_float32.tflite"), (1, "level_01_float32.tflite")):
        trained = search.ticket(level).trained_model()
        trained.compile(model.optimizer, model.loss, metrics=[kind])
        expected = trained.evaluate(*splits.validation, verbose=0, return_dict=True)
        value = tried.loc[tried["file"] == name, column].item()
        assert value == pytest.approx(expected[kind], rel=1e-4)
    with pytest.raises(ValueError, match=r"metrics, .*val_mea"):
        deploy("run", data=splits, objective="val_mea", directory=tmp_path)


@pytest.mark.tensorflow
def test_no_card_tells_of_another_file(run, tmp_path, one_file, monkeypatch):
    card = tmp_path / "tiny" / "mobile.json"
    write_sealed(card, {"file": "an older one"})

    def full(*_):
        raise OSError("no space left")

    monkeypatch.setattr(deployment, "write_sealed", full)
    with pytest.raises(OSError, match="no space"):
        deploy(run / "runs/tiny", directory=tmp_path)
    assert [path.name for path in card.parent.iterdir()] == ["mobile.tflite"]


@pytest.mark.tensorflow
def test_all_training_data_are_handed_over_to_calibrate(run, tmp_path, monkeypatch):
    """The first rows of data that are sorted are of one class."""
    seen = []
    monkeypatch.setattr(tickets, "tickets_to_try", lambda *_: [(1, 0)])
    monkeypatch.setattr(
        tickets, "candidates", lambda *arguments: seen.append(arguments[3]) or []
    )
    with pytest.raises(ExportError, match="No file"):
        deploy(run / "runs/tiny", directory=tmp_path)
    np.testing.assert_array_equal(seen[0], kl.data.load(run / "data.npz").x_train)


def test_a_model_that_compact_refuses_is_tried_as_it_is():
    class Mine(keras.Model):
        def __init__(self):
            super().__init__()
            self.head = keras.layers.Dense(3)

        def call(self, inputs):
            return self.head(inputs)

    model = Mine()
    model(np.ones((1, 4), "float32"))
    failed = {}
    names = [
        each.name
        for each in candidates.candidates("dense", model, "server", None, failed)
    ]
    assert names == ["dense_float32", "dense_int8"]
    assert list(failed) == ["dense_compact"] and failed["dense_compact"]


@pytest.mark.tensorflow
@pytest.mark.parametrize("target", ["mobile", "server"])
def test_compacted_files_are_compared_with_those_of_the_whole_model(target, tmp_path):
    keras.utils.set_random_seed(0)
    steps = keras.layers.Dense(400, "relu"), keras.layers.Dense(3)
    model = kl.mask_model(keras.Sequential([keras.Input((60,)), *steps]))
    kl.prune(model, 0.5, "l1", granularity="filter")
    x, ending = np.ones((8, 60), "float32"), deployment.ENDINGS[target]
    way = {"mobile": "dynamic", "server": "int8"}[target]
    made = {
        each.name: each.write(tmp_path, ending)
        for each in candidates.candidates("level", model, target, x, {})
        if each.name.endswith(way)
    }
    whole, small = made[f"level_{way}"], made[f"level_compact_{way}"]
    # Of the whole model's file, which is as long however many of its weights are zero.
    assert small.dense_bytes == pytest.approx(whole.bytes, rel=0.02)
    assert small.bytes < 0.9 * small.dense_bytes


@pytest.mark.parametrize(
    ("size", "sparsity", "notes", "reason"),
    [
        (200, 0.9, (), None),
        # That of mixed precision tells nothing of the encoding.
        (200, 0.9, ("Computes in float32.",), None),
        (1000, 0.9, ("Not encoded sparsely.",), "Not encoded sparsely. It has 1,000"),
        (1000, 0.9, (), "the dense file 1,000"),
        (1000, 0.0, ("Computes in float32.",), "no zeros"),
    ],
)
def test_a_sparse_file_is_one_that_is_smaller(
    monkeypatch, tmp_path, size, sparsity, notes, reason
):
    report = ExportReport(
        tmp_path, "litert", size, size, 1000, 0.0, "", sparsity, notes=notes
    )
    monkeypatch.setattr(candidates, "to_litert", lambda *_, **options: report)
    if reason is None:
        assert candidates._sparse(None, tmp_path, None) is report
    else:
        with pytest.raises(ExportError, match=reason):
            candidates._sparse(None, tmp_path, None)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["runs/missing", "--target", "mobile"], "runs/missing"),
        (["data.npz", "--target", "mobile"], "directory of a search, with its tickets"),
        (["runs/tiny"], "--target"),
        (["runs/tiny", "--target", "watch"], "watch"),
        (["runs/tiny", "--target", "mobile", "--margin", "-1"], "--margin"),
        (["runs/tiny", "--target", "mobile", "--data", "missing.npz"], "missing.npz"),
    ],
)
def test_a_bad_value_is_named_in_one_line(run, monkeypatch, capsys, arguments, words):
    if keras.backend.backend() != "tensorflow":
        pytest.skip("refused before")
    monkeypatch.chdir(run)
    try:
        code = cli.main(["deploy", *arguments])
    except SystemExit as exit:
        code = exit.code
    assert code == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert words in message


@pytest.mark.tensorflow
def test_the_data_are_those_of_the_run(run, tmp_path):
    with np.load(run / "data.npz") as arrays:
        other = dict(arrays) | {"x_train": arrays["x_train"] + 1}
    np.savez(tmp_path / "other.npz", **other)
    note = run / "runs/tiny/run.json"
    before = note.read_text()
    assert json.loads(before)["data"] == str(run / "data.npz")
    try:
        write_sealed(note, {"data": str(tmp_path / "other.npz")})
        with pytest.raises(ValueError, match="not those"):
            deploy(run / "runs/tiny", directory=tmp_path)
        note.unlink()
        with pytest.raises(ValueError, match="--data"):
            deploy(run / "runs/tiny", directory=tmp_path)
    finally:
        note.write_text(before)


@pytest.mark.tensorflow
def test_what_lies_there_is_not_replaced_by_a_saved_model(run, tmp_path):
    kept = tmp_path / "tiny" / "server" / "thesis.txt"
    kept.parent.mkdir(parents=True)
    kept.write_text("mine")
    with pytest.raises(ValueError, match="SavedModel"):
        deploy(run / "runs/tiny", "server", directory=tmp_path)
    assert kept.read_text() == "mine"


def test_other_backends_are_refused(run, monkeypatch, capsys):
    monkeypatch.setattr("keras.backend.backend", lambda: "jax")
    assert cli.main(["deploy", "runs/tiny", "--target", "mobile"]) == 2
    message = capsys.readouterr().err
    assert "KERAS_BACKEND=tensorflow." in message and message.count("\n") == 1
    with pytest.raises(ValueError, match="TensorFlow"):
        deploy(run / "runs/tiny")


def test_the_best_tickets_and_the_most_accurate_are_tried():
    rows = [(0, 0, 0.95), (1, 0, 0.97), (1, 1, 0.99), (2, 0, 0.96), (3, 0, 0.94)]
    table = pd.DataFrame(rows, columns=["level", "replicate", "accuracy"]).assign(
        variant="ticket",
        sparsity=lambda t: 1 - 0.5 ** t["level"],
        start_step=0,
        early_stop_step=10,
        early_stop_test_accuracy=np.nan,
    )
    table = table.rename(columns={"accuracy": "early_stop_val_accuracy"})

    def tried(*margins):
        best = [best_of(table, margin) for margin in margins]
        return tickets_to_try(table, best, ACCURACY)

    # Of two replicates, the lower one is taken.
    assert tried(0.0) == [(0, 0), (1, 0), (2, 0)]
    assert tried(0.02) == [(0, 0), (1, 0), (3, 0)]
    assert tried(0.0, 0.02) == [(0, 0), (1, 0), (2, 0), (3, 0)]
    table.loc[table["level"] > 0, "early_stop_val_accuracy"] = [0.5, 0.4, 0.3, 0.2]
    assert tried(0.0) == [(0, 0), (1, 1)]


def test_the_choice_is_the_fastest_or_smallest_of_the_accurate():
    table = pd.DataFrame(
        {
            "bytes": [100, 40, 50, 10],
            "gzip_bytes": [20, 30, 30, 10],
            "p50_us": [9.0, 5.0, 4.0, 1.0],
            "validation_accuracy": [0.98, 0.979, 0.979, 0.9],
        }
    )
    assert choose(table, "latency", 0.001) == 2
    assert choose(table, "size", 0.001) == 1
    assert choose(table, "download", 0.001) == 0
    assert choose(table, "latency", 0.0) == 0
    assert choose(table, "latency", 0.1) == 3
    assert list(pareto(table)) == [True, True, True, True]
    table.loc[1, ["bytes", "p50_us"]] = [51, 4.5]
    assert list(pareto(table)) == [True, False, True, True]
    table.loc[1, "gzip_bytes"] = 29
    assert list(pareto(table)) == [True, True, True, True]


@given(
    st.lists(st.tuples(*[st.integers(0, 3)] * 4), min_size=1, max_size=8),
    st.sampled_from(list(PREFER)),
    st.integers(0, 3),
)
def test_no_file_beats_the_chosen_one(rows, prefer, margin):
    for objective in (ACCURACY, kl.Objective("val_mae", "min")):
        columns = [*PREFER.values(), f"validation_{objective.metric}"]
        table = pd.DataFrame(rows, columns=columns)
        row = choose(table, prefer, margin, objective)
        assert pareto(table, objective)[row]
        worth = objective.gain(table[columns[-1]], 0)
        assert worth[row] >= worth.max() - margin
