import warnings

import keras
import numpy as np
import pytest
from keras import layers

from keras_lottery.ship.export import to_keras
from keras_lottery.ship.export.data import accuracy, as_inputs, checks_for, some_rows

pytestmark = pytest.mark.once


def classifier(units, **compile_args):
    model = keras.Sequential([keras.Input((4,)), layers.Dense(units)])
    if compile_args:
        model.compile(**compile_args)
    return model


def test_inputs_go_by_name_whatever_their_order(two_by_two, two_inputs):
    turned = dict(reversed(two_inputs.items()))
    for given in (two_inputs, turned):
        inputs = as_inputs(two_by_two, given, "test_data")
        for name, array in two_inputs.items():
            np.testing.assert_array_equal(inputs[name], array)


def test_a_list_is_taken_in_the_order_of_the_models_own_list(two_by_two, two_inputs):
    arrays = [two_inputs["zeta"], two_inputs["alpha"]]
    if isinstance(two_by_two.input, dict):
        with pytest.raises(ValueError, match="a dictionary of arrays by name"):
            as_inputs(two_by_two, arrays, "test_data")
    else:
        inputs = as_inputs(two_by_two, arrays, "test_data")
        np.testing.assert_array_equal(inputs["zeta"], two_inputs["zeta"])


def test_inputs_get_the_models_types(two_by_two, two_inputs):
    wide = {name: array.astype(float) for name, array in two_inputs.items()}
    inputs = as_inputs(two_by_two, wide, "test_data")
    assert inputs["alpha"].dtype == "int32"
    assert inputs["zeta"].dtype == "float32"


@pytest.mark.parametrize(
    "x",
    [
        3,
        np.ones((5, 4)),
        {"zeta": np.ones((5, 4))},
        {"zeta": np.ones((5, 4)), "alpha": np.ones((6, 5))},
        {"zeta": np.ones((5, 3)), "alpha": np.ones((5, 5))},
        {"zeta": np.ones((0, 4)), "alpha": np.ones((0, 5))},
        {"zeta": 1, "alpha": 2},
    ],
)
def test_inputs_that_do_not_fit_are_refused(two_by_two, x):
    with pytest.raises(ValueError, match=r"`calibration` to hold .* Received"):
        as_inputs(two_by_two, x, "calibration")


def test_without_data_the_check_inputs_are_random_and_fit(two_by_two):
    checks = checks_for(two_by_two, None)
    assert checks.described == "32 random rows"
    assert checks.inputs["zeta"].shape == (32, 4)
    assert set(np.unique(checks.inputs["alpha"])) == {0, 1}


def test_rows_are_spread_over_the_data():
    rows = some_rows({"x": np.arange(1000)}, 3)["x"]
    assert rows.tolist() == [0, 499, 999]
    assert len(some_rows({"x": np.arange(2)}, 3)["x"]) == 2


@pytest.mark.parametrize(
    "y", [[0, 1, 2, 2], [[0], [1], [2], [2]], np.eye(3)[[0, 1, 2, 2]]]
)
def test_labels_may_be_classes_or_one_hot_rows(y):
    model = classifier(3)
    checks = checks_for(model, (np.ones((4, 4)), y))
    assert checks.classes.tolist() == [0, 1, 2, 2]
    assert accuracy(model, np.eye(3)[[0, 1, 2, 0]], checks.classes) == 0.75


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        (keras.losses.BinaryCrossentropy(), 0.75),
        (keras.losses.BinaryCrossentropy(from_logits=True), 0.5),
        (None, 0.75),
    ],
)
def test_one_output_unit_decides_between_two_classes(loss, expected):
    model = classifier(1, loss=loss) if loss else classifier(1)
    output = np.array([[0.7], [0.2], [-1.0], [0.9]])
    classes = checks_for(model, (np.ones((4, 4)), [1, 0, 0, 0])).classes
    assert accuracy(model, output, classes) == expected


@pytest.mark.parametrize(
    "test_data",
    [
        np.ones((4, 4)),
        (np.ones((4, 4)),),
        (np.ones((4, 4)), [0, 1, 2]),
        (np.ones((4, 4)), [0.5, 1, 2, 2]),
        (np.ones((4, 4)), np.ones((4, 2))),
        (np.ones((4, 5)), [0, 1, 2, 2]),
    ],
)
def test_test_data_that_do_not_fit_are_refused(test_data):
    with pytest.raises(ValueError, match=r"Expected `test_data`.* Received"):
        checks_for(classifier(3), test_data)


def test_an_accuracy_needs_one_output(two_by_two, two_inputs):
    with pytest.raises(ValueError, match=r"classifier of one output.*2 output"):
        checks_for(two_by_two, (two_inputs, np.zeros(20)))


def test_what_a_model_was_compiled_with_is_measured_on_the_file(tmp_path):
    """Of two outputs, one a regression: as `evaluate` says, without penalties."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((4,))
    age = layers.Dense(1, kernel_regularizer="l2", name="age")(inputs)
    kind = layers.Dense(3, name="kind")(inputs)
    model = keras.Model(inputs, {"age": age, "kind": kind})
    cross_entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    own = keras.metrics.RootMeanSquaredError("rmse")
    model.compile(
        loss={"age": "mse", "kind": cross_entropy},
        metrics={"age": ["mae", own], "kind": "accuracy"},
    )
    rng = np.random.default_rng(0)
    x = rng.random((20, 4), dtype="float32")
    y = {"age": rng.random((20, 1)), "kind": rng.integers(0, 3, 20)}
    report = to_keras(model, tmp_path / "model.keras", test_data=(x, y))
    said = model.evaluate(x, y, verbose=0, return_dict=True)
    names = ["age_mae", "age_rmse", "kind_accuracy"]
    assert sorted(report.metrics) == names and report.accuracy is None
    assert report.metrics == pytest.approx({k: said[k] for k in names}, rel=1e-5)
    assert report.keras_metrics == pytest.approx(report.metrics, rel=1e-5)
    assert "age_mae" in str(report)
    with pytest.raises(ValueError, match=r"Expected `test_data`.*shapes .*\(20, 7\)"):
        to_keras(
            model, tmp_path / "b.keras", test_data=(x, {**y, "kind": np.ones((20, 7))})
        )


def test_a_regression_has_its_loss_and_a_classifier_more_than_its_accuracy(tmp_path):
    x, y = np.ones((4, 4), "float32"), np.array([0.5, 1, 2, 2])
    model = classifier(1, loss="mse")
    report = to_keras(model, tmp_path / "a.keras", test_data=(x, y))
    assert report.metrics == pytest.approx({"loss": model.evaluate(x, y, verbose=0)})
    model = classifier(3)
    top = keras.metrics.SparseTopKCategoricalAccuracy(2, name="top_2")
    model.compile(loss="sparse_categorical_crossentropy", metrics=["accuracy", top])
    report = to_keras(model, tmp_path / "a.keras", test_data=(x, [0, 1, 2, 2]))
    assert list(report.metrics) == ["top_2"] and report.accuracy is not None
    with pytest.warns(UserWarning, match="The accuracy alone is measured. Expected"):
        to_keras(model, tmp_path / "a.keras", test_data=(x, np.eye(3)[[0, 1, 2, 2]]))


@pytest.mark.parametrize(
    ("loss", "metrics", "has_accuracy"),
    [
        ("mse", ["mae"], False),
        (keras.losses.Huber(), None, False),
        ("bce", None, True),
        ({"dense": keras.losses.BinaryCrossentropy()}, ["auc"], True),
        (keras.losses.binary_focal_crossentropy, None, True),
        ("mse", ["accuracy"], True),
        ("mse", [keras.metrics.BinaryAccuracy(name="right")], True),
    ],
)
def test_whole_numbers_are_classes_only_where_the_model_classifies(
    tmp_path, loss, metrics, has_accuracy
):
    outputs = layers.Dense(1, "sigmoid", name="dense")(inputs := keras.Input((4,)))
    model = keras.Model(inputs, outputs)
    model.compile(loss=loss, metrics=metrics)
    x, y = np.ones((4, 4), "float32"), np.array([0, 1, 1, 0])
    report = to_keras(model, tmp_path / "a.keras", test_data=(x, y))
    assert (report.accuracy is not None) is has_accuracy
    assert (report.keras_accuracy is not None) is has_accuracy
    if not has_accuracy:
        assert report.metrics and report.metrics == report.keras_metrics


class Strange(keras.metrics.Mean):
    """Cannot be made of its config."""

    def __init__(self, k, name="strange"):
        super().__init__(name=name)

    def update_state(self, y_true, y_pred, sample_weight=None):
        pass


def test_a_metric_that_cannot_be_made_again_leaves_the_accuracy():
    model = classifier(3, loss="sparse_categorical_crossentropy", metrics=[Strange(2)])
    checks = checks_for(model, (np.ones((6, 4), "float32"), np.zeros(6, int)))
    assert checks.classes is not None
    with pytest.warns(UserWarning, match="The accuracy alone is measured"):
        assert checks.measured({"output": np.ones((6, 3), "float32")}) == {}


def test_metrics_are_measured_without_a_warning(tmp_path):
    given = keras.Input((4,))
    layer = layers.Dense(2, name="twice")
    for model in (
        classifier(2, loss="mse", metrics=["mae"]),
        keras.Model(given, [layer(given), layer(2 * given)]),
    ):
        outputs = len(model.outputs)
        if outputs == 2:
            model.compile("sgd", "mse")
        y = [np.ones((6, 2), "float32")] * outputs
        data = np.ones((6, 4), "float32"), y if outputs == 2 else y[0]
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            report = to_keras(model, tmp_path / f"{outputs}.keras", test_data=data)
        assert report.metrics and report.metrics == report.keras_metrics
