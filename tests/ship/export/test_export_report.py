import dataclasses
import json
from pathlib import Path

import pytest

from keras_lottery.ship.export import ExportReport

pytestmark = pytest.mark.once

REPORT = ExportReport(
    path=Path("a.tflite"),
    format="litert",
    bytes=250,
    gzip_bytes=200,
    dense_bytes=1000,
    max_difference=1.5e-7,
    checked_on="32 random rows",
    sparsity=0.95,
    accuracy=0.981,
    keras_accuracy=0.982,
    notes=("Rerouted.",),
)


def test_str_holds_every_measurement():
    assert str(REPORT).splitlines() == [
        "a.tflite (litert)",
        "  bytes           250 (25.0% of the dense model's 1,000)",
        "  gzip bytes      200",
        "  sparsity        95.00%",
        "  max difference  1.5e-07 on 32 random rows",
        "  accuracy        98.10% (the Keras model's 98.20%)",
        "  note: Rerouted.",
    ]


def test_str_leaves_out_an_accuracy_that_was_not_measured():
    report = dataclasses.replace(REPORT, accuracy=None, keras_accuracy=None)
    assert "accuracy" not in str(report)


def test_json_holds_every_field():
    values = json.loads(json.dumps(REPORT.to_dict()))
    assert values.keys() == {field.name for field in dataclasses.fields(REPORT)}
    assert values["path"] == "a.tflite"
    assert values["notes"] == ["Rerouted."]


def test_reports_do_not_change():
    with pytest.raises(dataclasses.FrozenInstanceError):
        REPORT.bytes = 1
