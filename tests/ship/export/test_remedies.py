"""Errors of LiteRT say which layer is their cause, and what to do."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_lottery.ship.export import ExportError, to_litert
from keras_lottery.ship.export.errors import step

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
    with pytest.raises(ExportError, match=message):
        to_litert(model, tmp_path / "model.tflite")
    assert not list(tmp_path.iterdir())


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
