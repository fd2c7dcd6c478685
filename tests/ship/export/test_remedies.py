"""Errors of LiteRT say which layer is their cause, and what to do."""

import re

import keras
import numpy as np
import pytest
from keras import layers

from keras_lottery.ship.export import ExportError, to_litert
from keras_lottery.ship.export.errors import step
from keras_lottery.ship.export.remedies import remedies_named

pytestmark = pytest.mark.tensorflow

CASES = {
    "recurrent": (
        lambda: layers.Bidirectional(layers.GRU(2, name="memory")),
        (3, 2),
        "float32",
        r"memory' \(GRU\): make it with `unroll=True`",
    ),
    "lookup": (
        lambda: layers.IntegerLookup(
            vocabulary=[1, 2], output_mode="one_hot", name="codes"
        ),
        (1,),
        "int64",
        r"layer 'codes' \(IntegerLookup\): apply it to the data outside",
    ),
    "float64": (
        lambda: layers.Dense(3, dtype="float64", name="precise"),
        (3,),
        "float64",
        r"layer 'precise' \(Dense\): build it in float32",
    ),
}


@pytest.mark.parametrize(
    ("build", "shape", "dtype", "message"), CASES.values(), ids=CASES
)
def test_layers_are_named_with_what_to_do(build, shape, dtype, message, tmp_path):
    model = keras.Sequential([keras.Input(shape, dtype=dtype), build()])
    with pytest.raises(ExportError, match=message) as raised:
        to_litert(model, tmp_path / "model.tflite")
    # One line, without what TensorFlow says of building apps.
    assert not re.search("Flex|Android|\n", str(raised.value))
    assert not list(tmp_path.iterdir())


def test_open_sizes_are_named_where_no_layer_is_known(tmp_path):
    inputs = keras.Input((None, 2))
    model = keras.Model(inputs, keras.ops.erfinv(inputs))
    with pytest.raises(ExportError, match=r"\(Erfinv\).*\(None, None, 2\).*Fix them"):
        to_litert(model, tmp_path / "model.tflite")


def test_names_that_tensorflow_refuses_are_refused_in_one_line(tmp_path):
    steps = keras.Input((4,)), layers.Dense(3, name="größe")
    with pytest.raises(ValueError, match=r"Received: \['größe'\]. Give the layers"):
        to_litert(keras.Sequential(steps), tmp_path / "model.tflite")


def test_what_would_end_the_process_is_refused(tmp_path):
    lstm = layers.LSTM(2, stateful=True, name="memory")
    model = keras.Sequential([keras.Input((3, 2), 4), lstm])
    with pytest.raises(ExportError, match=r"'memory' \(LSTM\).*unroll=True"):
        to_litert(
            model,
            tmp_path / "model.tflite",
            quantize="int8",
            representative_data=np.ones((4, 3, 2), "float32"),
        )


def test_errors_without_a_text_have_a_reason():
    message = r"writing it failed: AssertionError\(\)"
    with pytest.raises(ExportError, match=message), step("writing it"):
        raise AssertionError


def test_a_path_names_no_operation(tmp_path):
    model = keras.Sequential([keras.Input((4,)), layers.Dense(2)])
    text = f"Nothing was written to '{tmp_path}/FlexNet.tflite': it differs by 0.3"
    named = remedies_named(model, tmp_path / "FlexNet.tflite")
    with pytest.raises(ExportError, match=re.escape(text)), named:
        raise ExportError(text)
