"""`kl.shrink` and `keras-lottery prune`: any Keras model, pruned, as its best file."""

import json
import sys

import keras
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from keras import layers as L

import keras_lottery as kl
from keras_lottery import cli
from keras_lottery.files import read_sealed
from keras_lottery.ship.deploy import deployment
from keras_lottery.ship.deploy.candidates import WAYS
from keras_lottery.ship.deploy.granularity import for_target
from keras_lottery.ship.deploy.losses import compiled
from keras_lottery.ship.deploy.material import Material, material
from keras_lottery.ship.deploy.shrink import shrink
from keras_lottery.ship.export import other_runtimes

pytestmark = [pytest.mark.once, pytest.mark.tensorflow]

RNG = np.random.default_rng(0)
X = RNG.random((60, 8, 8, 1), dtype="float32")
Y = RNG.integers(0, 3, 60)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Dense float32 files alone, which are not timed."""

    def measured(files, quality=None, threads=1, seconds=1.0):
        rows = [
            {"bytes": file.stat().st_size, "gzip_bytes": 1, "p50_us": 1.0 + i}
            for i, file in enumerate(files)
        ]
        table = pd.DataFrame(rows).assign(file="", operators="")
        if quality is not None:
            worth = [quality.measure(file) for file in files]
            table[quality.objective.metric] = worth
        return table

    monkeypatch.setattr(deployment, "measured", measured)
    for target, ways in WAYS.items():
        monkeypatch.setitem(WAYS, target, {"float32": ways["float32"]})


@pytest.fixture(scope="module")
def net():
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((8, 8, 1)), L.Flatten(), L.Dense(16, "relu"), L.Dense(3)]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, metrics=["accuracy"])
    return model


@pytest.fixture(scope="module")
def folder(net, tmp_path_factory):
    """A compiled model, one that is not, and data."""
    folder = tmp_path_factory.mktemp("prune")
    net.save(folder / "net.keras")
    plain = keras.Sequential([keras.Input((4,)), L.Dense(2, name="out")])
    plain.save(folder / "plain.keras")
    np.savez(folder / "data.npz", x_train=X, y_train=Y)
    np.savez(folder / "x.npz", x=X)
    np.savez(folder / "flat.npz", x_train=X.reshape(60, -1), y_train=Y)
    np.savez(folder / "y.npz", y_train=Y)
    (folder / "broken.keras").write_bytes(b"PK no model")
    (folder / "data.txt").write_text("no model")
    return folder


def test_a_model_is_pruned_while_it_is_fine_tuned(net, tmp_path):
    before = net.get_weights()
    said = []
    result = shrink(
        net, 0.75, (X, Y), epochs=1, tolerance=1.0, directory=tmp_path, say=said.append
    )
    card = read_sealed(result.card)
    assert said[0].startswith("granularity block_1x4: LiteRT runs dense layers")
    assert result.file == tmp_path / "mobile.tflite" and result.file.exists()
    assert card["made"]["sparsity"] == pytest.approx(0.75, abs=0.01)
    assert card["made"]["steps"] == ["to_litert(sparse=False)"]  # The faster, so faked.
    made = [row["file"] for row in card["tried"]]
    assert made == ["dense_float32.tflite", "pruned_float32.tflite"]
    assert card["rule"].startswith("least latency within 100 pp")
    assert {"accuracy", "validation_accuracy"} <= {*result.table}
    pruned = keras.saving.load_model(tmp_path / "pruned.keras")
    assert kl.get_sparsity(pruned) == card["made"]["sparsity"]
    assert kl.export.check_file(result.file) is None
    for one, other in zip(before, net.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_without_targets_it_is_pruned_at_once_by_inputs_and_repaired(net, tmp_path):
    with pytest.warns(UserWarning, match="at once and not fine-tuned"):
        result = shrink(
            net,
            0.5,
            X,
            "microcontroller",
            criterion="wanda",
            repair="sparsegpt",
            directory=tmp_path,
        )
    made = read_sealed(result.card)["made"]
    assert made["granularity"] == "weight"
    assert made["steps"][0] == (
        "prune(0.5, 'wanda', granularity='weight', repair=SparseGPT)"
    )
    # The dense one is the fastest, as faked, and never chosen.
    chosen = result.table.loc[result.table["chosen"], "file"].item()
    assert chosen.startswith("pruned")
    assert "accuracy" not in result.table
    assert "accuracy" not in str(result)
    assert "AddFullyConnected" in (tmp_path / "microcontroller.h").read_text()


def test_several_outputs_by_the_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    inputs = keras.Input((4,))
    hidden = L.Dense(8, "relu")(inputs)
    ends = {
        "age": L.Dense(1, name="age")(hidden),
        "sex": L.Dense(2, name="sex")(hidden),
    }
    model = keras.Model(inputs, ends)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", {"age": "mse", "sex": loss}, metrics={"age": ["mae"]})
    model.save("two.keras")
    targets = {"y_train/age": RNG.random((40, 1)), "y_train/sex": Y[:40] % 2}
    np.savez("two.npz", x_train=RNG.random((40, 4), dtype="float32"), **targets)
    arguments = "prune two.keras --data two.npz --epochs 1 --out out --verbose 0"
    arguments += " --granularity weight --sparsity 0.5"
    assert cli.main(arguments.split()) == 0
    shown = capsys.readouterr().out
    assert "age mae" in shown and "out/mobile.tflite" in shown
    card = json.loads((tmp_path / "out/mobile.json").read_text())
    assert card["data"] == "two.npz"


@pytest.mark.parametrize(
    ("target", "runtime", "name"),
    [("onnx", "onnxruntime", "onnx.onnx"), ("openvino", "openvino", "openvino")],
)
def test_files_for_other_runtimes(net, tmp_path, target, runtime, name):
    pytest.importorskip(runtime)
    result = shrink(net, 0.5, (X, Y), target, epochs=0, directory=tmp_path)
    assert result.file == tmp_path / name
    assert kl.export.check_file(result.file) is None
    assert not result.failed and len(result.table) == 3  # With a compacted one.
    card = read_sealed(result.card)
    assert runtime in card["versions"]
    assert card["report"]["max_difference"] < 1e-5


def test_a_target_without_its_runtime_is_refused_first(net, tmp_path, monkeypatch):
    monkeypatch.setattr(other_runtimes.importlib.util, "find_spec", lambda name: None)
    for target in ("onnx", "openvino"):
        message = rf"target='{target}' needs .*keras_lottery\[{target}\]"
        with pytest.raises(ImportError, match=message):
            shrink(net, 0.5, target=target, directory=tmp_path / "new")
    assert not list(tmp_path.iterdir())


def layered(*inside, shape=(8, 8, 3)):
    return keras.Sequential([keras.Input(shape), *inside])


def test_granularities_follow_the_target():
    dense = layered(L.Flatten(), L.Dense(8))
    conv = layered(L.Conv2D(8, 3), L.GlobalAveragePooling2D(), L.Dense(2))
    phone = layered(
        L.ZeroPadding2D(1),
        L.Conv2D(4, 3, 2),
        L.Conv2D(64, 1),
        L.GlobalAveragePooling2D(),
    )
    found = [for_target(model, "mobile") for model in (dense, conv, phone)]
    assert [each.granularity for each in found] == ["block_1x4", "filter", "weight"]
    assert found[2].prunable == "xnnpack"
    misses = layered(L.Conv2D(64, 1), L.GlobalAveragePooling2D())
    assert "adapt_for_xnnpack" in for_target(misses, "mobile").why
    assert "adapt_for_xnnpack" not in found[1].why
    assert for_target(conv, "mobile", filters=False).granularity == "weight"
    for target in WAYS.keys() - {"mobile"}:
        assert for_target(dense, target).granularity == "filter"
        assert for_target(phone, target).granularity == "filter"


@given(st.integers(10, 60), st.sets(st.sampled_from(["validation", "test"])))
def test_what_is_lacking_is_held_out(rows, given_parts):
    x, y = np.arange(rows), np.arange(rows)
    if given_parts:
        other = -np.arange(1, 4)
        parts = {n: (other, other) for n in given_parts}
        missing = (None, None)
        splits = [parts.get(n, missing) for n in ("validation", "test")]
        if len(given_parts) < 2:
            return  # `Splits` has all of them.
        found = material(kl.data.Splits("mine", x, y, *splits[0], *splits[1]))
        assert len(found.train[0]) == rows
        return
    found = material((x, {"a": y}))
    held = [found.train, found.validation, found.test]
    assert sorted(np.concatenate([part[0] for part in held])) == list(range(rows))
    assert len(found.test[0]) == len(found.validation[0]) == max(1, round(rows / 10))
    for one, other in held:
        np.testing.assert_array_equal(one, other["a"])


def test_data_of_a_file_under_names(tmp_path):
    arrays = {"x_train/a": X, "x_train/b": X, "y_train/c": Y, "x_test/a": X}
    arrays |= {"x_test/b": X, "y_test/c": Y}
    np.savez(tmp_path / "named.npz", **arrays)
    found = material(tmp_path / "named.npz")
    assert sorted(found.train[0]) == ["a", "b"] and list(found.train[1]) == ["c"]
    assert len(found.train[0]["a"]) == 54 and len(found.test[1]["c"]) == 60
    inputs = material(X)
    assert inputs.train is None and inputs.examples is X


def test_whether_a_cross_entropy_is_of_logits_is_seen():
    parts = Material(train=(X, Y))
    plain = layered(L.Flatten(), L.Dense(3), shape=(8, 8, 1))
    found = compiled(plain, "sparse_categorical_crossentropy", parts)
    assert found.loss.get_config()["from_logits"]
    assert not plain.compiled
    shares = keras.Sequential(
        [keras.Input((8, 8, 1)), L.Flatten(), L.Dense(3, "softmax")]
    )
    found = compiled(shares, "sparse_categorical_crossentropy", parts)
    assert not found.loss.get_config()["from_logits"]
    assert compiled(shares, "mse", parts).loss == "mse"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("data.txt", "expected an existing .keras file"),
        ("none.keras", "expected an existing .keras file"),
        ("broken.keras", "Expected a .keras file that Keras can load"),
        ("net.keras --data none.npz", "There is no file 'none.npz'"),
        ("net.keras --data flat.npz", "Expected `data` to hold"),
        ("net.keras --data y.npz", "with inputs x_train"),
        ("net.keras --data data.npz --loss hing", "Did you mean 'hinge'"),
        ("plain.keras --data data.npz", "pass the `loss`"),
        ("net.keras --tolerance 1", "There is nothing to measure it on"),
        ("net.keras --import no_such_module", "No module named"),
        ("net.keras --sparsity 2", "above 0"),
        ("net.keras --granularity 9", "granularity"),
        ("net.keras --data data.npz --objective val_auc", "one of the model's metrics"),
    ],
)
def test_what_is_wrong_is_one_line(folder, monkeypatch, capsys, arguments, words):
    monkeypatch.chdir(folder)
    try:
        status = cli.main(f"prune {arguments} --verbose 0 --epochs 0".split())
    except SystemExit as error:
        status = error.code
    assert status == 2
    said = capsys.readouterr().err.strip()
    assert words in said
    assert len(said.splitlines()) == 1
    assert not (folder / "shrunk").exists()


def test_modules_of_the_users_own_are_imported(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own_layers_of_mine.py").write_text(
        "import keras\n"
        "@keras.saving.register_keras_serializable()\n"
        "class Twice(keras.layers.Layer):\n"
        "    def call(self, x):\n"
        "        return 2 * x\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    from own_layers_of_mine import Twice

    keras.Sequential([keras.Input((4,)), Twice(), L.Dense(2)]).save("own.keras")
    key = keras.saving.get_registered_name(Twice)
    keras.saving.get_custom_objects().pop(key, None)
    sys.modules.pop("own_layers_of_mine")
    arguments = "prune own.keras --import own_layers_of_mine --out o --verbose 0"
    with pytest.warns(UserWarning, match="at once"):
        assert cli.main(arguments.split()) == 0
    assert (tmp_path / "o/mobile.json").exists()
