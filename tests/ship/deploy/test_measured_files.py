"""`benchmark`: files measured one beside the other."""

import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import layers

import keras_lottery as kl
from keras_lottery.ship.deploy import benchmark, measure, plot_files, quality
from keras_lottery.ship.deploy.quality import accuracy_of
from keras_lottery.ship.deploy.show import as_records, as_text
from keras_lottery.ship.export import ExportError
from keras_lottery.ship.export.data import threshold_of
from tests.models_zoo import KERAS

pytestmark = [pytest.mark.tensorflow, pytest.mark.slow]

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


@pytest.mark.skipif(KERAS < (3, 13), reason="Keras writes LiteRT from 3.13 on")
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

    monkeypatch.setattr(quality, "interpreter", spy)
    benchmark([files / NAMES[0]], images, threads=2, xnnpack=False, **QUICK)
    assert asked == [(2, False)]


def test_files_of_nan_are_no_files_of_class_0(files, images, monkeypatch):
    x, y = images
    outputs = np.zeros((len(x), 3))
    outputs[7] = np.nan
    file = {"x": (-1, 8, 8, 1)}, lambda x: {"y": outputs}
    monkeypatch.setattr(quality, "_litert", lambda *_: file)
    with pytest.raises(ExportError, match=r"dense\.tflite'.* NaN in 1 of 40 rows of y"):
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


@pytest.fixture(scope="module")
def two_ends(tmp_path_factory):
    """Two inputs, a regression and a binary classifier: model, data and files."""
    keras.utils.set_random_seed(0)
    left, right = keras.Input((4,), name="left"), keras.Input((2,), name="right")
    hidden = layers.Concatenate()([left, right])
    age = layers.Dense(1, name="age", kernel_regularizer="l2")(hidden)
    sick = layers.Dense(1, "sigmoid", name="sick")(hidden)
    model = keras.Model({"left": left, "right": right}, {"age": age, "sick": sick})
    model.compile(
        loss={"age": "mse", "sick": "bce"}, metrics={"age": ["mae"], "sick": ["auc"]}
    )
    rng = np.random.default_rng(0)
    x = {"left": rng.normal(size=(20, 4)), "right": rng.normal(size=(20, 2))}
    x = {name: array.astype("float32") for name, array in x.items()}
    y = {"age": rng.random(20), "sick": rng.integers(0, 2, 20)}
    folder = tmp_path_factory.mktemp("two_ends")
    kl.export.to_litert(model, folder / "a.tflite")
    kl.export.to_saved_model(model, folder / "a")
    return model, (x, y), [folder / "a.tflite", folder / "a"]


@pytest.mark.parametrize("metric", ["age_mae", "sick_auc", "age_loss"])
def test_metrics_of_several_outputs_are_those_of_the_model(two_ends, metric):
    model, (x, y), files = two_ends
    said = model.evaluate(x, y, verbose=0, return_dict=True)[metric]
    found = quality.by_model((x, y), model, f"val_{metric}")
    assert found.value == pytest.approx(said, rel=1e-5)
    for file in files:
        assert found.measure(file) == pytest.approx(said, rel=1e-4)
    assert found.objective.direction == ("max" if metric == "sick_auc" else "min")


def test_a_table_has_the_metric_that_was_asked_for(two_ends):
    model, data, files = two_ends
    kwargs = {"model": model, "objective": "val_age_mae", **QUICK}
    table = benchmark(files[0], data, **kwargs)
    value = table["age_mae"].item()
    assert "accuracy" not in table
    objective = kl.Objective("val_age_mae")
    assert f"{value:.4g}" in as_text(table, objective).splitlines()[1].split()
    assert "age mae" in as_text(table, objective).splitlines()[0]
    figure = plot_files(table, objective="val_age_mae")
    assert figure.axes[1].get_ylabel() == "age mae"


def test_what_cannot_be_measured_says_why(two_ends, net, images, files):
    model, (x, y), paths = two_ends
    with pytest.raises(ValueError, match=r"val_age_mae.*Received: .*'val_mae'"):
        quality.by_model((x, y), model, "val_mae")
    with pytest.raises(ValueError, match=r"reports no accuracy.*'val_age_mae'"):
        quality.by_model((x, y), model)
    half = keras.Model(model.input, model.output["age"])
    half.compile(loss="mse")
    with pytest.raises(ValueError, match=r"outputs of the model.*'age', 'sick'"):
        quality.by_model((x, y["age"]), half).measure(paths[0])
    with pytest.raises(ValueError, match=r"one output, to measure its mae.*'age', 'si"):
        quality.by_name((x, y["age"]), "val_mae").measure(paths[0])
    with pytest.raises(ValueError, match=r"inputs \['left', 'right'\].*one array"):
        quality.outputs_of(paths[0], x["left"])
    with pytest.raises(ValueError, match=r"a metric of Keras's.*'val_mea'"):
        benchmark(files / NAMES[0], images, objective="val_mea")
    with pytest.raises(ValueError, match=r"shapes \[\(20,\), \(20, 7\)\].*Keras says"):
        wrong = {**y, "sick": np.ones((20, 7))}
        quality.by_model((x, wrong), model, "val_age_mae")
    with pytest.raises(ValueError, match=r"`model` to be a compiled"):
        benchmark(files / NAMES[0], images, model=net)
    with pytest.raises(ValueError, match=r"`objective` to be None without `data`"):
        benchmark(files / NAMES[0], objective="val_mae")


@keras.saving.register_keras_serializable("files")
class Mine(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.head = layers.Dense(1)

    def call(self, inputs):
        return self.head(inputs)


@pytest.mark.parametrize("metric", ["mae", "auc", "mse"])
def test_files_alone_have_metrics_of_keras(two_ends, tmp_path, metric):
    _, (x, y), _ = two_ends
    given = keras.Input((4,))
    plain = keras.Model(given, layers.Dense(1, "sigmoid")(given))
    plain.compile(loss="mse", metrics=[metric])
    file = kl.export.to_litert(plain, tmp_path / "a.tflite").path
    data = x["left"], y["sick"]
    expected = plain.evaluate(*data, verbose=0, return_dict=True)[metric]
    assert quality.by_name(data, f"val_{metric}").measure(file) == pytest.approx(
        expected, rel=1e-4
    )
    # The model's only metric.
    assert quality.by_model(data, plain).objective.metric == metric


def test_the_loss_is_what_a_model_without_metrics_is_compared_by(two_ends, tmp_path):
    """Of a subclassed one, too."""
    _, (x, y), _ = two_ends

    model = Mine()
    model.compile(loss="mae")
    loss = model.evaluate(x["left"], y["age"], verbose=0)
    file = kl.export.to_litert(model, tmp_path / "a.tflite").path
    found = quality.by_model((x["left"], y["age"]), model)
    assert found.objective == kl.Objective("val_loss", "min")
    assert found.measure(file) == pytest.approx(loss, rel=1e-4)


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
