import numpy as np
import pytest

from keras_lottery.ship.export import ExportError
from keras_lottery.ship.export.verify import compare

pytestmark = pytest.mark.once

EXPECTED = np.eye(10, 4) + 0.1


def off_by(difference):
    actual = EXPECTED.copy()
    actual[3, 3] += difference
    return {"y": actual}


@pytest.mark.parametrize(
    ("precision", "allowed", "refused"),
    [("float32", 1e-5, 1e-3), ("float16", 1e-3, 1e-1), ("int8", 0.5, 10)],
)
def test_differences_are_allowed_up_to_the_tolerance(precision, allowed, refused):
    difference = compare({"y": EXPECTED}, off_by(allowed), precision)
    assert difference == pytest.approx(allowed)
    with pytest.raises(ExportError, match="`y` differs"):
        compare({"y": EXPECTED}, off_by(refused), precision)


def test_the_tolerance_follows_the_scale_of_the_outputs():
    compare({"y": 1000 * EXPECTED}, {"y": 1000 * off_by(1e-5)["y"]}, "float32")
    with pytest.raises(ExportError, match="`y` differs"):
        compare({"y": EXPECTED / 100}, {"y": off_by(1e-3)["y"] / 100}, "float32")


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("precision", ["float32", "float16", "int8"])
def test_values_that_are_not_finite_are_refused(precision, value):
    with pytest.raises(ExportError, match="NaN or infinite values in `y`"):
        compare({"y": EXPECTED}, off_by(value), precision)


def test_outputs_of_other_names_or_shapes_are_refused():
    for actual in ({"z": EXPECTED}, {"y": EXPECTED[:5]}, {}):
        with pytest.raises(ExportError, match="where the Keras model returns"):
            compare({"y": EXPECTED}, actual, "float32")


def test_eight_bits_are_judged_by_the_decisions_too():
    expected = np.tile([0.0] * 98 + [0.8, 1.0], (10, 1))
    actual = expected[:, ::-1]  # a small mean difference, another decision
    with pytest.raises(ExportError, match=r"only 0\.0% of the rows"):
        compare({"y": expected}, {"y": actual}, "int8")
    near_tie = np.tile([0.0] * 98 + [0.95, 1.0], (10, 1))
    flipped = near_tie.copy()
    flipped[:, -2:] = 1.0, 0.95
    assert compare({"y": near_tie}, {"y": flipped}, "int8") == pytest.approx(0.05)
