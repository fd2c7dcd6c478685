"""`benchmark`: files measured one beside the other."""

import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import layers

import keras_lottery as kl
from keras_lottery.ship.deploy import accuracy, benchmark, measure, plot_files
from keras_lottery.ship.deploy.accuracy import accuracy_of
from keras_lottery.ship.deploy.show import as_records, as_text
from keras_lottery.ship.export import ExportError
from keras_lottery.ship.export.data import threshold_of

pytestmark = pytest.mark.tensorflow

QUICK = {"rounds": 2, "seconds": 0.04}
NAMES = ["dense.tflite", "blocks.tflite", "dynamic.tflite", "saved_model"]


@pytest.fixture(scope="module")
def table(files, images):
    return benchmark([files / name for name in NAMES], images, **QUICK)


def test_bytes_are_those_on_disk(table, files):
    for _, row in table.iterrows():
        path = files / row["file"]
        parts = [p for p in path.rglob("*") if p.is_file()] or [path]
        assert row["bytes"] == sum(part.stat().st_size for part in parts)
        assert 0 < row["gzip_bytes"] < row["bytes"]
    assert list(table["format"]) == ["litert"] * 3 + ["saved_model"]


def test_latencies_are_timed_one_by_one(table):
    assert (table["p50_us"] > 0).all()
    assert (table["p90_us"] >= table["p50_us"]).all()
    assert (table["spread"] >= 0).all()
    # The time that each file is given, at the least number of calls.
    assert (table["calls"] >= 2 * measure.FEWEST_CALLS).all()
    # A call of a SavedModel from Python takes more than these files take to run.
    assert table["p50_us"][3] > table["p50_us"][:3].max()


def test_operators_are_those_that_ran(table, files):
    dense, blocks, dynamic, saved_model = table["operators"]
    assert dense == dynamic
    assert dense.endswith("XNNPACK(2 FULLY_CONNECTED)")
    assert "sparse FULLY_CONNECTED" in blocks
    assert saved_model == ""
    (plain,) = benchmark([files / NAMES[0]], xnnpack=False, **QUICK)["operators"]
    assert plain.endswith("RESHAPE, 2 FULLY_CONNECTED")


def test_scattered_zeros_are_unpacked_and_the_table_says_so(net, tmp_path):
    model = kl.mask_model(net)
    kl.prune(model, 0.9)
    report = kl.export.to_litert(model, tmp_path / "scattered.tflite")
    assert report.notes == ()
    (operators,) = benchmark([report.path], **QUICK)["operators"]
    assert "DENSIFY" in operators and "sparse" not in operators


def test_accuracies_are_those_of_the_files(table, net, blocks, images):
    x, y = images
    dense = np.mean(np.asarray(net(x)).argmax(-1) == y)
    assert table["accuracy"][0] == table["accuracy"][3] == dense
    assert table["accuracy"][1] == np.mean(np.asarray(blocks(x)).argmax(-1) == y)


def test_memory_is_that_of_the_file_alone(tmp_path):
    """Sixteen megabytes of weights are seen as such."""
    inputs = keras.Input((2048,))
    model = keras.Model(inputs, layers.Dense(2048)(inputs))
    report = kl.export.to_litert(model, tmp_path / "wide.tflite", sparse=False)
    small = kl.export.to_litert(
        keras.Sequential([keras.Input((8,)), layers.Dense(2)]),
        tmp_path / "small.tflite",
    )
    wide, small = benchmark([report.path, small.path], **QUICK)["memory"]
    if np.isnan(wide):
        pytest.skip("this system does not tell")
    assert 2**24 < wide - small < 4 * 2**24


def test_sizes_that_a_file_leaves_open_are_the_datas(tmp_path):
    inputs = keras.Input((None, None, 1))
    hidden = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3)(inputs))
    model = keras.Model(inputs, layers.Dense(3)(hidden))
    report = kl.export.to_litert(model, tmp_path / "open.tflite")
    x = np.random.default_rng(0).random((10, 9, 7, 1), dtype="float32")
    y = np.asarray(model(x)).argmax(-1)
    (row,) = as_records(benchmark([report.path], (x, y), **QUICK))
    assert row["accuracy"] == 1.0
    assert benchmark([report.path], **QUICK)["p50_us"][0] > 0


def test_files_that_take_integers_get_them_by_their_scale(net, images, tmp_path):
    """Files of other makers have inputs of eight bits."""
    import tensorflow as tf

    x, _ = images
    net.export(tmp_path / "model", verbose=False)
    converter = tf.lite.TFLiteConverter.from_saved_model(str(tmp_path / "model"))
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([row[None]] for row in x)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    path = tmp_path / "int8.tflite"
    path.write_bytes(converter.convert())
    assert accuracy_of(path, x, np.asarray(net(x)).argmax(-1)) > 0.9


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"files": []}, ValueError, "at least one"),
        ({"files": ["missing.tflite"]}, FileNotFoundError, "missing.tflite"),
        ({"files": [__file__]}, ValueError, "SavedModels"),
        ({"files": ["."]}, ValueError, "SavedModels"),
        ({"threads": 0}, ValueError, "threads=0"),
        ({"seconds": 0}, ValueError, "seconds=0"),
        ({"data": np.ones(3)}, ValueError, "ndarray"),
        ({"data": (np.ones((3, 8)), np.ones(3))}, ValueError, "float64"),
    ],
)
def test_bad_arguments_are_refused(files, change, error, words):
    with pytest.raises(error, match=words):
        benchmark(**({"files": [files / NAMES[0]]} | change))


def test_a_file_that_cannot_run_is_named(tmp_path):
    path = tmp_path / "broken.tflite"
    path.write_bytes(b"no model")
    with pytest.raises(ValueError, match=r"broken\.tflite"):
        benchmark([path], **QUICK)


@pytest.mark.parametrize("logit", [False, True])
def test_one_output_decides_between_two_classes(logit, tmp_path):
    model = keras.Sequential(
        [keras.Input((4,)), layers.Dense(1, None if logit else "sigmoid")]
    )
    model.compile(loss=keras.losses.BinaryCrossentropy(from_logits=logit))
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 4)).astype("float32"), rng.integers(0, 2, 40)
    report = kl.export.to_litert(model, tmp_path / "one.tflite", test_data=(x, y))
    threshold = threshold_of(model)
    assert report.accuracy == accuracy_of(report.path, x, y, threshold=threshold)
    assert 0 < report.accuracy < 1
    if logit:
        with pytest.raises(ValueError, match="threshold=0 for logits"):
            accuracy_of(report.path, x, y)
    else:
        assert report.accuracy == accuracy_of(report.path, x, y)
    with pytest.raises(ValueError, match=r"each class \(0 to 2\), or one"):
        accuracy_of(report.path, x, y + 1)


def test_files_that_return_nan_are_not_measured(files, tmp_path):
    """One path is as good as a list."""
    model = keras.Sequential([keras.Input((4,)), layers.Dense(2)])
    model.layers[0].bias.assign([0, np.nan])
    path = tmp_path / "nan.tflite"
    model.export(path, format="litert", verbose=False)
    with pytest.raises(ValueError, match=r"NaN among the outputs of .*nan\.tflite"):
        benchmark(path, **QUICK)
    assert len(benchmark(str(files / NAMES[0]), **QUICK)) == 1


def test_data_that_do_not_fit_are_refused(files, images):
    x, y = images
    for name in ("dense.tflite", "saved_model"):
        with pytest.raises(ValueError, match=r"rows, 8, 8, 1.*\(40, 4, 8, 1\)"):
            accuracy_of(files / name, x[:, :4], y)
        with pytest.raises(ValueError, match="each class"):
            accuracy_of(files / name, x, y + 7)


def test_accuracies_are_measured_as_latencies_are(files, images, monkeypatch):
    asked = []

    def spy(path, threads, xnnpack):
        asked.append((threads, xnnpack))
        return measure.interpreter(path, threads, xnnpack)

    monkeypatch.setattr(accuracy, "interpreter", spy)
    benchmark([files / NAMES[0]], images, threads=2, xnnpack=False, **QUICK)
    assert asked == [(2, False)]


def test_files_of_nan_are_no_files_of_class_0(files, images, monkeypatch):
    x, y = images
    outputs = np.zeros((len(x), 3))
    outputs[7] = np.nan
    monkeypatch.setattr(accuracy, "_litert", lambda *_: lambda x: outputs)
    with pytest.raises(ExportError, match=r"dense\.tflite'.* NaN in 1 of 40 rows"):
        accuracy_of(files / "dense.tflite", x, y)


def test_the_program_that_measures_has_neither_keras_nor_the_library():
    code = (
        "import runpy, sys; runpy.run_path(sys.argv[1], run_name='measure'); "
        "print({'keras', 'tensorflow', 'keras_lottery'} & set(sys.modules))"
    )
    run = subprocess.run(
        [sys.executable, "-P", "-c", code, measure.__file__],
        capture_output=True,
        text=True,
    )
    assert run.stdout == "set()\n", run.stderr


def test_the_table_can_be_read_and_stored(table, tmp_path):
    lines = as_text(table).splitlines()
    assert lines[0].split()[:3] == ["file", "bytes", "gzip"]
    assert lines[1].split()[0] == "dense.tflite"
    assert any(line.startswith("dense.tflite, dynamic.tflite: ") for line in lines)
    assert as_records(table)[2]["bytes"] == table["bytes"][2]
    figure = plot_files(table, tmp_path / "files.png")
    assert (tmp_path / "files.png").stat().st_size
    assert figure.axes[0].get_xscale() == "log"
    plot_files(table.drop(columns="accuracy"))
