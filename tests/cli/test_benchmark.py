"""`keras-lottery benchmark`."""

import json

import keras
import numpy as np
import pytest

import keras_lottery as kl
from keras_lottery import cli

pytestmark = pytest.mark.once


@pytest.mark.tensorflow
def test_files_are_measured_shown_and_stored(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    x, y = rng.random((30, 8, 8, 1), dtype="float32"), rng.integers(0, 3, 30)
    np.savez("data.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    model = kl.models.lenet_300_100((8, 8, 1), classes=3, seed=0)
    kl.export.to_litert(model, "a.tflite")
    kl.export.to_litert(model, "b.tflite", quantize="dynamic")
    capsys.readouterr()
    files = ["benchmark", "a.tflite", "b.tflite", "--rounds", "2", "--seconds", "0.02"]
    options = ["--data", "data.npz", "--json", "table.json", "--plot", "table.png"]
    assert cli.main([*files, *options, "--threads", "2", "--no-xnnpack"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("file")
    assert "a.tflite, b.tflite: " in shown and "XNNPACK" not in shown
    rows = json.loads((tmp_path / "table.json").read_text())
    assert [row["file"] for row in rows] == ["a.tflite", "b.tflite"]
    assert rows[0]["accuracy"] == np.mean(np.asarray(model(x)).argmax(-1) == y)
    assert (tmp_path / "table.png").stat().st_size
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(loss=loss, metrics=["accuracy"])
    model.save("model.keras")
    options[3] = "loss.json"
    options += ["--model", "model.keras", "--objective", "val_loss"]
    assert cli.main(["benchmark", "a.tflite", *files[3:], *options]) == 0
    assert "loss" in capsys.readouterr().out.splitlines()[0].split()
    (row,) = json.loads((tmp_path / "loss.json").read_text())
    assert row["loss"] == pytest.approx(model.evaluate(x, y, verbose=0)[0], rel=1e-4)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "FILE"),
        (["missing.tflite"], "missing.tflite"),
        # Before data are loaded.
        (["missing.tflite", "--data", "missing.npz"], "missing.tflite"),
        (["missing.tflite", "--plot", "table.txt"], "table.txt"),
        (["missing.tflite", "--threads", "0"], "at least 1"),
        (["missing.tflite", "--model", "missing.keras"], "missing.keras"),
        (["missing.tflite", "--objective", ""], "--objective"),
    ],
)
def test_a_bad_value_is_named_in_one_line(capsys, arguments, words):
    try:
        code = cli.main(["benchmark", *arguments])
    except SystemExit as exit:
        code = exit.code
    assert code == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert words in message
